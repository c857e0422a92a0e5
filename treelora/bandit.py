"""Bandit search on the tree: which earlier task resembles the current one (section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from treelora.tree import Node


class TreeSearch:
    """Lower confidence bounds on a tree of arms, one search per adapted matrix.

    Arms are finished tasks, a pull observes the distance between the current signature and the
    arm's. With mean mu, pulls n and step t, equation 2 gives

        leaf:        LCB = mu - 2 sqrt(log t / n)
        inner node:  LCB = max(mu - 2 sqrt(log t / n) - delta, smallest LCB among its children)

    where an inner node's mu and n pool the arms below it and delta is its threshold. The search
    goes from the root to the child with the smallest bound. The bounds presume residuals in
    [0, 1], so residuals and thresholds are divided by the largest residual seen so far in the same
    matrix (the paper is silent on their scale).

    Args:
        root: the tree over the finished tasks.
        n_levels: number of adapted matrices, L; each keeps its own statistics.
    """

    def __init__(self, root: Node, n_levels: int):
        nodes = list(root.walk())
        index = {id(node): i for i, node in enumerate(nodes)}
        self._children = [[index[id(child)] for child in node.children] for node in nodes]
        self._task = torch.tensor([node.tasks[0] for node in nodes])
        self._threshold = torch.tensor([node.threshold for node in nodes], dtype=torch.float64)
        self._below = torch.zeros(len(nodes), len(root.tasks), dtype=torch.float64)  # (nodes, N)
        for i, node in enumerate(nodes):
            self._below[i, list(node.tasks)] = 1
        self.residual_sum = torch.zeros(len(root.tasks), n_levels, dtype=torch.float64)  # (N, L)
        self.pulls = torch.zeros(len(root.tasks), n_levels, dtype=torch.float64)  # (N, L)
        self._scale = torch.zeros(n_levels, dtype=torch.float64)
        self._step = 0

    def bounds(self) -> Tensor:
        """The lower confidence bound of every node and matrix, (nodes, L), nodes as in `walk`."""
        pulls = self._below @ self.pulls
        scale = self._scale.clamp_min(torch.finfo(torch.float64).tiny)
        mean = self._below @ self.residual_sum / pulls / scale
        log_t = torch.tensor(float(max(self._step, 1)), dtype=torch.float64).log()
        bound = mean - 2 * (log_t / pulls).sqrt() - self._threshold[:, None] / scale
        bound[pulls == 0] = -torch.inf  # an arm never pulled comes first
        for i in reversed(range(len(bound))):  # children stand behind their parents
            if self._children[i]:
                bound[i] = torch.maximum(bound[i], bound[self._children[i]].amin(dim=0))
        return bound

    def choose(self) -> Tensor:
        """One finished task per adapted matrix, (L,) int64; ties go to the first child."""
        self._step += 1
        bound = self.bounds()
        chosen = []
        for level in bound.T.tolist():
            node = 0
            while self._children[node]:
                node = min(self._children[node], key=level.__getitem__)
            chosen.append(node)
        return self._task[chosen]

    def observe(self, chosen: Tensor, residual: Tensor) -> None:
        """Record the residual of each chosen arm, both (L,)."""
        levels = torch.arange(len(chosen))
        residual = residual.double()
        self.residual_sum[chosen, levels] += residual
        self.pulls[chosen, levels] += 1
        self._scale = torch.maximum(self._scale, residual)
