"""Whether a run of a language model fits: an estimate before any weights are loaded.

    weights             as many bytes each as their precision has
    trained parameters  16 bytes each: value, gradient and Adam's two moments, in float32
    activations         of a micro-batch: about 8 hidden and 4 intermediate vectors a token and
                        block, with checkpointing one a token and block and all of one block
    logits              of the answers, in working precision, in float32, and their gradient
    generation          keys and values of all tokens of a test batch, while nothing is trained

Of activations with logits, and generation, the larger counts. It leaves out what a method keeps of
earlier tasks and what the allocator wastes.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from benchmarks import backbones
from benchmarks.config import TEST_BATCH_SIZE
from benchmarks.files import DataError

GIB = 2**30
ANSWER_TOKENS = 512  # assumed of an answer that no option limits


def needed_bytes(spec: dict) -> int:
    """The estimate for a run's spec, on the real shapes of its network."""
    backbone, train, stream = spec["backbone"], spec["train"], spec["stream"]
    network = backbones.build_language(backbones.find(backbone["name"])).network
    config, method = network.config, spec["method"]["config"]
    weight_bytes = 2 if backbone.get("weights") else 4
    working_bytes = 2 if backbone.get("weights") or train["precision"] == "bfloat16" else 4
    everything = sum(p.numel() for p in network.parameters())
    trained = everything if method.get("trained") == "all" else _adapter(network, method)
    samples = train["micro_batch_size"] or train["batch_size"]
    answer = stream.get("max_answer_tokens") or ANSWER_TOKENS
    tokens = samples * (stream["max_prompt_tokens"] + answer)
    block = tokens * (8 * config.hidden_size + 4 * config.intermediate_size) * working_bytes
    kept = tokens * config.hidden_size * working_bytes if train.get("checkpointing") else block
    logits = samples * answer * config.vocab_size * (working_bytes + 8)
    activations = config.num_hidden_layers * kept + block + logits
    heads = config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    heads = config.num_key_value_heads * getattr(config, "head_dim", 0) or heads
    new = stream.get("max_new_tokens") or answer
    tested = (train.get("test_batch_size") or TEST_BATCH_SIZE) * (stream["max_prompt_tokens"] + new)
    generation = tested * 2 * config.num_hidden_layers * heads * working_bytes
    return everything * weight_bytes + 16 * trained + max(activations, generation)


def _adapter(network, config: dict) -> int:
    """Parameters of LoRA on the query and value projections."""
    rank = config.get("rank", 8)
    return sum(
        rank * (module.in_features + module.out_features)
        for name, module in network.named_modules()
        if name.endswith(("q_proj", "v_proj"))
    )


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
    train = spec["train"]
    remedies = [
        "weights: bfloat16" if not spec["backbone"].get("weights") else None,
        "checkpointing: true" if not train.get("checkpointing") else None,
        "micro_batch_size: 1" if (train["micro_batch_size"] or train["batch_size"]) > 1 else None,
        "trained: adapter" if spec["method"]["config"].get("trained") == "all" else None,
        "a smaller test_batch_size or max_prompt_tokens",
    ]
    raise DataError(
        f"{spec['backbone']['name']} does not fit on this {device}, {facts}: "
        f"set {', '.join(r for r in remedies if r)}, or take a smaller model or a larger device"
    )
