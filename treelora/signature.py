"""Task signatures: one vector per adapted matrix (paper, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def adapted_parameters(model: nn.Module, factors: str = "AB") -> list[list[nn.Parameter]]:
    """The trainable LoRA factors of each adapted matrix, matrices in module order.

    Recognises PEFT's naming (`<matrix>.lora_A.<adapter>.weight`); adapters of embeddings, which it
    names otherwise, are left out.

    Args:
        factors: "AB" for both, "A" for A alone.

    Returns:
        One list of parameters (A, then B) per adapted matrix.
    """
    matrices: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        matrix, found, factor = name.partition(".lora_")
        if found and parameter.requires_grad and factor[0] in factors:
            matrices.setdefault(matrix, []).append(parameter)
    return list(matrices.values())


class Layout:
    """Lays the factors of L adapted matrices out as (L, D), D entries of the largest.

    Smaller matrices are padded with zeros, so that whole stacks are compared at once.

    Args:
        matrices: the LoRA factors of each adapted matrix, in module order.
        depth: how many matrices count, from the first; None takes all.

    Raises:
        ValueError: there are no adapted matrices, or fewer than `depth`.
    """

    def __init__(self, matrices: list[list[nn.Parameter]], depth: int | None = None):
        if not matrices:
            raise ValueError(
                "TreeLoRA needs trainable LoRA adapters, but the model has none: add them by PEFT"
            )
        if depth is not None and not 1 <= depth <= len(matrices):
            raise ValueError(
                f"TreeLoRA's depth must lie between 1 and the number of adapted matrices, "
                f"{len(matrices)}, but is {depth}: lower it or adapt more matrices"
            )
        self.parameters = [p for matrix in matrices[:depth] for p in matrix]
        lengths = [sum(p.numel() for p in matrix) for matrix in matrices[:depth]]
        self.lengths = torch.tensor(lengths)  # (L,)
        self.shape = (len(lengths), max(lengths))
        self.uniform = len(set(lengths)) == 1
        self._slots = (
            (torch.arange(self.shape[1]) < self.lengths[:, None]).flatten().nonzero()[:, 0]
        )

    def read(self) -> Tensor:
        """The current adapter, differentiable, (L, D)."""
        return self.stack(self.parameters)

    def stack(self, tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
        """One tensor per parameter, as (L, D)."""
        return self.pad(torch.cat([t.reshape(-1) for t in tensors]))

    def pad(self, flat: Tensor) -> Tensor:
        """All entries in a row, (..., P), as (..., L, D)."""
        if not self.uniform:
            self._slots = self._slots.to(flat.device)  # copied once
            empty = flat.new_zeros(*flat.shape[:-1], self.shape[0] * self.shape[1])
            flat = empty.index_copy(-1, self._slots, flat)
        return flat.unflatten(-1, self.shape)

    def flat(self, padded: Tensor) -> Tensor:
        """The inverse of `pad`: (..., L, D) as (..., P)."""
        return padded.flatten(-2)[..., self._slots.to(padded.device)]
