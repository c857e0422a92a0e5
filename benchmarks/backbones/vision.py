"""Vision transformers of timm as methods see them: embed, encode, classify."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from baselines.common.base import start_head

Channels = float | tuple[float, float, float]
Factors = Mapping[str, tuple[Tensor, Tensor]]
PROJECTIONS = ("q_proj", "k_proj", "v_proj")


class _SplitQKV(nn.Module):
    """timm's fused attention input as three linear maps, so that LoRA can adapt each alone."""

    def __init__(self, fused: nn.Linear):
        super().__init__()
        width = fused.in_features
        for i, name in enumerate(PROJECTIONS):
            part = nn.Linear(width, width, fused.bias is not None, fused.weight.device)
            rows = slice(i * width, (i + 1) * width)
            part.weight.data = fused.weight.data[rows].clone()
            if fused.bias is not None:
                part.bias.data = fused.bias.data[rows].clone()
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], dim=-1)


def joined_qkv(factors: Factors) -> Factors:
    """Factors A (r, in) and B (out, r) of `_SplitQKV`'s parts as those of timm's fused maps."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, (A, B) in factors.items():
        whole, _, part = name.rpartition(".")
        if whole.endswith(".qkv"):
            above = PROJECTIONS.index(part) * len(B)
            B = F.pad(B, (0, 0, above, 2 * len(B) - above))
            name, (others_A, others_B) = whole, found.get(whole, (A[:0], B[:, :0]))
            if torch.equal(A, others_A):
                B = B + others_B
            else:
                A, B = torch.cat([others_A, A]), torch.cat([others_B, B], dim=1)
        found[name] = A, B
    return found


class VisionModel(nn.Module):
    """A timm vision transformer with a linear classifier on the class token.

    Inputs (B, 3, H, W) in [0, 1] of any size are resized (bicubic) and normalised inside.
    """

    derived: tuple[str, ...] = ()

    def __init__(self, network: nn.Module, n_classes: int, mean: Channels, std: Channels):
        super().__init__()
        self.network = network
        self.width = network.embed_dim
        self.image_size = network.patch_embed.img_size
        for name, value in (("_mean", mean), ("_std", std)):
            if isinstance(value, tuple):  # one for each channel
                value = torch.tensor(value)[:, None, None]
                self.register_buffer(name, value, persistent=False)
            else:
                setattr(self, name, value)
        self.head = start_head(nn.Linear(self.width, n_classes))

    def fitted(self, state: dict) -> dict:
        """A checkpoint with its position embedding resampled to this input size."""
        return checkpoint_filter_fn(state, self.network)

    def split_qkv(self) -> VisionModel:
        """Separate the query, key and value projections; the function does not change."""
        for block in self.network.blocks:
            block.attn.qkv = _SplitQKV(block.attn.qkv)
        return self

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> class token and patches with positions (B, 1 + patches, width)."""
        if x.shape[-2:] != torch.Size(self.image_size):
            x = F.interpolate(x, self.image_size, mode="bicubic", antialias=False).clamp(0, 1)
        network = self.network
        tokens = network.patch_embed((x - self._mean) / self._std)
        return network.norm_pre(network._pos_embed(tokens))

    def at_class_token(self, tokens: Tensor) -> Tensor:
        """Tokens (B, n, width) with the position embedding of the class token, if it has one."""
        network = self.network
        if not network.no_embed_class and network.pos_embed is not None:
            tokens = tokens + network.pos_embed[:, :1]
        return network.norm_pre(tokens)

    def encode(self, tokens: Tensor) -> Tensor:
        """Tokens (B, n, width) through all blocks and the final norm; the same shape."""
        return self.network.norm(self.network.blocks(tokens))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> logits (B, C)."""
        return self.head(self.encode(self.embed(x))[:, 0])


def build(
    architecture: dict, n_classes: int, image_size: int | None, mean: Channels, std: Channels
) -> VisionModel:
    """A network of timm with a new classifier, on the default device; see `Backbone.build`.

    Args:
        architecture: keyword arguments of timm's `create_model`.
        mean, std: of pixels, for all channels or for each.
    """
    own_size = {} if image_size is None else {"img_size": image_size}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element")
        network = timm.create_model(**(architecture | own_size), num_classes=0)
        return VisionModel(network, n_classes, mean, std)
