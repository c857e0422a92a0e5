"""The similarity penalty of equation 3, with the tree and the search that choose its target."""

from __future__ import annotations

import torch
from torch import Tensor

from treelora.bandit import TreeSearch
from treelora.signature import Signature
from treelora.tree import Node, build_tree

SCALES = ("loss", "mean")


class TreeRegulariser:
    """Pulls the current adapter towards that of the most similar finished task.

    Use it in any training loop: `start_task()`, then `loss + penalty(loss)` at every step, and
    `end_task()` when the task is learnt. The penalty is

        l_reg = strength * ||g - g_k||_1        (equation 3)

    with g the current signature and, in each adapted matrix, k the task the search chose.

    Args:
        signature: reads the current adapter.
        strength: lambda of equation 3 (0.1 on vision and 0.5 on language in the paper).
        scale: the paper does not say how the norm is scaled. `loss` rescales it to the size of the
            loss, as the released code does; `mean` averages it over the entries of each matrix and
            sums over matrices, so that its gradient depends on neither rank, width nor loss. With
            `mean` the paper's lambda of 0.1 does next to nothing beside the loss.
    """

    def __init__(self, signature: Signature, strength: float = 0.1, scale: str = "loss"):
        if scale not in SCALES:
            raise ValueError(f"the penalty's scale must be one of {', '.join(SCALES)}, not {scale}")
        self.signature = signature
        self.strength = strength
        self.scale = scale
        self.finished = torch.empty(0, int(signature.lengths.sum()))  # (N, P)
        self.tree: Node | None = None
        self._search: TreeSearch | None = None

    def start_task(self) -> None:
        """Forget the statistics of the previous task's search."""
        self._search = TreeSearch(self.tree, self.signature.n_levels) if self.tree else None
        self._parts = self.finished.split(self.signature.lengths.tolist(), dim=1)  # L of (N, P_l)
        self._lengths = self.signature.lengths.to(self.finished.device)

    def penalty(self, loss: Tensor) -> Tensor | float:
        """The penalty of this step; one search, one observation. 0 while there is no other task."""
        if self._search is None:
            return 0.0
        current = self.signature.read()
        chosen = self._search.choose()
        target = torch.cat([p[k] for p, k in zip(self._parts, chosen.tolist(), strict=True)])
        gap = (current - target).abs()
        distance = torch.segment_reduce(gap, "mean", lengths=self._lengths)  # (L,)
        self._search.observe(chosen, distance.detach().cpu())
        total = distance.sum()
        if self.scale == "loss":
            total = total / (total.detach() + 1e-5) * loss.detach()
        return self.strength * total

    def end_task(self) -> None:
        """Store the finished task's signature and rebuild the tree over all of them."""
        current = self.signature.read().detach()
        self.finished = torch.cat([self.finished.to(current), current[None]])
        self._grow()

    def _grow(self) -> None:
        self.tree = build_tree(self.finished.cpu(), self.signature.lengths)

    def pulls(self) -> list[list[int]]:
        """How often the search of the current task chose each finished task, [task][matrix]."""
        return self._search.pulls.long().tolist() if self._search else []

    def state_dict(self) -> dict:
        return {"finished": self.finished}

    def load_state_dict(self, state: dict) -> None:
        self.finished = state["finished"]
        if len(self.finished):
            self._grow()
