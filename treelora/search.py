"""Which earlier task resembles the current one: the bandit search and its alternatives.

Arms are finished tasks, and every adapted matrix searches for itself. A pull observes the L1
distance (the residual) between the current signature and the arm's, in that matrix. Statistics stay
on the device of the signatures, and no search ever waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from treelora.tree import Node


class Search:
    """What all searches share: the pulls of N arms in L matrices.

    Args:
        n_arms: number of arms, N.
        n_levels: number of adapted matrices, L.
        device: where the signatures are.

    Attributes:
        pulls: how often each arm was chosen, (N, L).
    """

    per_entry = True  # residuals are means over a matrix's entries, not sums

    def __init__(self, n_arms: int, n_levels: int, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.levels = torch.arange(n_levels, device=device)
        self.pulls = torch.zeros(n_arms, n_levels, dtype=torch.float64, device=device)

    def choose(self) -> Tensor:
        """One arm per adapted matrix, (L,) int64."""
        raise NotImplementedError

    def observe(self, chosen: Tensor, residual: Tensor) -> None:
        """Record the residual of each chosen arm, both (L,)."""
        self.pulls[chosen, self.levels] += 1


class TreeSearch(Search):
    """Lower confidence bounds on a tree, `lcb`: equation 2 and Algorithm 1.

    With mean residual mu, pulls n and step t,

        leaf:        LCB = mu - 2 sqrt(log t / n)
        inner node:  LCB = max(mu - 2 sqrt(log t / n) - delta, smallest LCB among its children)

    where an inner node's mu and n pool the arms below it and delta is its threshold. The search
    goes from the root to the child with the smallest bound; what was never pulled comes first, and
    the first of equals. The bounds presume residuals in [0, 1], so residuals and thresholds are
    divided by the largest residual seen so far in the same matrix (the paper is silent on their
    scale); with `entries` they are the norms of whole matrices and stay as they are. log t moves
    all bounds at every step: they are computed anew, which touches a number per node and matrix and
    no signature.

    `lcb_flat` is the same search on a tree whose root has all arms as children.

    Args:
        root: the tree over the arms; its thresholds are means over a matrix's entries.
        n_levels: number of adapted matrices, L.
        device: where the signatures are.
        entries: (L,) of each matrix, where residuals are sums over them and nothing is divided.
    """

    def __init__(
        self,
        root: Node,
        n_levels: int,
        device: torch.device | str = "cpu",
        entries: Tensor | None = None,
    ):
        super().__init__(len(root.tasks), n_levels, device)
        self.per_entry = entries is None
        ranks = [[root]]  # the nodes by depth
        while below := [child for node in ranks[-1] for child in node.children]:
            ranks.append(below)
        nodes = [node for rank in ranks for node in rank]
        nothing = len(nodes)  # one more row, for children and ancestors that are not there
        index = {id(node): i for i, node in enumerate(nodes)}
        paths = [[] for _ in root.tasks]
        for i, node in enumerate(nodes):
            for task in node.tasks:
                paths[task].append(i)
        self._path = _table(paths, nothing).to(device)  # (N, depth): an arm and its ancestors
        self._inner = []  # for each depth, the inner nodes and their children, (inner, children)
        for rank in reversed(ranks):
            inner = [node for node in rank if node.children]
            if inner:
                children = _table([[index[id(c)] for c in n.children] for n in inner], nothing)
                rows = torch.tensor([index[id(node)] for node in inner])
                self._inner.append((rows.to(device), children.to(device)))
        self._depth = len(ranks)

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=device)[:, None]

        self._arm = torch.tensor([node.tasks[0] for node in nodes], device=device)
        self._threshold = column([node.threshold for node in nodes] + [0.0])
        if entries is not None:
            self._threshold = self._threshold * entries
        shape = (nothing + 1, n_levels)
        self._leaf = torch.arange(nothing + 1, device=device)[:, None].repeat(1, n_levels)
        self._count = column([0.0]).repeat(shape)
        self._sum = column([0.0]).repeat(shape)
        self._mean = column([-math.inf] * nothing + [math.inf]).repeat(1, n_levels)
        self._width = column([0.0]).repeat(shape)  # 1 / sqrt(n)
        smallest = torch.finfo(torch.float64).tiny if self.per_entry else 1.0
        self._scale = column([smallest]).repeat(1, n_levels)[0]
        self.step = 0

    def bounds(self) -> tuple[Tensor, Tensor]:
        """The bound of every node and matrix, and the child it leads to, both (nodes, L).

        Nodes come by depth; the last row stands for none.
        """
        log_t = math.log(max(self.step, 1))
        bound = (self._mean - self._threshold) / self._scale
        bound.sub_(self._width, alpha=2 * math.sqrt(log_t))
        towards = self._leaf.clone()
        for rows, children in self._inner:
            smallest, place = bound[children].min(dim=1)  # (inner, L)
            bound[rows] = torch.maximum(bound[rows], smallest)
            towards[rows] = children.gather(1, place)
        return bound, towards

    def choose(self) -> Tensor:
        self.step += 1
        _, towards = self.bounds()
        node = torch.zeros_like(self.levels)
        for _ in range(self._depth - 1):
            node = towards[node, self.levels]
        return self._arm[node]

    def observe(self, chosen: Tensor, residual: Tensor) -> None:
        super().observe(chosen, residual)
        residual = residual.double()
        path = self._path[chosen], self.levels[:, None]  # (L, depth)
        self._sum.index_put_(path, residual[:, None], accumulate=True)
        self._count[path] += 1
        count = self._count[path]
        self._mean[path] = self._sum[path] / count
        self._mean[-1] = math.inf
        self._width[path] = count.rsqrt()
        if self.per_entry:
            self._scale = torch.maximum(self._scale, residual)


def _table(lists: list[list[int]], fill: int) -> Tensor:
    """Lists of unequal length as one tensor."""
    width = max(map(len, lists), default=0)
    return torch.tensor([row + [fill] * (width - len(row)) for row in lists]).reshape(-1, width)


def flat(n_arms: int) -> Node:
    """The tree that `lcb_flat` searches: all arms are children of the root."""
    arms = tuple(range(n_arms))
    return Node(arms, 0.0, tuple(Node((arm,)) for arm in arms) if n_arms > 1 else ())


def draw(probability: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One index per row of (..., N) by its probabilities, (...,)."""
    # torch.multinomial draws in the same way, but waits for the device to check its input
    noise = torch.empty_like(probability).exponential_(generator=generator)
    return (probability / noise).argmax(dim=-1)


