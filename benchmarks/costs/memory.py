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

It leaves out what CUDA takes for itself, half a GiB, and what the allocator wastes.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

import baselines
from analysis.text import visible
from baselines.common.base import Needs
from benchmarks import backbones
from benchmarks.backbones.language import LanguageModel
from benchmarks.common.devices import TEST_BATCH_SIZE
from benchmarks.common.errors import DataError

Changes = dict[tuple[str, str], object]  # of a spec: part and name -> another value

GIB = 2**30
ANSWER_TOKENS = 512  # assumed of an answer that no option limits


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
    weight_bytes = 2 if backbone.get("weights") and not all_trained else 4
    mixed = train["precision"] == "bfloat16"
    working_bytes = 2 if mixed else weight_bytes
    tested = train.get("test_batch_size") or TEST_BATCH_SIZE
    new_tokens = stream.get("max_new_tokens") or needs.answer_tokens
    return Estimate(
        weights=0 if all_trained else everything * weight_bytes,
        trained=16 * needs.trained,
        kept=needs.kept_bytes,
        step=max(
            _passes(model, needs, train, all_trained, weight_bytes, working_bytes)
            + (4 * needs.trained if train["micro_batch_size"] else 0)
            + needs.made_bytes,
            4 * needs.trained,
        ),
        test=_generation(model, tested, needs.prompt_tokens, new_tokens, weight_bytes),
    )


@functools.cache
def _shapes(backbone: str) -> tuple[LanguageModel, int]:
    """The network without values, and how many parameters it has."""
    model = backbones.find(backbone).build(device="meta")
    return model, sum(p.numel() for p in model.parameters())


def _passes(
    model: LanguageModel,
    needs: Needs,
    train: dict,
    all_trained: bool,
    weight_bytes: int,
    working_bytes: int,
) -> int:
    """What a step's passes keep for the way back, and the inside of one block on that way."""
    if not needs.samples:
        return 0
    hidden, inside = model.width, _inside(model)
    n_blocks = model.network.config.num_hidden_layers
    length = needs.prompt_tokens + needs.answer_tokens
    tokens = needs.samples * length
    hidden_bytes = (4 + working_bytes) / 2 * hidden  # norms are in float32
    block = tokens * ((12 if all_trained else 8) * hidden_bytes + 4 * inside * working_bytes)
    block += tokens * length * working_bytes  # the mask, as attention reads it
    back = tokens * (4 * hidden_bytes + 3 * inside * working_bytes)
    logits = needs.samples * needs.answer_tokens * model.vocabulary * (working_bytes + 8)
    copies = 2 * sum(p.numel() for p in model.parameters()) if working_bytes < weight_bytes else 0
    if train.get("checkpointing"):
        kept = n_blocks * tokens * hidden * weight_bytes + block
        copies = copies if all_trained else copies / n_blocks
    else:
        kept = n_blocks * block
    return int(kept + back + logits + copies)


def _generation(
    model: LanguageModel, samples: int, prompt_tokens: int, new_tokens: int, n_bytes: int
) -> int:
    """Of answers to a test batch, with all numbers in `n_bytes`."""
    config = model.network.config
    hidden, n_blocks = model.width, config.num_hidden_layers
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    cache = 2 * n_blocks * heads * head * n_bytes  # of a token
    prompts, new = samples * prompt_tokens, samples * new_tokens
    block = prompts * (6 * hidden + 3 * _inside(model)) * n_bytes
    block += prompts * prompt_tokens * (1 + n_bytes)  # the mask, and as attention reads it
    all_heads = 2 * config.num_attention_heads * head * (prompts + new) * n_bytes
    logits = samples * model.vocabulary * (n_bytes + 8)
    return cache * prompts + max(block, cache * new + all_heads) + logits


def _inside(model: LanguageModel) -> int:
    """Width of a block's inside."""
    return getattr(model.network.config, "intermediate_size", None) or 4 * model.width


def available_bytes(device: str) -> int:
    """Free memory of the GPU, or what this machine can still give."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check(spec: dict, device: str) -> str:
    """The estimate in words.

    Raises:
        DataError: it does not fit; the sentence says what would.
    """
    available = available_bytes(device)
    if refusal := refuse(spec, available):
        raise DataError(refusal)
    return f"about {estimate(spec)} are needed, and {gib(available)} GiB are free"


def refuse(spec: dict, available: int) -> str | None:
    """Why a run does not fit into that many bytes, and what would; None if it fits."""
    needed = estimate(spec)
    if needed.total <= available:
        return None
    why = (
        f"{visible(spec['method']['name'])} on {visible(spec['backbone']['name'])} needs about "
        f"{needed}, and {gib(available)} GiB are there"
    )
    larger = f"take a device with {math.ceil(needed.total / GIB)} GiB"
    for changes in _remedies(spec):
        if (fitting := _smaller_batches(spec, changes, available)) is not None:
            asked = ", ".join(
                f"{name}: {str(value).lower()}" for (_, name), value in fitting.items()
            )
            takes = gib(estimate(_changed(spec, fitting)).total)
            return f"{why}: set {asked}, which takes {takes}, or {larger}"
    return f"{why}: {larger}, or a smaller model"


def _remedies(spec: dict) -> Iterator[Changes]:
    """What may be changed beside the sizes of batches: what moves no score first."""
    yield {}
    flags = {("train", "checkpointing"): True, ("backbone", "weights"): "bfloat16"}
    flags = {at: value for at, value in flags.items() if not spec[at[0]].get(at[1])}
    for n in range(1, len(flags) + 1):
        yield from map(dict, itertools.combinations(flags.items(), n))
    own = spec["method"]["config"].items()
    halved = [{("method", name): n // 2} for name, n in own if type(n) is int and n > 1]
    if not halved:
        return
    (best,) = min(halved, key=lambda changes: estimate(_changed(spec, changes)).total)
    for n in range(1, spec["method"]["config"][best[1]].bit_length()):
        yield {best: spec["method"]["config"][best[1]] >> n}


def _smaller_batches(spec: dict, changes: Changes, available: int) -> Changes | None:
    """Those changes and the largest batches with which it fits; None if it does with none."""
    train = spec["train"]
    sizes = {
        "test_batch_size": train.get("test_batch_size") or TEST_BATCH_SIZE,
        "micro_batch_size": train["micro_batch_size"] or train["batch_size"],
    }
    while (now := estimate(_changed(spec, changes))).total > available:
        name = "test_batch_size" if now.test > now.step else "micro_batch_size"
        if sizes[name] == 1:
            return None
        sizes[name] //= 2
        changes = changes | {("train", name): sizes[name]}
    return changes


def _changed(spec: dict, changes: Changes) -> dict:
    """The spec with other values at (part, name)."""
    spec = copy.deepcopy(spec)
    for (part, name), value in changes.items():
        (spec["method"]["config"] if part == "method" else spec[part])[name] = value
    return spec
