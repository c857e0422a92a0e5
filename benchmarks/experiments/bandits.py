"""Synthetic trees over the arms of a bandit, and the policies that search for the best arm.

An instance is a complete binary tree with N = 2^k leaves, the arms. Arm i has a mean residual, the
smaller the better. A tree is smooth if the leaves below any node of depth d differ by at most
delta * gamma^d. Structures, all of which span delta (`needle`: half of it):

    unique    smooth; one best leaf, and a leaf that parts from its path at depth d is worse by at
              least a fraction 1 - gamma of delta * gamma^d
    cluster   smooth; at every second depth both children are good: 2^floor(k/2) best leaves, spread
    shuffled  the leaves of `unique` in random order: the same arms, under a tree that says nothing
    needle    all leaves alike but one, which is better by delta / 2
    trap      the best leaf is in the worse half of the tree: the others there are worse than it by
              delta, the leaves of the other half by delta / 4

Policies: `tree` (equation 2), `lcb_flat` (its leaves only), `random`, `oracle` (knows the means),
`released` (the authors' code: softmax over distances, far arms preferred) and `released_near` (the
same with the sign turned round). All of them serve R independent runs side by side: `choose` gives
one arm per run, `observe` takes the residuals that they showed.

Departures from the text:
1. log t changes all bounds at every step. It is held, and renewed in all bounds when t has grown
   by the factor `growth`; in between, a pull changes the bounds on its path only, O(log N).
2. `released` weights the branch of its first draw by the median of that node's inner products.
   These arms have no vectors: the (lower) median of the means below the node stands in. It sees one
   matrix.
"""

from __future__ import annotations

import math

import numpy as np
from numpy import ndarray

STRUCTURES = ("unique", "cluster", "shuffled", "needle", "trap")
POLICIES = ("tree", "lcb_flat", "random", "oracle", "released", "released_near")
GROWTH = 1.05