class SoftmaxSearch(Search):
    """Draws from a softmax over distances: `softmax`, what the authors' code does.

    With mean residual d (a sum over the entries; 0 before the first pull), pulls n, step t from 0
    and T steps in an epoch, the score of an arm in a matrix is

        s = d + sqrt(log(2 T (t+1)(t+2)) / (2 n + 1e-5))     distance_sign `far`
        s = the same with -d                                 distance_sign `near`

    plus the smallest score of all. With `branch_weight` an arm is drawn from the softmax of the
    scores' sums over matrices, and the scores of all arms in its branch of the root are multiplied
    by the branch's threshold, at most 1.5, or by 1 if the branch is a leaf; deeper nodes are never
    looked at. Scores are divided by their range, and in each matrix an arm is drawn from their
    softmax.

    Args:
        root: the tree over the arms.
        n_levels: number of adapted matrices, L.
        steps: number of steps in an epoch, T.
        far: prefer tasks far away.
        branch_weight: weight the branch that is drawn first.
        draw: draws one index per row from probabilities (..., N).
        device: where the signatures are.
    """

    per_entry = False

    def __init__(
        self,
        root: Node,
        n_levels: int,
        steps: int,
        far: bool = False,
        branch_weight: bool = False,
        draw: Callable[[Tensor], Tensor] = draw,
        device: torch.device | str = "cpu",
    ):
        super().__init__(len(root.tasks), n_levels, device)
        # in single precision, as unpulled arms have scores so large that its rounding is seen
        self._residual_sum = torch.zeros_like(self.pulls, dtype=torch.float32)
        self._horizon = steps
        self._sign = 1.0 if far else -1.0
        self._draw = draw
        self._branches = None
        if branch_weight and root.children:
            side = torch.ones(len(root.tasks), dtype=torch.long)
            side[list(root.children[0].tasks)] = 0
            # a tree of one level has no thresholds below its root
            split = [bool(c.children) and n_levels > 1 for c in root.children[:2]]
            weights = [
                min(c.threshold, 1.5) if inner else 1.0
                for c, inner in zip(root.children, split, strict=False)
            ]
            self._branches = side.to(device), torch.tensor(weights, device=device)
        self.step = 0

    def choose(self) -> Tensor:
        t, self.step = self.step, self.step + 1
        pulls = self.pulls.float()
        mean = self._residual_sum / pulls.clamp_min(1)
        bonus = math.sqrt(math.log(2 * self._horizon * (t + 1) * (t + 2)))
        score = self._sign * mean + bonus / (2 * pulls + 1e-5).sqrt()  # (N, L)
        score = score + score.min()
        if self._branches:
            side, weights = self._branches
            # `take`, as an index without dimensions would be waited for
            branch = side.take(self._draw(score.sum(dim=1).softmax(dim=0)))
            score = torch.where((side == branch)[:, None], score * weights.take(branch), score)
        score = score / (score.max() - score.min() + 1e-5)
        return self._draw(score.T.softmax(dim=1))

    def observe(self, chosen: Tensor, residual: Tensor) -> None:
        super().observe(chosen, residual)
        self._residual_sum[chosen, self.levels] += residual


class RandomSearch(Search):
    """Any finished task with the same probability, `random`: the ablation of Table 5."""

    def __init__(
        self,
        n_arms: int,
        n_levels: int,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
    ):
        super().__init__(n_arms, n_levels, device)
        self._generator = generator

    def choose(self) -> Tensor:
        n_arms, n_levels = self.pulls.shape
        return torch.randint(n_arms, (n_levels,), device=self.device, generator=self._generator)
