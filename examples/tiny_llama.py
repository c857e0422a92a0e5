"""What the language examples share: a tiny Llama with random weights, and token tasks."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

N_TOKENS = 32


def model() -> LlamaForCausalLM:
    """The same random weights at every call; nothing is downloaded."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=N_TOKENS,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config)


def task(index: int, n: int = 64, length: int = 12) -> list[dict]:
    """Sequences that count upwards in steps of index + 1."""
    start = torch.arange(n)[:, None]
    ids = (start + (index + 1) * torch.arange(length)) % N_TOKENS
    return [{"input_ids": row, "labels": row} for row in ids]
