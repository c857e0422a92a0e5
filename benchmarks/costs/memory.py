"""Whether a run of a language model fits: an estimate before any weights are loaded.

All the time there are

    weights             as many bytes each as their precision has
    trained parameters  16 bytes each: value, gradient and Adam's two moments, in float32
    method              what it keeps of earlier tasks (`Method.needs`)

and beside these the largest of a step,

    activations         of a micro-batch, or of what a method passes at a time: 8 hidden vectors (12
                        where all weights are trained), half of them in float32, and 4 intermediate
                        ones a token and block; with checkpointing one a token and block, and all of
                        one block
    logits              of the answers, in working precision, in float32, and their gradient
    copies in bfloat16  of weights in float32, where training is in mixed precision
    micro-batches       a second gradient of the trained parameters
    method              what it makes in a step or at a task's end

of the optimiser's step, one more number for each trained parameter, and of a test,

    generation          keys and values of all tokens of a test batch, in the weights' precision,
                        and the inside of one block: of the prompts, or of the last token with the
                        keys and values of all heads
    logits              of one token

It leaves out what CUDA takes for itself, half a GiB, and what the allocator wastes. Of images only
what LoRA takes is known, see `of_images`.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

import baselines
from analysis.text import visible
from baselines.common.base import Needs
from baselines.common.lora import LoraSettings, add_lora
from benchmarks import backbones
from benchmarks.common.devices import TEST_BATCH_SIZE
from benchmarks.common.errors import DataError
from benchmarks.costs import operations

if TYPE_CHECKING:
    from benchmarks.backbones.language import LanguageModel

Changes = dict[tuple[str, str], object]  # of a spec: part and name -> another value

GIB = 2**30
ANSWER_TOKENS = 512  # assumed of an answer that no option limits
WEIGHTS = (None, "bfloat16", "nf4")  # precisions, the next takes less


@dataclass(frozen=True)
class Estimate:
    """Bytes that a run takes.

    Attributes:
        weights: of the network as it is loaded.
        trained: parameters that are trained beside these, their gradients and moments.
        kept: by the method.
        step: at most in a step or at a task's end, beside all that.
        test: at most in a test, beside all that.
    """

    weights: int
    trained: int
    kept: int
    step: int
    test: int

    @property
    def total(self) -> int:
        return self.weights + self.trained + self.kept + max(self.step, self.test)

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            "what is trained": self.trained,
            "what the method keeps": self.kept,
            "a step" if self.step > self.test else "a test": max(self.step, self.test),
        }
        told = ", ".join(f"{name} {gib(part)}" for name, part in parts.items() if part >= GIB / 20)
        return f"{gib(self.total)} GiB ({told})"


def gib(n_bytes: int) -> str:
    return f"{n_bytes / GIB:.1f}"


def estimate(spec: dict) -> Estimate:
    """The estimate for a run's spec, on the real shapes of its network."""
    backbone, train, stream = spec["backbone"], spec["train"], spec["stream"]
    from benchmarks.backbones.language import weight_bytes  # seconds to import

    model, everything = _shapes(backbone["name"])
    method = baselines.of(spec["method"], "language")
    needs = method.needs(
        method.Config(**spec["method"]["config"]),
        Needs(
            backbone=model,
            n_tasks=stream["n_tasks"],
            prompt_tokens=stream["max_prompt_tokens"],
            answer_tokens=stream.get("max_answer_tokens") or ANSWER_TOKENS,
            samples=train["micro_batch_size"] or train["batch_size"],
        ),
    )
    all_trained = needs.trained == everything  # in float32, whatever the weights are
    weights = None if all_trained else backbone.get("weights")
    in_float32, mixed = weights is None, train["precision"] == "bfloat16"
    loaded = 4 if in_float32 else 2  # bytes of a number outside of mixed precision
    step = _passes(
        model,
        needs,
        vectors=12 if all_trained else 8,
        checkpointing=train.get("checkpointing", False),
        loaded=loaded,
        working=2 if mixed else loaded,
    )
    if in_float32 and mixed:  # copies of the weights; of frozen ones block by block if they can
        by_block = train.get("checkpointing") and not all_trained
        step += 2 * everything // (model.network.config.num_hidden_layers if by_block else 1)
    if train["micro_batch_size"]:
        step += 4 * needs.trained
    return Estimate(
        weights=0 if all_trained else weight_bytes(model.network, weights),
        trained=16 * needs.trained,
        kept=needs.kept_bytes,
        step=max(step + needs.made_bytes, 4 * needs.trained),
        test=_generation(
            model,
            samples=train.get("test_batch_size") or TEST_BATCH_SIZE,
            prompt_tokens=needs.prompt_tokens,
            new_tokens=stream.get("max_new_tokens") or ANSWER_TOKENS,
            loaded=loaded,
        ),
    )


