"""Prefix tuning of a vision transformer: extra keys and values in the attention of some blocks.

Li & Liang, "Prefix-Tuning" (ACL 2021), as DualPrompt (ECCV 2022, equation 6) uses it: a block's
attention becomes Attention(Q, [P_K; K], [P_V; V]), so that the number of tokens stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn


def encode_with_prefixes(
    backbone: nn.Module, tokens: Tensor, prefixes: Mapping[int, tuple[Tensor, Tensor]]
) -> Tensor:
    """Tokens (B, n, width) through all blocks and the final norm, as `VisionModel.encode`.

    Args:
        backbone: a `benchmarks.backbones.vision.VisionModel`.
        tokens: (B, n, width), with positions.
        prefixes: index of a block -> its (keys, values), each (B, length, width): already keys and
            values, neither projected nor given a position, heads side by side along the width.

    Returns:
        (B, n, width).

    Raises:
        ValueError: a prefixed block is not timm's plain one.
    """
    for i, block in enumerate(backbone.network.blocks):
        if i in prefixes:
            _check(block, i)
            attended = _attend(block.attn, block.norm1(tokens), *prefixes[i])
            tokens = tokens + block.drop_path1(block.ls1(attended))
            tokens = tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
        else:
            tokens = block(tokens)
    return backbone.network.norm(tokens)


def _attend(attention: Attention, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """timm's `Attention.forward` with keys and values (B, length, width) put in front."""
    n_heads = attention.num_heads
    q, k, v = (part.unflatten(2, (n_heads, -1)) for part in attention.qkv(x).chunk(3, dim=2))
    k = torch.cat([keys.to(k.dtype).unflatten(2, (n_heads, -1)), k], dim=1)
    v = torch.cat([values.to(v.dtype).unflatten(2, (n_heads, -1)), v], dim=1)
    attended = F.scaled_dot_product_attention(
        *(part.transpose(1, 2) for part in (q, k, v)),
        dropout_p=attention.attn_drop.p if attention.training else 0.0,
    )
    return attention.proj_drop(attention.proj(attended.transpose(1, 2).flatten(2)))


def _check(block: nn.Module, index: int) -> None:
    """Refuse what `encode_with_prefixes` would leave out."""
    plain = type(block) is Block and type(block.attn) is Attention
    if plain:
        attention = block.attn
        norms = (attention.q_norm, attention.k_norm, attention.norm)
        plain = attention.gate is None and all(isinstance(norm, nn.Identity) for norm in norms)
    if not plain:
        raise ValueError(
            "prefixes need timm's Block and Attention without norms of queries, keys or output and "
            f"without a gate, but block {index} is {type(block).__name__} with "
            f"{type(getattr(block, 'attn', None)).__name__} that has other parts: "
            "choose another backbone"
        )
