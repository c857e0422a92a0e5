"""Scores while tasks are learnt."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.catalogue import figure, is_result
from analysis.figures.canvas import (
    FLOOR,
    as_percent,
    canvas,
    legend,
    looks,
    names,
    say,
    says,
    seeds,
)
from analysis.figures.lettering import drawn
from analysis.figures.style import style
from analysis.records.language import floor_curve
from analysis.records.metrics import running_accuracy
from analysis.records.runs import METHOD_ORDER, UPPER_BOUND, Panel
from analysis.records.variants import variants


def _tests_each_time(spec: dict) -> bool:
    """Whether a result has scores after each task."""
    only_last = spec["train"].get("evaluate") == "final" or spec["method"]["name"] == UPPER_BOUND
    return is_result(spec) and not only_last


@figure(
    "The mean score over the tasks seen so far, after each task (as the paper's Figures 4a, 6a and "
    "7a). The band is one sample standard deviation; joint has learnt all tasks at once, "
    "the floor is what outputs without any model score.",
    need=_tests_each_time,
)
def fig4a(panel: Panel) -> Figure:
    """The mean score over the tasks seen so far, after each task."""
    called, methods, floor = names(panel, panel.drawn), looks(panel), floor_curve(panel)
    listed = [*called.values(), *([FLOOR["label"]] if floor is not None else [])]
    fig, axes = canvas(1.75, 0.38, listed, says(panel, notes=panel.gaps))
    for label, runs in panel.drawn.items():
        look, size = methods[label], 1.6 if methods[label].marker == "*" else 1
        plot = look.plot | {"label": called[label], "markersize": 3.8 * size}
        if label in panel.upper_bounds:
            n = len(runs["R"].iloc[0])
            axes.plot([n], [panel.estimates[label]["acc"].mean], clip_on=False, **plot)
            continue
        curves = np.array([running_accuracy(R) for R in runs["R"]])  # NaN is not drawn
        x, mean = np.arange(1, curves.shape[1] + 1), curves.mean(axis=0)
        if len(runs) > 1:
            _band(axes, x, mean, curves.std(axis=0, ddof=1), look.colour)
        axes.plot(x, mean, **plot)
    if floor is not None:
        axes.plot(
            np.arange(1, len(floor) + 1), running_accuracy(np.tile(floor, (len(floor), 1))), **FLOOR
        )
    axes.set(xlabel="tasks learnt", ylabel=f"mean {panel.score} of the tasks seen, %")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    as_percent(axes.yaxis)
    axes.grid(axis="y")
    legend(fig)
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
    called, floor = {label: _called(panel, label) for label in curves}, floor_curve(panel)
    listed = [*called.values(), *([FLOOR["label"]] if floor is not None else [])]
    fig, axes = canvas(1.55, 0.38, listed, says(panel, seeds(panel)))
    if not curves:
        say(axes, "No finished run was tested while it learnt.")
        return fig
    for label, curve in curves.items():
        # A variant that is only tested more often looks like its method.
        look = style(panel.specs[label]["method"]["name"])
        x, mean, sd = curve.index, curve.mean(axis=1), curve.std(axis=1)
        _band(axes, x, mean, sd, look.colour)
        axes.plot(x, mean, label=called[label], **look.plot)
    if floor is not None:
        axes.axhline(floor[1:].mean(), **FLOOR)
    axes.set(xlabel="training samples of the new task seen", ylabel="score on it, %")
    axes.set_ylim(bottom=0)
    as_percent(axes.yaxis)
    axes.grid(axis="y")
    legend(fig)
    return fig


def _called(panel: Panel, label: str) -> str:
    """A run that is only tested more often is called as its method."""
    name = panel.specs[label]["method"]["name"]
    changed = variants(panel, name).get(label, {})
    return drawn(
        METHOD_ORDER.get(name, name) if set(changed) == {"curve_tests"} else panel.titles[label]
    )


def _band(axes, x, mean, sd, colour: str) -> None:
    """A band of one standard deviation around a curve."""
    axes.fill_between(x, mean - sd, mean + sd, color=colour, alpha=0.15, linewidth=0)


def _learning_curves(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean score over all tasks but the first by samples seen, a column per seed.

    Only where every task and seed was tested; empty if none was.
    """
    curves = {}
    for seed, record in zip(runs["seed"], runs["record"], strict=True):
        points = [point for point in record.get("test_curve") or () if point["task"] > 0]
        if not points:
            return pd.DataFrame()
        scores: dict[int, dict[int, float]] = {}  # by samples, then by task
        for point in points:
            scores.setdefault(point["samples"], {})[point["task"]] = point["score"]
        tasks = {point["task"] for point in points}
        whole = {n: own.values() for n, own in sorted(scores.items()) if own.keys() == tasks}
        curves[seed] = {n: sum(own) / len(own) for n, own in whole.items()}
    return pd.DataFrame(curves).dropna()
