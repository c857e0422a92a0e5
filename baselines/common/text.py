"""Batches of text as tensors: padded on the left, so that all answers end at the last token."""

from __future__ import annotations

import torch
from torch import Tensor


def pad_left(encoded: list[tuple[list[int], int]]) -> tuple[Tensor, Tensor]:
    """Token ids with the length of their answers -> x (n, 2, L) and y (n, L) as `task` has them."""
    length = max(len(ids) for ids, _ in encoded)
    x = torch.zeros(len(encoded), 2, length, dtype=torch.long)
    y = torch.full((len(encoded), length), -100)
    for i, (ids, n_answer) in enumerate(encoded):
        start, boundary = length - len(ids), length - n_answer
        x[i, 0, start:] = torch.tensor(ids)
        x[i, 1, start:boundary] = 1
        x[i, 1, boundary:] = 2
        y[i, boundary:] = x[i, 0, boundary:]
    return x, y


def trim_left(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """x (n, 2, L) and y (n, L) without the padding that all rows share."""
    start = int((x[:, 1] > 0).any(dim=0).nonzero()[0])
    return x[:, :, start:], y[:, start:]
