"""Theorem 1 as an experiment: the regret of the bandit search on synthetic trees, on a CPU.

    python -m benchmarks.experiments.regret --out results/regret.json

An instance is a complete binary tree with N = 2^k leaves, the arms. Arm i has a mean residual in
[noise, 1 - noise]; a pull shows it plus uniform noise: a residual in [0, 1], the smaller the
better. A tree is smooth if the leaves below any node of depth d differ by at most delta * gamma^d.
Structures, all of which span delta (`needle`: half of it):

    unique    smooth; one best leaf, and a leaf that parts from its path at depth d is worse by at
              least a fraction 1 - gamma of delta * gamma^d
    cluster   smooth; at every second depth both children are good: 2^floor(k/2) best leaves, spread
    shuffled  the leaves of `unique` in random order: the same arms, under a tree that says nothing
    needle    all leaves alike but one, which is better by delta / 2
    trap      the best leaf is in the worse half of the tree: the others there are worse than it by
              delta, the leaves of the other half by delta / 4

Policies: `tree` (equation 2), `lcb_flat` (its leaves only), `random`, `oracle` (knows the means),
`released` (the authors' code: softmax over distances, far arms preferred) and `released_near` (the
same with the sign turned round). Regret is the sum of the pulled arms' means minus the best mean.

Departures from the text:
1. log t changes all bounds at every step. It is held, and renewed in all bounds when t has grown
   by the factor `growth`; in between, a pull changes the bounds on its path only, O(log N).
2. `released` weights the branch of its first draw by the median of that node's inner products.
   These arms have no vectors: the (lower) median of the means below the node stands in. It sees one
   matrix, and as it costs O(N) a step, fewer arms and steps than the others.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy import ndarray

from benchmarks.common.files import DataError, seed_for, write_bytes
from benchmarks.common.progress import Progress
from benchmarks.runs.record import SCHEMA, provenance

STRUCTURES = ("unique", "cluster", "shuffled", "needle", "trap")
POLICIES = ("tree", "lcb_flat", "random", "oracle", "released", "released_near")
GROWTH = 1.05
BLOCK = 500  # steps whose random numbers are drawn at once
TIMED, REPEATS = 200, 7  # steps per measurement of the cost, measurements


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


def checkpoints(horizon: int) -> list[int]:
    """Two steps per decade from 100, and the last one."""
    steps = (round(10 ** (i / 2)) for i in range(4, 40))
    return sorted({step for step in steps if step < horizon} | {horizon})


def simulate(
    search,
    means: ndarray,
    seeds: list[int],
    horizon: int,
    noise: float,
    progress: Progress | None = None,
) -> ndarray:
    """Cumulative regret of R runs at the checkpoints, (checkpoints, R).

    A run's random numbers come from its own seed, so it does not depend on those beside it.
    """
    generators = [np.random.default_rng(seed) for seed in seeds]
    runs, gaps = np.arange(len(means)), means - means.min(axis=1, keepdims=True)
    wanted, total, found = set(checkpoints(horizon)), np.zeros(len(means)), []
    for start in range(0, horizon, BLOCK):
        draws = np.stack([g.random((BLOCK, 3)) for g in generators], axis=-1)  # (BLOCK, 3, R)
        for t, now in enumerate(draws[: horizon - start], start + 1):
            arms = search.choose(t, now)
            search.observe(arms, means[runs, arms] + noise * (2 * now[2] - 1))
            total += gaps[runs, arms]
            if t in wanted:
                found.append(total.copy())
        if progress:
            progress.advance(min(BLOCK, horizon - start))
    return np.array(found)


def step_cost(name: str, n_arms: int, every: bool) -> dict:
    """Median microseconds of choose and observe in a single run, and the scores computed per step.

    A score is a bound or a weight of an arm or a node. Where not `every` bound is renewed, none is
    but those on the path of the pull.
    """
    means, gammas = np.random.default_rng(0).random((1, n_arms)), np.array([0.5])
    search = policy(name, means, gammas, 1.0, TIMED * REPEATS, 1 if every else math.inf)
    draws = np.random.default_rng(1).random((TIMED * (REPEATS + 1), 3, 1))
    seconds = []
    for repeat in range(REPEATS + 1):
        start = time.perf_counter()
        for t in range(repeat * TIMED, (repeat + 1) * TIMED):
            search.observe(search.choose(t + 1, draws[t]), draws[t, 2])
        seconds.append(time.perf_counter() - start)
    depth = n_arms.bit_length() - 1
    scores = {
        **{"tree": 2 * n_arms - 1 if every else depth + 1, "lcb_flat": n_arms if every else 1},
        **{"random": 0, "released": 2 * n_arms},
    }
    micro = statistics.median(seconds[1:]) / TIMED * 1e6  # the first warms up
    return {"microseconds": round(micro, 2), "scores": scores[name]}


def rows(options: argparse.Namespace) -> Iterator[dict]:
    """Facts of three kinds: `instances` (their leaves), `regret` (per seed) and `cost`."""
    ranges = {name: reach(name, options) for name in POLICIES}
    n_steps = sum(steps for top, steps in ranges.values() for k in options.exponents if k <= top)
    progress = Progress("regret", n_steps, "steps")
    families = [(s, gamma) for s in options.structures for gamma in options.gammas]
    gammas = np.repeat([gamma for _, gamma in families], options.seeds)
    delta, low = options.delta, options.noise
    for k in sorted(options.exponents, reverse=True):  # so that the estimate is not too short
        scopes = [
            (seed, s, str(gamma), k) for s, gamma in families for seed in range(options.seeds)
        ]
        means = np.empty((len(scopes), 2**k))
        for i, scope in enumerate(scopes):
            rng = np.random.default_rng(seed_for(*scope))
            means[i] = instance(scope[1], k, gammas[i], delta, low, rng)
        settings = [{"structure": s, "gamma": gamma, "n": 2**k} for s, gamma in families]
        for setting, ours in zip(settings, np.split(means, len(families)), strict=True):
            eta = delta * 2.0 ** -np.arange(0, 12.5, 0.5)
            yield setting | {
                "kind": "instances",
                "roughness": round(max(roughness(m, setting["gamma"], delta) for m in ours), 4),
                "eta": [round(float(x), 8) for x in eta],
                "leaves": [float((ours <= low + x).sum(axis=1).mean()) for x in eta],
            }
        for name, (top, horizon) in ranges.items():
            if k > top:
                continue
            progress.start(f"{name}, {2**k} arms,")
            seeds = [seed_for(*scope, name) for scope in scopes]
            search = policy(name, means, gammas, delta, horizon)
            found = simulate(search, means, seeds, horizon, options.noise, progress).round(2)
            for t, values in zip(checkpoints(horizon), found, strict=True):
                for setting, ours in zip(settings, np.split(values, len(families)), strict=True):
                    yield setting | {
                        "kind": "regret",
                        "policy": name,
                        "t": t,
                        "regret": ours.tolist(),
                    }
    for k in options.exponents:
        for name in ("tree", "lcb_flat", "released", "random"):
            for every in (True, False) if name in ("tree", "lcb_flat") else (True,):
                cost = step_cost(name, 2**k, every)
                yield {"kind": "cost", "policy": name, "n": 2**k, "every": every} | cost


def reach(name: str, options: argparse.Namespace) -> tuple[int, int]:
    """The largest exponent and the horizon of a policy: the released search costs O(N) a step."""
    if name == "oracle":
        return options.exponents[-1], min(options.horizon, 1000)
    if not name.startswith("released"):
        return options.exponents[-1], options.horizon
    return options.released_exponent, min(options.released_horizon, options.horizon)


def save(path: Path, head: dict, found: Iterable[dict]) -> None:
    """Write the head, a JSON object, with the list `rows` added, one a line; all or nothing."""
    lines = ",\n".join(json.dumps(row, sort_keys=True, allow_nan=False) for row in found)
    text = json.dumps(head, sort_keys=True)
    write_bytes(path, f'{text[:-1]},\n"rows": [\n{lines}\n]}}\n'.encode())


def check(options: argparse.Namespace) -> None:
    """DataError for numbers that make no experiment."""
    if min(options.exponents) < 2 or max(options.exponents) > 20:
        raise DataError("--exponents must lie between 2 and 20 (4 to a million arms)")
    if options.seeds < 1:
        raise DataError("--seeds must be at least 1")
    if min(options.horizon, options.released_horizon) < 100:
        raise DataError("--horizon and --released-horizon must be at least 100 steps")
    if not all(0 < gamma < 1 for gamma in options.gammas):
        raise DataError("--gammas must lie between 0 and 1, both excluded")
    if options.noise < 0 or options.delta <= 0 or options.delta + 2 * options.noise > 1 + 1e-9:
        raise DataError("--delta must be positive and --delta + 2 --noise at most 1 (residuals)")
    if options.out.is_dir() or not options.out.absolute().parent.is_dir():
        raise DataError(f"--out {options.out} must be a file in a folder that exists")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = {
        "seeds": (20, "instances per setting"),
        "horizon": (100_000, "steps T"),
        "exponents": ([4, 6, 8, 10, 12, 14], "k, for N = 2^k arms"),
        "gammas": ([0.5, 0.71, 0.9], "how fast leaves below deeper nodes become alike"),
        "delta": (0.8, "spread of all means"),
        "noise": (0.1, "half-width of the noise"),
        "released-exponent": (10, "largest k of the released search"),
        "released-horizon": (10_000, "its steps"),
    }
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    for name, (default, text) in numbers.items():
        many = isinstance(default, list)
        parser.add_argument(
            f"--{name}",
            type=type(default[0] if many else default),
            nargs="+" if many else None,
            default=default,
            help=f"{text} (default: {' '.join(map(str, default)) if many else default})",
        )
    parser.add_argument(
        "--structures", nargs="+", choices=STRUCTURES, default=STRUCTURES, help="(default: all)"
    )
    options = parser.parse_args()
    options.exponents = sorted(set(options.exponents))
    try:
        check(options)
        settings = {key: value for key, value in vars(options).items() if key != "out"}
        settings |= {"growth": GROWTH, "structures": list(options.structures)}
        settings["reach"] = {
            name: {"largest_n": 2 ** min(top, options.exponents[-1]), "horizon": horizon}
            for name, (top, horizon) in ((name, reach(name, options)) for name in POLICIES)
        }
        head = {"schema": SCHEMA, "kind": "regret", "settings": settings}
        head["provenance"] = provenance()
        save(options.out, head, rows(options))
    except DataError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
