"""Random crops and flips of a training batch, one draw per sample, on the batch's device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SCALE = (0.05, 1.0)  # of a crop's area to the image's
RATIO = (3 / 4, 4 / 3)  # of a crop's width to its height
TRIES = 10  # crops drawn before the whole image is taken, as far as its own ratio allows


class CropFlip:
    """RandomResizedCrop and a horizontal flip, the usual augmentation of prompt-based methods.

    Crops are drawn as torchvision draws them (area and ratio of `SCALE` and `RATIO`) and resized to
    `size` with bilinear weights and antialiasing, as PIL's images are. Resizing is separable, so a
    whole batch of different crops is two products with matrices of weights.

    Args:
        size: height and width of the result, pixels.
        generator: on the CPU, so that the crops of a seed are the same on every device.
    """

    def __init__(self, size: tuple[int, int], generator: torch.Generator):
        self.size = size
        self.generator = generator

    def __call__(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> (B, C, *size)."""
        boxes, flipped = self.draw(len(x), *x.shape[-2:])
        top, left, height, width = boxes.to(x).unbind(dim=1)
        rows = _weights(top, height, x.shape[-2], self.size[0])
        columns = _weights(left, width, x.shape[-1], self.size[1])
        columns = torch.where(flipped.to(x.device)[:, None, None], columns.flip(1), columns)
        return torch.einsum("bih,bchw,bjw->bcij", rows, x, columns)

    def draw(self, n: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Crops (n, 4) as top, left, height, width in pixels, and which are flipped (n,)."""

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(n, *shape, generator=self.generator)

        area = uniform(*SCALE, TRIES) * (height * width)
        ratio = uniform(*map(math.log, RATIO), TRIES).exp()
        tried = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], dim=2).round().long()
        limits = torch.tensor([height, width])
        fits = ((tried >= 1) & (tried <= limits)).all(dim=2)
        best = tried[torch.arange(n), fits.long().argmax(dim=1)]  # the first that fits
        whole = torch.tensor([round(width / RATIO[0]), round(height * RATIO[1])]).minimum(limits)
        sizes = torch.where(fits.any(dim=1)[:, None], best, whole)
        room = limits - sizes
        corners = (uniform(0, 1, 2) * (room + 1)).long().minimum(room)
        corners = torch.where(fits.any(dim=1)[:, None], corners, room // 2)
        return torch.cat([corners, sizes], dim=1), uniform(0, 1) < 0.5


def _weights(start: Tensor, length: Tensor, n_in: int, n_out: int) -> Tensor:
    """Weights (B, n_out, n_in) that resize the pixels start .. start + length (both (B,)) to n_out.

    The triangle filter of bilinear interpolation, widened by the scale where pixels are merged.
    """
    scale = (length / n_out)[:, None, None]
    out = torch.arange(n_out, device=start.device)[None, :, None] + 0.5
    centre = start[:, None, None] + out * scale
    pixel = torch.arange(n_in, device=start.device)[None, None, :] + 0.5
    inside = (pixel > start[:, None, None]) & (pixel < (start + length)[:, None, None])
    weights = (1 - (pixel - centre).abs() / scale.clamp_min(1)).clamp_min(0) * inside
    return weights / weights.sum(dim=2, keepdim=True)
