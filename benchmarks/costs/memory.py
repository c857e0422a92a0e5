"""Whether a run of a language model fits: an estimate before any weights are loaded.

    weights             as many bytes each as their precision has
    trained parameters  16 bytes each: value, gradient and Adam's two moments, in float32
    method              what it keeps of earlier tasks (`Method.needs`)
    activations         of a micro-batch, or of what a method passes at a time: about 8 hidden and 4
                        intermediate vectors a token and block, with checkpointing one a token and
                        block and all of one block
    logits              of the answers, in working precision, in float32, and their gradient
    micro-batches       a second gradient of the trained parameters
    method              what it makes in a step or at a task's end
    optimiser           one more number for each of them in a step
    generation          keys and values of all tokens of a test batch, or those of its prompts and
                        the inside of one block

The largest counts of activations, logits, micro-batches and method together, of the optimiser and
of generation. It leaves out what the allocator wastes.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

import baselines
from baselines.common.base import Needs
from benchmarks import backbones
from benchmarks.common.devices import TEST_BATCH_SIZE
from benchmarks.common.errors import DataError

GIB = 2**30
ANSWER_TOKENS = 512  # assumed of an answer that no option limits


def needed_bytes(spec: dict) -> int:
    """The estimate for a run's spec, on the real shapes of its network."""
    backbone, train, stream = spec["backbone"], spec["train"], spec["stream"]
    model = backbones.find(backbone["name"]).build(device="meta")
    config = model.network.config
    weight_bytes = 2 if backbone.get("weights") else 4
    working_bytes = 2 if backbone.get("weights") or train["precision"] == "bfloat16" else 4
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
    everything = sum(p.numel() for p in model.network.parameters())
    frozen = 0 if needs.trained == everything else everything
    own = frozen * weight_bytes + 16 * needs.trained + needs.kept_bytes
    hidden, inside, n_blocks = (
        config.hidden_size,
        config.intermediate_size,
        config.num_hidden_layers,
    )

    tokens = needs.samples * (needs.prompt_tokens + needs.answer_tokens)
    block = tokens * (8 * hidden + 4 * inside) * working_bytes
    kept = tokens * hidden * working_bytes if train.get("checkpointing") else block
    logits = needs.samples * needs.answer_tokens * config.vocab_size * (working_bytes + 8)
    step = n_blocks * kept + block + logits + needs.made_bytes
    if train["micro_batch_size"]:
        step += 4 * needs.trained

    heads = config.num_key_value_heads * hidden // config.num_attention_heads
    heads = config.num_key_value_heads * (getattr(config, "head_dim", 0) or 0) or heads
    tested = train.get("test_batch_size") or TEST_BATCH_SIZE
    prompts = tested * needs.prompt_tokens
    new = tested * (stream.get("max_new_tokens") or needs.answer_tokens)
    cache = 2 * n_blocks * heads * working_bytes  # of a token
    one_block = prompts * (4 * hidden + 3 * inside) * working_bytes
    generation = cache * prompts + max(cache * new, one_block)
    return own + max(step, 4 * needs.trained, generation)


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
        DataError: it does not fit; the sentence says what would lower it.
    """
    needed, available = needed_bytes(spec), available_bytes(device)
    facts = f"about {needed / GIB:.1f} GiB are needed and {available / GIB:.1f} GiB are free"
    if needed <= available:
        return facts
    train, config = spec["train"], spec["method"]["config"]
    remedies = [
        "weights: bfloat16" if not spec["backbone"].get("weights") else None,
        "checkpointing: true" if not train.get("checkpointing") else None,
        "micro_batch_size: 1" if (train["micro_batch_size"] or train["batch_size"]) > 1 else None,
        "trained: adapter" if config.get("trained") == "all" else None,
        *(f"a smaller {name}" for name in ("directions", "memory_per_task") if name in config),
        "a smaller test_batch_size or max_prompt_tokens",
    ]
    raise DataError(
        f"{spec['backbone']['name']} does not fit on this {device}, {facts}: "
        f"set {', '.join(r for r in remedies if r)}, or take a smaller model or a larger device"
    )
