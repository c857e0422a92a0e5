"""Prefix tuning without prefixes, and where it is refused; tests.references writes it out."""

import pytest
import torch
from torch import nn

from baselines.common.prefix import encode_with_prefixes
from tests import tiny


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_empty_and_absent_prefixes_are_the_backbone_itself(dtype):
    backbone = tiny.network("vision").to(dtype)
    x, _ = tiny.samples("vision", 1).batch(torch.arange(12))
    tokens = backbone.embed(x.to(dtype))
    plain = backbone.encode(tokens)
    empty = tokens[:, :0]
    assert torch.equal(encode_with_prefixes(backbone, tokens, {}), plain)
    assert torch.equal(encode_with_prefixes(backbone, tokens, {0: (empty, empty)}), plain)


@pytest.mark.parametrize("part", ["q_norm", "k_norm", "norm", "gate"])
def test_other_attention_is_refused(part):
    backbone = tiny.network("vision")
    setattr(backbone.network.blocks[1].attn, part, nn.LayerNorm(24))
    empty = torch.zeros(1, 0, 24)
    with pytest.raises(ValueError, match="block 1 .* choose another backbone"):
        encode_with_prefixes(backbone, torch.zeros(1, 5, 24), {1: (empty, empty)})
