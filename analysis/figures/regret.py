"""The regret experiment: regret against steps and arms, and what a step costs."""

from __future__ import annotations

from math import nan

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from analysis.catalogue import figure
from analysis.figures.canvas import TWO, legend, sheet
from analysis.figures.lettering import powers_of_ten
from analysis.figures.style import Style
from analysis.records.regret import POLICIES, Regret, bound, flat_bound

STYLES = {
    "tree": Style("#D55E00", "*"),
    "lcb_flat": Style("#0072B2", "s"),
    "random": Style("#7A7A7A", "o"),
    "released": Style("#CC79A7", "v"),
    "released_near": Style("#009E73", "^"),
}


def _grid(regret: Regret, says: str, xlabel: str, ylabel: str, draw) -> Figure:
    """One panel per gamma and structure, all on the same scales; `draw(axes, structure, gamma)`."""
    structures, gammas = regret.settings["structures"], regret.settings["gammas"]
    says += f"; {regret.settings['seeds']} seeds, δ = {regret.settings['delta']:g}. "
    height = 1.05 * len(gammas) + 0.85
    fig = sheet(TWO, height, says + regret.left_out)
    panels = fig.subplots(len(gammas), len(structures), sharex=True, sharey=True, squeeze=False)
    fig.subplots_adjust(
        **{"left": 0.45 / TWO, "right": 1 - 0.2 / TWO, "wspace": 0.1, "hspace": 0.12},
        **{"bottom": 0.63 / height, "top": 1 - 0.2 / height},
    )
    first = panels[0, 0]  # whose scales and ticks all share
    first.set(xscale="log", yscale="log")
    first.minorticks_off()
    first.xaxis.set_major_locator(LogLocator(numticks=9))
    powers_of_ten(first.xaxis)
    powers_of_ten(first.yaxis)
    for axes in panels.flat:  # each band would scale all anew
        axes.set_autoscale_on(False)
    for row, gamma in zip(panels, gammas, strict=True):
        for axes, structure in zip(row, structures, strict=True):
            draw(axes, structure, gamma)
            axes.grid()
        axes.text(1.04, 0.5, f"γ = {gamma:g}", transform=axes.transAxes, rotation=270, va="center")
    for axes in panels.flat:
        axes.set_autoscale_on(True)
    first.autoscale_view()
    for axes, structure in zip(panels[0], structures, strict=True):
        axes.set_title(structure, y=1)
    fig.text(0.5 + 0.12 / TWO, 0.35 / height, xlabel, ha="center")
    fig.text(0.04 / TWO, 0.5 + 0.22 / height, ylabel, rotation=90, va="center")
    lines = {line.get_label(): line for axes in panels.flat for line in axes.get_lines()}
    legend(fig, lines)
    return fig


@figure(
    "Cumulative regret against the number of steps T, by structure of the tree and its "
    "smoothness γ: mean and standard deviation over seeds. The oracle's is 0. Bounds have the "
    "constants that O() hides set to 1, so their slope counts and not their height; Theorem 1's "
    "is drawn where the tree is smooth.",
    of=Regret,
)
def regret_steps(regret: Regret) -> Figure:
    """Regret against steps."""
    n = regret.shown_arms

    def draw(axes, *family) -> None:
        for policy in POLICIES:
            _lines(axes, policy, regret.values(policy, *family, n=n))
        steps = regret.values("tree", *family, n=n).index
        _bounds(axes, regret, family, list(steps), [(t, n) for t in steps])

    return _grid(regret, f"N = {n:,} arms", "steps T", "cumulative regret", draw)


@figure(
    "Regret per step against the number of arms N: mean and standard deviation over seeds, each "
    "policy at its largest T. What lies at the height of random choice has learnt nothing yet. "
    "Bounds, divided by T, have constants 1; above 1 they say nothing.",
    of=Regret,
)
def regret_arms(regret: Regret) -> Figure:
    """Regret against arms."""
    horizon, arms = regret.settings["horizon"], regret.arms

    def draw(axes, *family) -> None:
        for policy in POLICIES:
            t = regret.settings["reach"][policy]["horizon"]
            _lines(axes, policy, regret.values(policy, *family, t=t), t)
        _bounds(axes, regret, family, arms, [(horizon, n) for n in arms], horizon)

    return _grid(regret, f"T = {horizon:,}", "arms N", "regret per step", draw)


def _lines(axes, policy: str, values: pd.Series, unit: float = 1) -> None:
    """A policy's mean and standard deviation over seeds."""
    y, look = np.stack(values.to_list()) / unit, STYLES[policy]
    mean, sd = y.mean(axis=1), y.std(axis=1, ddof=min(1, y.shape[1] - 1))
    low = np.maximum(mean - sd, mean / 10)  # a logarithmic scale has no room for 0
    axes.fill_between(values.index, low, mean + sd, color=look.colour, alpha=0.15, linewidth=0)
    size = 5 if look.marker == "*" else 2.6
    axes.plot(values.index, mean, markersize=size, label=POLICIES[policy], **look.plot)


def _bounds(axes, regret: Regret, family, x: list, places: list, unit: float = 1) -> None:
    """Both bounds at places (T, N)."""
    flat = [flat_bound(*place) / unit for place in places]
    theorem = [bound(regret, *family, *place) / unit for place in places]
    axes.plot(x, flat, color=STYLES["lcb_flat"].colour, ls=":", lw=1, label="√(T N log T)")
    axes.plot(x, theorem, color="black", ls="--", lw=1, label="Theorem 1's bound")


@figure(
    "The cost of a step (choose and observe) against the number of arms N, in a single run: "
    "time relative to the smallest N, and the bounds or weights computed. Solid: every bound is "
    "renewed, as log t in equation 2 demands; dashed: the pull's path only (the flat search's "
    "is that of a tournament). Either way one arm's residual is observed per step. Random "
    "choice does the same work at every N: its line shows how noisy the clock is.",
    of=Regret,
)
def step_cost(regret: Regret) -> Figure:
    """Time and work of a step against arms."""
    fig = sheet(TWO, 2.5, f"Medians; {regret.arms[0]} arms take the time 1.")
    axes = [fig.add_axes((x, 0.31, 0.42, 0.66)) for x in (0.065, 0.57)]
    for (policy, every), rows in regret.cost.groupby(["policy", "every"], sort=False):
        rows, name = rows.sort_values("n"), POLICIES[policy]
        if policy in ("tree", "lcb_flat"):
            name += ", all bounds" if every else ", path only"
        line = {"released": "-."}.get(policy, "-" if every else "--")
        style = STYLES[policy]._replace(line=line).plot | {"label": name}
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
    legend(fig)
    return fig