def of_images(spec: dict) -> int:
    """Bytes that LoRA takes on images, whatever the method: weights, what is trained, and what a
    step keeps for the way back, attention in full, with a fifth for what it makes there."""
    backbone, train = spec["backbone"], spec["train"]
    weights, trained, each = _image(backbone["name"], backbone["image_size"])
    at_a_time = train["micro_batch_size"] or train["batch_size"]
    return weights + 16 * trained + 6 * each * at_a_time // 5


@functools.cache
def _image(backbone: str, image_size: int | None) -> tuple[int, int, int]:
    """Bytes of weights, parameters that LoRA trains, bytes that the passes of an image keep."""
    found = backbones.find(backbone)
    with torch.device("meta"):
        model = add_lora(operations.network(found, image_size), LoraSettings())
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        operations.run(model, "vision", 0)
    of_weights = {p.untyped_storage()._cdata for p in model.parameters()}
    each = sum(storage.nbytes() for cdata, storage in kept.items() if cdata not in of_weights)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return sum(p.nbytes for p in model.parameters()), trained, each


@functools.cache
def _shapes(backbone: str) -> tuple[LanguageModel, int]:
    """The network without values, and how many parameters it has."""
    model = backbones.find(backbone).build(device="meta")
    return model, sum(p.numel() for p in model.parameters())


def _passes(
    model: LanguageModel,
    needs: Needs,
    vectors: int,
    checkpointing: bool,
    loaded: int,
    working: int,
) -> int:
    """What a step's passes keep for the way back, and what they make on it."""
    hidden, inside = model.width, _inside(model)
    length = needs.prompt_tokens + needs.answer_tokens
    tokens = needs.samples * length
    half = (4 + working) // 2  # norms are in float32
    block = tokens * (vectors * half * hidden + 4 * working * inside)
    block += tokens * length * working  # the mask, as attention reads it
    back = tokens * (4 * half * hidden + 3 * working * inside)
    logits = needs.samples * needs.answer_tokens * model.vocabulary * (working + 8)
    n_blocks = model.network.config.num_hidden_layers
    kept = n_blocks * tokens * hidden * loaded + block if checkpointing else n_blocks * block
    return kept + back + logits


def _generation(
    model: LanguageModel, samples: int, prompt_tokens: int, new_tokens: int, loaded: int
) -> int:
    """What answers to a test batch take."""
    config = model.network.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or model.width // config.num_attention_heads
    token = 2 * config.num_hidden_layers * heads * head * loaded  # its keys and values
    prompts, new = samples * prompt_tokens, samples * new_tokens
    block = prompts * (6 * model.width + 3 * _inside(model)) * loaded
    block += prompts * prompt_tokens * (1 + loaded)  # the mask, and as attention reads it
    last = token * new + 2 * config.num_attention_heads * head * (prompts + new) * loaded
    logits = samples * model.vocabulary * (loaded + 8)
    return token * prompts + max(block, last) + logits


def _inside(model: LanguageModel) -> int:
    """Width of a block's inside."""
    return getattr(model.network.config, "intermediate_size", None) or 4 * model.width


