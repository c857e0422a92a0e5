"""Theorem 1 as an experiment: the regret of the bandit search on synthetic trees, on a CPU.

    python -m benchmarks.experiments.regret --out results/regret.json

Arms have mean residuals in [noise, 1 - noise]; a pull shows the mean plus uniform noise: a residual
in [0, 1], the smaller the better. Regret is the sum of the pulled arms' means minus the best mean,
by structure of the tree, policy, number of arms and steps. The released search costs O(N) a step,
so it has fewer arms and steps than the others. The cost of a step is measured as well.
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

from benchmarks.common.digests import seed_for
from benchmarks.common.errors import DataError, as_exit
from benchmarks.common.files import write_bytes
from benchmarks.common.progress import Progress
from benchmarks.experiments.bandits import (
    GROWTH,
    POLICIES,
    STRUCTURES,
    instance,
    policy,
    roughness,
)
from benchmarks.runs.record import provenance

BLOCK = 500  # steps whose random numbers are drawn at once
TIMED, REPEATS = 200, 7  # steps per measurement of the cost, measurements


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


@as_exit()
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
    check(options)
    settings = {key: value for key, value in vars(options).items() if key != "out"}
    settings |= {"growth": GROWTH, "structures": list(options.structures)}
    settings["reach"] = {
        name: {"largest_n": 2 ** min(top, options.exponents[-1]), "horizon": horizon}
        for name, (top, horizon) in ((name, reach(name, options)) for name in POLICIES)
    }
    head = {"schema": 1, "kind": "regret", "settings": settings}
    head["provenance"] = provenance()
    save(options.out, head, rows(options))


if __name__ == "__main__":
    main()
