"""Prefix tuning against attention written out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from baselines.prefix import encode_with_prefixes
from tests import tiny


def softmax(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def attention_by_hand(attention, x, keys, values):
    """x (n, width), keys and values (length, width) -> (n, width), one head and query at a time."""
    maps = {}
    for name in ("q_proj", "k_proj", "v_proj"):
        part = getattr(attention.qkv, name)
        maps[name] = x @ part.weight.detach().numpy().T + part.bias.detach().numpy()
    keys = np.concatenate([keys, maps["k_proj"]])
    values = np.concatenate([values, maps["v_proj"]])
    size = x.shape[1] // attention.num_heads
    out = np.zeros_like(x)
    for head in range(attention.num_heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(x)):
            weights = softmax(keys[:, part] @ maps["q_proj"][i, part] / np.sqrt(size))
            out[i, part] = weights @ values[:, part]
    return out @ attention.proj.weight.detach().numpy().T + attention.proj.bias.detach().numpy()


@torch.no_grad()
def encode_by_hand(backbone, tokens, prefixes):
    """tokens (n, width) of one sample; prefixes: block -> (keys, values), (length, width) each."""
    empty = np.zeros((0, tokens.shape[1]))
    for i, block in enumerate(backbone.network.blocks):
        keys, values = prefixes.get(i, (empty, empty))
        x = block.norm1(tokens).numpy()
        tokens = tokens + torch.from_numpy(attention_by_hand(block.attn, x, keys, values))
        tokens = tokens + block.mlp(block.norm2(tokens))
    return backbone.network.norm(tokens)


@pytest.fixture(scope="module")
def backbone():
    return tiny.network("vision").double()


@pytest.fixture(scope="module")
def tokens(backbone):
    x, _ = tiny.samples("vision", 0, n=3).batch(torch.arange(3))
    with torch.no_grad():
        return backbone.embed(x.double())


def test_prefixes_equal_attention_with_concatenated_keys_and_values(backbone, tokens):
    prefixes = {i: torch.randn(2, 3, 4 + i, 24, dtype=torch.double).unbind() for i in range(2)}
    for blocks in ((0,), (1,), (0, 1)):
        used = {i: prefixes[i] for i in blocks}
        encoded = encode_with_prefixes(backbone, tokens, used)
        for b in range(3):
            own = {i: (keys[b].numpy(), values[b].numpy()) for i, (keys, values) in used.items()}
            torch.testing.assert_close(
                encoded[b].detach(), encode_by_hand(backbone, tokens[b], own), atol=1e-9, rtol=1e-9
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_empty_and_absent_prefixes_are_the_backbone_itself(dtype):
    backbone = tiny.network("vision").to(dtype)
    x, _ = tiny.samples("vision", 1).batch(torch.arange(12))
    tokens = backbone.embed(x.to(dtype))
    plain = backbone.encode(tokens)
    empty = tokens[:, :0]
    assert torch.equal(encode_with_prefixes(backbone, tokens, {}), plain)
    assert torch.equal(encode_with_prefixes(backbone, tokens, {0: (empty, empty)}), plain)


def test_the_gradient_reaches_keys_and_values(backbone, tokens):
    keys, values = torch.randn(2, 3, 2, 24, dtype=torch.double).unbind()
    for i in (0, 1):
        assert torch.autograd.gradcheck(
            lambda keys, values, i=i: encode_with_prefixes(backbone, tokens, {i: (keys, values)})[
                :, 0, :3
            ],
            (keys.requires_grad_(), values.requires_grad_()),
        )


@pytest.mark.parametrize("part", ["q_norm", "k_norm", "norm", "gate"])
def test_other_attention_is_refused(part):
    backbone = tiny.network("vision")
    setattr(backbone.network.blocks[1].attn, part, nn.LayerNorm(24))
    empty = torch.zeros(1, 0, 24)
    with pytest.raises(ValueError, match="block 1 .* choose another backbone"):
        encode_with_prefixes(backbone, torch.zeros(1, 5, 24), {1: (empty, empty)})