def available_bytes(device: str) -> int:
    """Free memory of the GPU, or what this machine and the job's limit can still give."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return min([psutil.virtual_memory().available, *left_to_groups()])


def left_to_groups(
    root: Path = Path("/sys/fs/cgroup"), listing: Path = Path("/proc/self/cgroup")
) -> Iterator[int]:
    """Bytes left to each control group (version 2) of this process that has a limit."""
    try:
        own = listing.read_text().rpartition("0::/")[2].strip().lstrip("/")
    except OSError:
        return
    for group in (root / own, *(root / own).parents):
        if group.is_relative_to(root):
            with suppress(OSError, ValueError):  # the root has no limit, others may say "max"
                limit = int((group / "memory.max").read_text())
                yield max(0, limit - int((group / "memory.current").read_text()))


def check(spec: dict, device: str) -> str:
    """The estimate in words.

    Raises:
        DataError: it does not fit; the sentence says what would.
    """
    available = available_bytes(device)
    if refusal := refuse(spec, available):
        method, backbone = (visible(spec[part]["name"]) for part in ("method", "backbone"))
        raise DataError(f"{method} on {backbone} does not fit on this {device}: {refusal}")
    return f"about {estimate(spec)} are needed, and {gib(available)} GiB are free"


def refuse(spec: dict, available: int) -> str | None:
    """Why a run does not fit into that many bytes, and what would; None if it fits."""
    needed = estimate(spec)
    if needed.total <= available:
        return None
    why = f"it needs about {needed}, and the device has {gib(available)} GiB"
    tried = []
    for remedy in _remedies(spec):
        changes = _smaller_batches(spec, remedy, available)
        takes = estimate(_changed(spec, changes)).total
        words = ", ".join(f"{name}: {str(value).lower()}" for (_, name), value in changes.items())
        if takes <= available:
            larger = math.ceil(needed.total / GIB)
            return f"{why}: set {words}, which takes {gib(takes)}, or take one with {larger} GiB"
        tried.append((takes, words))
    takes, words = min(tried)
    words = f" and set {words}" if words else ""
    return f"{why}: take one with {math.ceil(takes / GIB)} GiB{words}, or take a smaller model"


def _remedies(spec: dict) -> Iterator[Changes]:
    """What may be changed beside the sizes of batches: what moves no score first, and last the
    number among the method's own settings that saves the most."""
    checkpoints = [{}]
    if not spec["train"].get("checkpointing"):
        checkpoints.append({("train", "checkpointing"): True})
    lighter = WEIGHTS[WEIGHTS.index(spec["backbone"].get("weights")) + 1 :]
    for weights in ({}, *({("backbone", "weights"): name} for name in lighter)):
        yield from (weights | changes for changes in checkpoints)
    config, totals = spec["method"]["config"], {}
    for name in inspect.get_annotations(baselines.of(spec["method"], "language").Config):
        number = config[name]
        if type(number) is int and number > 1:
            with suppress(ValueError):  # what the method refuses
                totals[name] = estimate(_changed(spec, {("method", name): number // 2})).total
    if totals:
        best = min(totals, key=totals.__getitem__)
        yield from (
            {("method", best): config[best] >> n} for n in range(1, config[best].bit_length())
        )


def _smaller_batches(spec: dict, changes: Changes, available: int) -> Changes:
    """Those changes and the largest batches with which it fits, or else takes least."""
    train = spec["train"]
    sizes = {
        "test_batch_size": train.get("test_batch_size") or TEST_BATCH_SIZE,
        "micro_batch_size": train["micro_batch_size"] or train["batch_size"],
    }
    seen = []
    while (now := estimate(_changed(spec, changes))).total > available:
        seen.append((now.total, changes))
        name = "test_batch_size" if now.test > now.step else "micro_batch_size"
        if sizes[name] == 1:
            return min(seen, key=itemgetter(0))[1]  # micro-batches take a gradient more
        sizes[name] //= 2
        changes = changes | {("train", name): sizes[name]}
    return changes


def _changed(spec: dict, changes: Changes) -> dict:
    """The spec with other values at (part, name)."""
    spec = copy.deepcopy(spec)
    for (part, name), value in changes.items():
        (spec["method"]["config"] if part == "method" else spec[part])[name] = value
    return spec
