"""Task signatures: one vector per adapted matrix (paper, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def adapted_parameters(model: nn.Module) -> list[list[nn.Parameter]]:
    """The trainable LoRA factors of each adapted matrix, matrices in module order.

    Recognises PEFT's naming (`<matrix>.lora_A.<adapter>.weight`).

    Returns:
        One list of parameters (A, then B) per adapted matrix.
    """
    matrices: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        matrix, found, _ = name.partition(".lora_")
        if found and parameter.requires_grad:
            matrices.setdefault(matrix, []).append(parameter)
    return list(matrices.values())


class Signature:
    """Reads the `adapter` signature: the adapter's own entries stand in for the task's gradient.

    The adapter holds its initial values and the sum of all updates since, so its differences
    between tasks are the practical estimate of the expected gradient direction that section 3.3 of
    the paper uses. With one adapter continued through the stream these are differences of sums.

    Args:
        matrices: the LoRA factors of each adapted matrix, in module order.
        depth: how many matrices count, from the first; None takes all.

    Raises:
        ValueError: there are fewer adapted matrices than `depth`.
    """

    def __init__(self, matrices: list[list[nn.Parameter]], depth: int | None = None):
        if depth is not None and not 1 <= depth <= len(matrices):
            raise ValueError(
                f"TreeLoRA's depth must lie between 1 and the number of adapted matrices, "
                f"{len(matrices)}, but is {depth}: lower it or adapt more matrices"
            )
        self._matrices = matrices[:depth]
        self.lengths = torch.tensor([sum(p.numel() for p in m) for m in self._matrices])

    @property
    def n_levels(self) -> int:
        """Number of adapted matrices that count, L."""
        return len(self._matrices)

    def read(self) -> Tensor:
        """The current adapter as one differentiable vector (P,), matrix after matrix."""
        return torch.cat([p.flatten() for matrix in self._matrices for p in matrix])
