"""Scores while tasks are learnt."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.catalogue import figure
from analysis.figures.canvas import as_percent, canvas, legend, looks, say, seeds, widest
from analysis.figures.lettering import drawn
from analysis.figures.style import style
from analysis.records.metrics import running_accuracy
from analysis.records.runs import Panel


@figure(
    "The mean score over the tasks seen so far, after each task (as the paper's Figure 4a). The "
    "band is one sample standard deviation; the dashed line is the upper bound."
)
def fig4a(panel: Panel) -> Figure:
    """The mean score over the tasks seen so far, after each task."""
    title = f"{panel.stream}: {panel.score} after each task"
    right = widest(panel, panel.drawn) + 0.6
    fig, axes = canvas(title, panel, (6.2, 3.6), 0.6, right, notes=panel.gaps)
    methods = looks(panel)
    for label, runs in panel.drawn.items():
        look, name = methods[label], drawn(panel.titles[label])
        if panel.is_upper_bound(label):
            height = panel.estimates[label]["acc"].mean
            axes.axhline(height, color=look.colour, ls="--", linewidth=1.3, label=name)
            continue
        curves = np.array([running_accuracy(R) for R in runs["R"]])  # NaN is not drawn
        x, mean = np.arange(1, curves.shape[1] + 1), curves.mean(axis=0)
        if len(runs) > 1:
            _band(axes, x, mean, curves.std(axis=0, ddof=1), look.colour)
        size = 9 if look.marker == "*" else 5
        axes.plot(x, mean, label=name, markersize=size, linewidth=1.5, **look.plot)
    axes.set(xlabel="tasks learnt", ylabel="mean score of the tasks seen, %")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    as_percent(axes.yaxis)
    axes.grid(axis="y")
    if panel.drawn:
        legend(axes)
    return fig


@figure(
    "The score on a new task against its training samples seen, mean over all tasks but the first "
    "(as Figure 1); the band is one sample standard deviation.",
    need=lambda spec: spec["train"].get("curve_tests"),
)
def fig1(panel: Panel) -> Figure:
    """The score on a new task while it is learnt, mean over all tasks but the first (Figure 1)."""
    curves = {label: _learning_curves(runs) for label, runs in panel.finished.items()}
    curves = {label: curve for label, curve in curves.items() if len(curve)}
    title = f"{panel.stream}: score on a new task while it is learnt"
    fig, axes = canvas(title, panel, (6.2, 3.4), 0.6, widest(panel, curves) + 0.6, seeds(panel))
    if not curves:
        say(axes, "No finished run was tested while it learnt.")
        return fig
    for label, curve in curves.items():
        # A variant that is only tested more often looks like its method.
        look = style(panel.specs[label]["method"]["name"])
        x, mean, sd = curve.index, curve.mean(axis=1), curve.std(axis=1)
        _band(axes, x, mean, sd, look.colour)
        name = drawn(panel.titles[label])
        axes.plot(x, mean, label=name, markersize=5, linewidth=1.4, **look.plot)
    legend(axes)
    axes.set(xlabel="training samples of the new task seen", ylabel="score, %")
    axes.set_ylim(bottom=0)
    as_percent(axes.yaxis)
    axes.grid(axis="y")
    return fig


def _band(axes, x, mean, sd, colour: str) -> None:
    """A band of one standard deviation around a curve."""
    axes.fill_between(x, mean - sd, mean + sd, color=colour, alpha=0.15, linewidth=0)


def _learning_curves(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean score over all tasks but the first by samples seen, a column per seed.

    Only where every task and seed was tested; empty if none was.
    """
    curves = {}
    for run in runs.itertuples():
        points = [point for point in run.record.get("test_curve") or () if point["task"] > 0]
        if not points:
            return pd.DataFrame()
        by_task = pd.DataFrame(points).pivot(index="samples", columns="task", values="score")
        by_task = by_task.dropna()
        curves[run.seed] = by_task.mean(axis=1)
    return pd.DataFrame(curves).dropna()
