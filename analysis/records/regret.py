"""The regret experiment: what was measured, fitted exponents with intervals, Theorem 1's bound.

Intervals are 95 % percentile intervals of a bootstrap over seeds. All bounds have the constants
that the O() hides set to 1: their shape counts, not their height.
"""

from __future__ import annotations

from math import log, nan
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray

from analysis.records.metrics import Estimate
from analysis.records.reading import read_experiment

# What chooses an arm, in words.
POLICIES = {
    **{"tree": "LCB on the tree", "lcb_flat": "flat LCB", "random": "random"},
    **{"released": "released code, far", "released_near": "released code, near"},
}
SMOOTH = ("unique", "cluster")  # the structures that Theorem 1 speaks of
RESAMPLES = 2000


class Regret(NamedTuple):
    """The file's facts.

    Attributes:
        regret: of each policy, structure and gamma the cumulative regret (seeds,) by n and t.
        instances: of each structure, gamma and n the margins eta, and how many leaves lie within
            each of the best, mean over seeds.
        cost: of a step, by policy and n.
    """

    settings: dict
    provenance: dict
    regret: dict[tuple[str, str, float], dict[tuple[int, int], ndarray]]
    instances: dict[tuple[str, float, int], tuple[ndarray, ndarray]]
    cost: pd.DataFrame

    @property
    def families(self) -> list[tuple[str, float]]:
        """The structures and gammas."""
        return [(s, g) for s in self.settings["structures"] for g in self.settings["gammas"]]

    @property
    def arms(self) -> list[int]:
        """The numbers of arms."""
        return [2**k for k in self.settings["exponents"]]

    @property
    def shown_arms(self) -> int:
        """The N at which regret is shown against T: the largest that every policy has seen."""
        return min(reach["largest_n"] for reach in self.settings["reach"].values())

    @property
    def left_out(self) -> str:
        """What was left out of the released search's runs."""
        reach = self.settings["reach"]["released"]
        return (
            f"The released search, which costs O(N) a step, was run up to N = "
            f"{reach['largest_n']:,} and T = {reach['horizon']:,}."
        )

    def values(
        self, policy: str, structure: str, gamma: float, n: int | None = None, t: int | None = None
    ) -> pd.Series:
        """Regrets (seeds,) of a policy, by t where n is fixed and by n where t is."""
        own = self.regret[policy, structure, gamma].items()
        if t is None:
            return pd.Series({its_t: value for (its_n, its_t), value in own if its_n == n})
        return pd.Series({its_n: value for (its_n, its_t), value in own if its_t == t})


def load(path: Path) -> Regret:
    """Read what `make experiments` wrote."""
    data = read_experiment(path, "regret")
    rows: dict[str, list[dict]] = {"regret": [], "instances": [], "cost": []}
    for row in data["rows"]:
        rows[row["kind"]].append(row)
    regret: dict[tuple[str, str, float], dict[tuple[int, int], ndarray]] = {}
    for row in sorted(rows["regret"], key=itemgetter("n", "t")):
        own = regret.setdefault((row["policy"], row["structure"], row["gamma"]), {})
        own[row["n"], row["t"]] = np.array(row["regret"])
    instances = {
        (row["structure"], row["gamma"], row["n"]): (np.array(row["eta"]), np.array(row["leaves"]))
        for row in rows["instances"]
    }
    return Regret(
        data["settings"], data["provenance"], regret, instances, pd.DataFrame(rows["cost"])
    )


def flat_bound(t: float, n: int) -> float:
    """sqrt(T N log T), the flat search's bound."""
    return (t * n * log(t)) ** 0.5


def theorem_bound(t: float, n: int, gamma: float, delta: float, eta, leaves) -> float:
    """Theorem 1, the smallest over eta, with J = |J_eta| and c = log 2 / log(1 / gamma):

        sqrt(T J log(N T / J)) + delta^c / eta^(2 + c) * log(N T / eta^2)

    In a smooth tree J >= N (eta / delta)^c where eta = delta gamma^d, so that up to logarithms the
    smallest grows as (T N)^((2 + c) / (4 + 3 c)): a power of N from 1/3 to 1/2, not sqrt(log N).

    Args:
        eta, leaves: (E,), the margins tried and how many leaves lie within each of the best.
    """
    eta, leaves, c = np.asarray(eta), np.asarray(leaves), log(2) / log(1 / gamma)
    first = np.sqrt(t * leaves * np.log(n * t / leaves))
    return float((first + delta**c / eta ** (2 + c) * np.log(n * t / eta**2)).min())


def bound(regret: Regret, structure: str, gamma: float, t: float, n: int) -> float:
    """Theorem 1's bound for these instances; NaN where the tree is not smooth."""
    if structure not in SMOOTH:
        return nan
    eta, leaves = regret.instances[structure, gamma, n]
    return theorem_bound(t, n, gamma, regret.settings["delta"], eta, leaves)


def resampled(values: ndarray) -> ndarray:
    """Means over seeds, (points, seeds) -> (1 + RESAMPLES, points): of all, then of samples."""
    n = values.shape[-1]
    chosen = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    means = sum(values.T[one] for one in chosen.T) / n  # one draw of all samples after another
    return np.concatenate([values.mean(axis=-1)[None], means])


def interval(statistics: ndarray) -> Estimate:
    """The first, with the 95 % percentile interval of the others."""
    low, high = np.quantile(statistics[1:], (0.025, 0.975))
    return Estimate(float(statistics[0]), nan, float(low), float(high))


def slopes(x: ndarray, y: ndarray) -> ndarray:
    """Least squares of log y (..., points) on log x (points): the exponents, (...)."""
    x = np.log(np.asarray(x))
    x = x - x.mean()
    return np.log(y) @ x / (x @ x)


def fitted(values: pd.Series, x=None) -> Estimate:
    """The exponent of the mean regret in the index of `values`, or in x."""
    if len(values) < 2:
        return Estimate(nan)
    x = np.array(values.index, float) if x is None else x
    return interval(slopes(x, resampled(np.stack(values.to_list()))))


def improvement(regret: Regret, n: int, t: int) -> dict[tuple[str, float], Estimate]:
    """Regret of the tree over that of the flat search, with N = n at T = t.

    By structure and gamma, with the interval; below 1 the tree is better. Seeds are paired: both
    search the same trees.
    """
    ratios = {}
    for family in regret.families:
        pair = [regret.values(policy, *family, t=t)[n] for policy in ("tree", "lcb_flat")]
        tree, flat = resampled(np.stack(pair)).T
        ratios[family] = interval(tree / flat)
    return ratios


def findings(regret: Regret) -> dict[str, object]:
    """What the claims ask for: the largest `n` and `t`, and the `ratios` of `improvement` there."""
    size = {"n": regret.arms[-1], "t": regret.settings["horizon"]}
    return size | {"ratios": improvement(regret, **size)}