def instance(structure: str, depth: int, gamma: float, delta: float, low: float, rng) -> ndarray:
    """The means of 2^depth leaves, (N,), the best one at `low`.

    A child at depth d + 1 adds w_d * b to its parent's value with b in [0, 1]: 0 for the good child
    of a good node, 1 for its sibling, else uniform. With w_d = delta * gamma^d * (1 - gamma) /
    (1 - gamma^depth) the leaves below depth d span at most sum_{j >= d} w_j <= delta * gamma^d.
    """
    if structure in ("needle", "trap"):
        means, best = np.full(2**depth, low + delta / 2), rng.integers(2**depth)
        if structure == "trap":
            halves = means.reshape(2, -1)
            halves[:] = low + delta / 4
            halves[int(best >= len(means) // 2)] = low + delta
        means[best] = low
        return means
    value, good = np.full(1, low), np.ones(1, bool)
    for d in range(depth):
        n = 2 ** (d + 1)
        side = np.repeat(rng.integers(2, size=n // 2), 2) == np.arange(n) % 2
        parent, both = np.repeat(good, 2), structure == "cluster" and d % 2 == 1
        good = parent & (side | both)
        step = np.where(good, 0, np.where(parent, 1, rng.random(n)))
        value = np.repeat(value, 2) + step * delta * gamma**d * (1 - gamma) / (1 - gamma**depth)
    return rng.permutation(value) if structure == "shuffled" else value


def roughness(means: ndarray, gamma: float, delta: float) -> float:
    """The largest spread of the leaves below an inner node, in units of delta * gamma^d.

    At most 1 in a smooth tree; the spread over all leaves, at depth 0, included.
    """
    depth = len(means).bit_length() - 1
    return max(
        float(np.ptp(means.reshape(2**d, -1), axis=1).max()) / (delta * gamma**d)
        for d in range(depth)
    )


class LowerBounds:
    """Equation 2 on complete trees over N = 2^k arms, R independent runs side by side.

        leaf:        B = mu - 2 sqrt(log t / n)
        inner node:  B = max(mu - 2 sqrt(log t / n) - threshold, smallest B of its children)

    mu and n of an inner node pool the pulls below it; B is minus infinity where n = 0. The search
    goes from the root to the child with the smaller B, the left one of equals. With infinite
    thresholds only the leaves' bounds count, and the tree is a tournament that finds the smallest
    of all N: the flat search. Nodes are numbered as in a heap: root 1, children 2i and 2i + 1.

    Args:
        thresholds: (k + 1, R) by depth, those of the leaves 0.
        growth: log t is renewed when t has grown by it; 1 renews at every step.
    """

    def __init__(self, thresholds: ndarray, growth: float = GROWTH):
        self.thresholds, self.growth = thresholds, growth
        self.depth, n_runs = len(thresholds) - 1, thresholds.shape[1]
        self.n_arms = 2**self.depth
        self.sums, self.pulls = np.zeros((2, n_runs, 2 * self.n_arms))
        self.bounds = np.full((n_runs, 2 * self.n_arms), -np.inf)
        self._first = 2 * self.n_arms * np.arange(n_runs)  # of each run in the flattened arrays
        self._up = np.arange(self.depth + 1)[:, None]
        self._due = 1.0

    def renew(self, t: int) -> None:
        """Every bound at time t."""
        self._log_t, self._due = math.log(t), max(t + 1, t * self.growth)
        below = None
        for d in reversed(range(self.depth + 1)):
            rank = slice(2**d, 2 ** (d + 1))
            sums, n = self.sums[:, rank], self.pulls[:, rank]
            with np.errstate(divide="ignore", invalid="ignore"):
                own = sums / n - 2 * np.sqrt(self._log_t / n) - self.thresholds[d][:, None]
            own[n == 0] = -np.inf
            if below is not None:
                np.maximum(own, np.minimum(below[:, ::2], below[:, 1::2]), out=own)
            self.bounds[:, rank] = below = own

    def choose(self, t: int, draws: ndarray) -> ndarray:
        """One arm per run, (R,)."""
        if t >= self._due:
            self.renew(t)
        B, node = self.bounds.ravel(), np.ones_like(self._first)
        for _ in range(self.depth):
            node = 2 * node
            left = self._first + node
            node += B.take(left + 1) < B.take(left)
        return node - self.n_arms

    def observe(self, arms: ndarray, residuals: ndarray) -> None:
        """Count the pulls, (R,) each, and renew the bounds on their paths."""
        path = self._first + ((arms + self.n_arms) >> self._up)  # (k + 1, R), from leaf to root
        sums, pulls, B = self.sums.ravel(), self.pulls.ravel(), self.bounds.ravel()
        sums[path] = s = sums.take(path) + residuals
        pulls[path] = n = pulls.take(path) + 1
        own = s / n - 2 * np.sqrt(self._log_t / n) - self.thresholds[::-1]
        siblings = B.take(path[:-1] ^ 1)
        for up in range(1, self.depth + 1):
            np.maximum(own[up], np.minimum(own[up - 1], siblings[up - 1]), out=own[up])
        B[path] = own


class Blind:
    """`random`, or `oracle` where `best` says which arm that is, (R,)."""

    def __init__(self, n_arms: int, best: ndarray | None = None):
        self.n_arms, self.best = n_arms, best

    def choose(self, t: int, draws: ndarray) -> ndarray:
        return (draws[0] * self.n_arms).astype(int) if self.best is None else self.best

    def observe(self, arms: ndarray, residuals: ndarray) -> None:
        pass


class Released:
    """The authors' search for one adapted matrix: two softmax draws, the first names a branch.

    With pulls n, mean distance m (0 if n = 0) and t from 0:
        s = sign * m + sqrt(log(2 T (t + 1)(t + 2))) / sqrt(2 n + 1e-5),  s <- s + min s
        first ~ softmax(s);  s *= min(weight, 1.5) for all arms in first's half of the tree
        s <- s / (max s - min s + 1e-5);  arm ~ softmax(s)

    Args:
        weights: (R, 2), of the root's two children.
        sign: +1 as released, which prefers far arms; -1 prefers near ones.
    """

    def __init__(self, weights: ndarray, n_arms: int, horizon: int, sign: int = 1):
        self.horizon, self.sign = horizon, sign
        self.sums, self.pulls = np.zeros((2, len(weights), n_arms))
        self.weights = np.minimum(weights, 1.5)
        self._runs = np.arange(len(weights))
        self._halves = np.arange(n_arms) >= n_arms // 2

    def choose(self, t: int, draws: ndarray) -> ndarray:
        bonus = math.sqrt(math.log(2 * self.horizon * t * (t + 1)))
        s = self.sign * self.sums / np.maximum(self.pulls, 1)
        s += bonus / np.sqrt(2 * self.pulls + 1e-5)
        s += s.min(axis=1, keepdims=True)
        half = self._draw(s, draws[0]) >= len(self._halves) // 2
        weight = self.weights[self._runs, half.astype(int)]
        s *= np.where(self._halves == half[:, None], weight[:, None], 1)
        s /= np.ptp(s, axis=1, keepdims=True) + 1e-5
        return self._draw(s, draws[1])

    @staticmethod
    def _draw(s: ndarray, uniform: ndarray) -> ndarray:
        """From softmax(s) by inversion, (R,)."""
        mass = np.exp(s - s.max(axis=1, keepdims=True)).cumsum(axis=1)
        return (mass[:, :-1] <= (uniform * mass[:, -1])[:, None]).sum(axis=1)

    def observe(self, arms: ndarray, residuals: ndarray) -> None:
        self.sums[self._runs, arms] += residuals
        self.pulls[self._runs, arms] += 1


def policy(name: str, means: ndarray, gammas: ndarray, delta: float, horizon: int, growth=GROWTH):
    """A policy of that name for R instances: means (R, N), gammas (R,)."""
    n_runs, n_arms = means.shape
    depths = np.arange(n_arms.bit_length())[:, None]
    if name in ("tree", "lcb_flat"):
        inner = delta * gammas**depths if name == "tree" else np.full((len(depths), n_runs), np.inf)
        return LowerBounds(np.where(depths == depths[-1], 0, inner), growth)
    if name in ("random", "oracle"):
        return Blind(n_arms, means.argmin(axis=1) if name == "oracle" else None)
    weights = np.sort(means.reshape(n_runs, 2, -1))[:, :, (n_arms // 2 - 1) // 2]
    return Released(weights, n_arms, horizon, 1 if name == "released" else -1)
