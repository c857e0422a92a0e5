"""What trials on held-out data choose: the best setting of each method, beside the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from analysis.catalogue import table
from analysis.records.metrics import Estimate
from analysis.records.runs import Panel
from analysis.records.variants import Settings, settings
from analysis.tables.setting import facts, outdated_notes, setting_notes, source_notes, words
from analysis.tables.table import Column, Table, count, percent

RATE = "-learning-rate-"  # in the label of a grid's row, behind the grid's own name


class Choice(NamedTuple):
    """The best trial of a row's grid.

    Attributes:
        settings: what the grid varies, as in that trial.
        score: its mean final score, NaN if no trial finished.
        worst: the lowest one.
        trials: that finished.
        edge: what of it is the lowest or the highest that was tried.
    """

    settings: Settings
    score: float
    worst: float
    trials: int
    edge: list[str]


def choices(panel: Panel) -> dict[str, Choice]:
    """Of each grid of learning rates the trial with the best score, the lowest rate if several."""
    grids: dict[str, list[str]] = {}
    for label in panel.finished:
        name, found, _ = label.partition(RATE)
        if found:
            grids.setdefault(name, []).append(label)
    return {name: _choice(panel, labels) for name, labels in grids.items()}


def _choice(panel: Panel, labels: list[str]) -> Choice:
    tried = {label: settings(panel, label) for label in labels}
    first = tried[labels[0]]
    varied = [key for key in first if any(own[key] != first[key] for own in tried.values())]
    scores = {label: panel.estimates[label]["acc"].mean for label in labels}
    best = max(labels, key=lambda label: (scores[label], -tried[label]["learning_rate"]))
    chosen = {key: tried[best][key] for key in varied}
    edge = [key for key in varied if chosen[key] in _ends(own[key] for own in tried.values())]
    return Choice(chosen, scores[best], min(scores.values()), len(labels), edge)


def _ends(values: Iterable[object]) -> tuple:
    numbers = [value for value in values if isinstance(value, int | float)]
    return (min(numbers), max(numbers)) if numbers else ()


@table(need=lambda spec: spec["stream"].get("holdout"))
def tuning(panel: Panel) -> Table:
    """The choice of each method on training data that is held out."""
    columns = [
        Column("method", "Method"),
        Column("trials", "Trials", count),
        Column("chosen", "Chosen"),
        Column("score", f"{panel.score} of it ↑", percent),
        Column("worst", f"Lowest {panel.score}", percent),
        Column("edge", "Edge of the grid"),
    ]
    rows = [
        {
            "method": name,
            "trials": Estimate(own.trials),
            "chosen": words(own.settings),
            "score": Estimate(own.score),
            "worst": Estimate(own.worst),
            "edge": ", ".join(own.edge).replace("_", " "),
        }
        for name, own in choices(panel).items()
    ]
    notes = [
        "Edge of the grid: what is the lowest or highest tried, so that better may lie beyond."
    ]
    return Table(
        f"tuning-{panel.slug}",
        f"{panel.stream}, {panel.backbone}: settings chosen on training data held out",
        columns,
        rows,
        [],
        notes,
        [note for notes in (setting_notes, outdated_notes, source_notes) for note in notes(panel)],
        facts(panel),
    )
