"""The regret experiment: exponents with intervals, Theorem 1's bound beside them, three figures.

    regret = load(Path("benchmarks/published/regret.json"))
    tables(regret), figures(regret), improvement(regret)

Intervals are 95 % percentile intervals of a bootstrap over seeds. All bounds are printed with the
constants that the O() hides set to 1: their shape counts, not their height.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from math import log, nan
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy import ndarray

from analysis import figures as look  # also sets matplotlib's defaults
from analysis.lettering import powers_of_ten
from analysis.metrics import Estimate
from analysis.records import parse, read_bytes
from analysis.style import Style
from analysis.table import Column, Number, Table

STYLES = {
    "tree": Style("#D55E00", "*"),
    "lcb_flat": Style("#0072B2", "s"),
    "random": Style("#7A7A7A", "o"),
    "released": Style("#CC79A7", "v"),
    "released_near": Style("#009E73", "^"),
}
SMOOTH = ("unique", "cluster")  # the structures that Theorem 1 speaks of
RESAMPLES = 2000
exponent = Number(digits=2)


class Regret(NamedTuple):
    """The file's facts.

    Attributes:
        regret: arrays of cumulative regret per seed, by policy, structure, gamma, n and t.
        instances: the number of leaves within each eta of the best, mean over seeds.
        cost: of a step, by policy and n.
    """

    settings: dict
    provenance: dict
    regret: pd.Series
    instances: pd.DataFrame
    cost: pd.DataFrame

    @property
    def families(self) -> list[tuple[str, float]]:
        """The structures and gammas."""
        return [(s, g) for s in self.settings["structures"] for g in self.settings["gammas"]]

    @property
    def arms(self) -> list[int]:
        """The numbers of arms."""
        return [2**k for k in self.settings["exponents"]]

    def values(self, policy: str, structure: str, gamma: float, **fixed: int) -> pd.Series:
        """Regrets (seeds,) of a policy, by t where n is fixed and by n where t is."""
        wanted = {"policy": policy, "structure": structure, "gamma": gamma} | fixed
        return self.regret.xs(tuple(wanted.values()), level=tuple(wanted))


def load(path: Path) -> Regret:
    """Read what `python -m benchmarks.experiments.regret` wrote."""
    data = parse(read_bytes(path))
    if not isinstance(data, dict) or data.get("kind") != "regret" or data.get("schema") != 1:
        raise ValueError(f"{path} is no regret file of schema 1: make it anew")
    rows = pd.DataFrame(data["rows"])
    kinds = ("regret", "instances", "cost")
    regret, *others = (rows[rows["kind"] == kind].dropna(axis=1, how="all") for kind in kinds)
    regret = regret.astype({"t": int}).set_index(["policy", "structure", "gamma", "n", "t"])
    values = regret["regret"].map(np.array).sort_index()
    return Regret(data["settings"], data["provenance"], values, *others)


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
    rows = regret.instances.query("structure == @structure and gamma == @gamma and n == @n")
    eta, leaves = rows.iloc[0][["eta", "leaves"]]
    return theorem_bound(t, n, gamma, regret.settings["delta"], eta, leaves)


def resampled(values: ndarray) -> ndarray:
    """Means over seeds, (..., seeds) -> (1 + RESAMPLES, ...): of all, then of bootstrap samples."""
    n = values.shape[-1]
    chosen = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    means = np.moveaxis(values[..., chosen], -2, 0).mean(axis=-1)
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


def improvement(
    regret: Regret, n: int | None = None, t: int | None = None
) -> dict[tuple[str, float], Estimate]:
    """Regret of the tree over that of the flat search, with N = n at T = t, both or the largest.

    By structure and gamma, with the interval; below 1 the tree is better. Seeds are paired: both
    search the same trees.
    """
    n, t = n or regret.arms[-1], t or regret.settings["horizon"]
    ratios = {}
    for family in regret.families:
        pair = [regret.values(policy, *family, t=t)[n] for policy in ("tree", "lcb_flat")]
        tree, flat = resampled(np.stack(pair)).T
        ratios[family] = interval(tree / flat)
    return ratios


@dataclass(frozen=True)
class Interval(Column):
    """A column of estimates with their intervals, without the plus signs of differences."""

    signed: bool = True

    def text(self, value: object) -> str:
        return super().text(value).replace("+", "")


def tables(regret: Regret) -> dict[str, Table]:
    """Fitted exponents in T and in N, with Theorem 1's beside them, and what the tree gains."""
    horizon, arms, n = regret.settings["horizon"], regret.arms, shown_arms(regret)
    few, many = arms[: (len(arms) + 1) // 2], arms[len(arms) // 2 :]
    early = max(t for t in regret.regret.index.unique("t") if t <= 1000)
    places = dict.fromkeys([(arms[0], early), *((m, horizon) for m in (few[-1], n, arms[-1]))])
    compared = {f"N = {m:,}, T = {t:,}": improvement(regret, m, t) for m, t in places}
    in_steps, in_arms, gains = [], [], []
    for family in regret.families:
        head = dict(zip(("structure", "gamma"), map(str, family), strict=True))
        curves = {policy: regret.values(policy, *family, n=n) for policy in STYLES}
        curves = {p: curve[curve.index >= curve.index.max() / 100] for p, curve in curves.items()}
        steps = curves["tree"].index
        theorem = [bound(regret, *family, t, n) for t in steps]
        fits = {policy: fitted(curve) for policy, curve in curves.items()}
        in_steps.append(head | fits | {"theorem": Estimate(float(slopes(steps, theorem)))})

        tree, flat, blind = (
            regret.values(policy, *family, t=horizon) for policy in ("tree", "lcb_flat", "random")
        )
        theorem = [bound(regret, *family, horizon, m) for m in arms]
        fits = {"tree": fitted(tree), "log": fitted(tree, np.log(arms)), "flat": fitted(flat)}
        fits |= {"tree_many": fitted(tree[many]), "flat_few": fitted(flat[few])}
        in_arms.append(head | fits | {"theorem": Estimate(float(slopes(arms, theorem)))})

        ratios = {place: ratio[family] for place, ratio in compared.items()}
        ratios["bounds"] = Estimate(theorem[-1] / flat_bound(horizon, arms[-1]))
        ratios["blind"] = Estimate(theorem[-1] / blind[arms[-1]].mean())
        gains.append(head | ratios)
    families = [Column("structure", "structure"), Column("gamma", "γ")]
    theorem = Column("theorem", "Theorem 1's bound", exponent)
    ranges = {
        "tree": "tree",
        "log": "tree, in log N",
        "tree_many": f"tree, N ≥ {many[0]:,}",
        "flat": "lcb_flat",
        "flat_few": f"lcb_flat, N ≤ {few[-1]:,}",
    }
    fit = (
        "An exponent is the least-squares slope of log mean regret on the log of what is named; "
        f"in brackets the 95 % percentile interval of {RESAMPLES:,} bootstrap samples of the "
        f"{regret.settings['seeds']} seeds."
    )
    smooth = (
        "Theorem 1 speaks of smooth trees only; its bound is the smallest over η, with the leaves "
        "that these trees have within η of the best, and constants 1."
    )
    made = [
        Table(
            "regret_steps",
            f"Exponent of regret in T, N = {n:,} arms",
            [*families, *(Interval(policy, policy, exponent) for policy in STYLES), theorem],
            in_steps,
            notes=[fit, smooth, f"The last two decades of T. {reach_in_words(regret)}"],
        ),
        Table(
            "regret_arms",
            f"Exponent of regret in N, {arms[0]} to {arms[-1]:,} arms, T = {horizon:,}",
            [*families, *(Interval(*item, exponent) for item in ranges.items()), theorem],
            in_arms,
            notes=[fit, smooth],
        ),
        Table(
            "regret_gain",
            "Regret of the tree in units of the flat search's",
            [
                *families,
                *(Interval(place, place, exponent) for place in compared),
                Column("bounds", f"ratio of the bounds, N = {arms[-1]:,}", exponent),
                Column("blind", f"Theorem 1's bound / random, N = {arms[-1]:,}", exponent),
            ],
            gains,
            notes=[
                "Below 1 the tree is better; in brackets the 95 % percentile interval of "
                f"{RESAMPLES:,} bootstrap samples of the {regret.settings['seeds']} seeds. "
                "`shuffled` has the arms of `unique`: what the tree gains there, it does not owe "
                "to likeness.",
                smooth + " Where it exceeds the regret of random choice it promises nothing.",
            ],
        ),
    ]
    return {table.name: table for table in made}


def shown_arms(regret: Regret) -> int:
    """The N at which regret is shown against T: the largest that every policy has seen."""
    return min(reach["largest_n"] for reach in regret.settings["reach"].values())


def reach_in_words(regret: Regret) -> str:
    """What was left out of the released search's runs."""
    reach = regret.settings["reach"]["released"]
    return (
        f"The released search, which costs O(N) a step, was run up to N = {reach['largest_n']:,} "
        f"and T = {reach['horizon']:,}."
    )


CAPTIONS = {
    "regret_steps": "Cumulative regret against the number of steps T, by structure of the tree "
    "and its smoothness γ: mean and standard deviation over seeds. The oracle's is 0. Bounds have "
    "the constants that O() hides set to 1, so their slope counts and not their height; Theorem "
    "1's is drawn where the tree is smooth.",
    "regret_arms": "Regret per step against the number of arms N: mean and standard deviation "
    "over seeds, each policy at its largest T. What lies at the height of random choice has "
    "learnt nothing yet. Bounds, divided by T, have constants 1; above 1 they say nothing.",
    "step_cost": "The cost of a step (choose and observe) against the number of arms N, in a "
    "single run: time relative to the smallest N, and the bounds or weights computed. Solid: "
    "every bound is renewed, as log t in equation 2 demands; dashed: the pull's path only (the "
    "flat search's is that of a tournament). Either way one arm's residual is observed per step. "
    "Random choice does the same work at every N: its line shows how noisy the clock is.",
}


def figures(regret: Regret) -> dict[str, Figure]:
    """The figures by the names of `CAPTIONS`."""
    return {
        "regret_steps": _steps(regret),
        "regret_arms": _arms(regret),
        "step_cost": _cost(regret),
    }


def _new(title: str, foot: str, size: tuple[float, float]) -> Figure:
    figure = Figure(size, dpi=150)
    FigureCanvasAgg(figure)
    width, height = size
    figure.text(0.08 / width, 1 - 0.1 / height, title, va="top", fontsize=10, fontweight="bold")
    foot = "\n".join(textwrap.wrap(foot, int(width * 18)))
    figure.text(0.08 / width, 0.06 / height, foot, va="bottom", fontsize=7, c=look.GREY)
    return figure


def _grid(regret: Regret, title: str, xlabel: str, ylabel: str, draw) -> Figure:
    """One panel per gamma and structure, all on the same scales; `draw(axes, structure, gamma)`."""
    structures, gammas = regret.settings["structures"], regret.settings["gammas"]
    width, height = max(1.42 * len(structures) + 0.9, 7.4), 1.4 * len(gammas) + 1.75
    foot = f"{regret.settings['seeds']} seeds, δ = {regret.settings['delta']:g}. "
    figure = _new(title, foot + reach_in_words(regret), (width, height))
    panels = figure.subplots(len(gammas), len(structures), sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(
        **{"left": 0.65 / width, "right": 1 - 0.25 / width, "wspace": 0.1, "hspace": 0.12},
        **{"bottom": 1.1 / height, "top": 1 - 0.6 / height},
    )
    for row, gamma in zip(panels, gammas, strict=True):
        for axes, structure in zip(row, structures, strict=True):
            draw(axes, structure, gamma)
            axes.set(xscale="log", yscale="log")
            axes.minorticks_off()
            axes.xaxis.set_major_locator(LogLocator(numticks=9))
            powers_of_ten(axes.xaxis)
            powers_of_ten(axes.yaxis)
            axes.tick_params(labelsize=8)
            axes.grid()
        axes.text(1.04, 0.5, f"γ = {gamma:g}", transform=axes.transAxes, rotation=270, va="center")
    for axes, structure in zip(panels[0], structures, strict=True):
        axes.set_title(structure, fontsize=9)
    figure.text(0.5 + 0.2 / width, 0.62 / height, xlabel, ha="center")
    figure.text(0.08 / width, 0.55 + 0.12 / height, ylabel, rotation=90, va="center")
    lines = {line.get_label(): line for axes in panels.flat for line in axes.get_lines()}
    figure.legend(
        lines.values(),
        lines.keys(),
        loc="lower center",
        bbox_to_anchor=(0.5, 0.24 / height),
        ncols=len(lines),
        fontsize=7.5,
        columnspacing=1.2,
        handlelength=1.8,
    )
    return figure


def _steps(regret: Regret) -> Figure:
    n = shown_arms(regret)

    def draw(axes, *family) -> None:
        for policy in STYLES:
            _lines(axes, policy, regret.values(policy, *family, n=n))
        steps = regret.values("tree", *family, n=n).index
        _bounds(axes, regret, family, list(steps), [(t, n) for t in steps])

    return _grid(regret, f"Regret against T, N = {n:,} arms", "steps T", "cumulative regret", draw)


def _arms(regret: Regret) -> Figure:
    horizon, arms = regret.settings["horizon"], regret.arms

    def draw(axes, *family) -> None:
        for policy in STYLES:
            t = regret.settings["reach"][policy]["horizon"]
            _lines(axes, policy, regret.values(policy, *family, t=t), t)
        _bounds(axes, regret, family, arms, [(horizon, n) for n in arms], horizon)

    title = f"Regret per step against N, T = {horizon:,}"
    return _grid(regret, title, "arms N", "regret per step", draw)


def _lines(axes, policy: str, values: pd.Series, unit: float = 1) -> None:
    """A policy's mean and standard deviation over seeds."""
    y, (colour, marker) = np.stack(values.to_list()) / unit, STYLES[policy]
    mean, sd = y.mean(axis=1), y.std(axis=1, ddof=min(1, y.shape[1] - 1))
    low = np.maximum(mean - sd, mean / 10)  # a logarithmic scale has no room for 0
    axes.fill_between(values.index, low, mean + sd, color=colour, alpha=0.15, linewidth=0)
    style = {"color": colour, "marker": marker, "markersize": 7 if marker == "*" else 3.5}
    axes.plot(values.index, mean, linewidth=1.2, label=policy, **style)


def _bounds(axes, regret: Regret, family, x: list, places: list, unit: float = 1) -> None:
    """Both bounds at places (T, N)."""
    flat = [flat_bound(*place) / unit for place in places]
    theorem = [bound(regret, *family, *place) / unit for place in places]
    axes.plot(x, flat, color=STYLES["lcb_flat"].colour, ls=":", lw=1, label="√(T N log T)")
    axes.plot(x, theorem, color="black", ls="--", lw=1, label="Theorem 1's bound")


def _cost(regret: Regret) -> Figure:
    foot = f"Medians. {regret.arms[0]} arms take the time 1."
    figure = _new("Cost of a step against N", foot, (7, 3.4))
    axes = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.09, right=0.76, bottom=0.21, top=0.88, wspace=0.32)
    for (policy, every), rows in regret.cost.groupby(["policy", "every"], sort=False):
        rows, name = rows.sort_values("n"), policy
        if policy in ("tree", "lcb_flat"):
            name += ", all bounds" if every else ", path only"
        line = {"released": "-."}.get(policy, "-" if every else "--")
        colour, marker = STYLES[policy]
        style = {"color": colour, "marker": marker, "markersize": 5, "ls": line, "label": name}
        seconds = rows["microseconds"]
        axes[0].plot(rows["n"], seconds / seconds.iloc[0], **style)
        axes[1].plot(rows["n"], rows["scores"].replace(0, nan), **style)
    for panel, ylabel in zip(axes, ("relative time", "bounds or weights computed"), strict=True):
        panel.set(xscale="log", yscale="log", xlabel="arms N", ylabel=ylabel)
        powers_of_ten(panel.xaxis)
        powers_of_ten(panel.yaxis)
        panel.grid()
    axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].yaxis.set_minor_formatter(NullFormatter())
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7.5)
    return figure
