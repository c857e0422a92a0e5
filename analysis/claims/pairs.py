"""Effects between pairs of labels, and which labels make a pair."""

from __future__ import annotations

from math import inf, log

import numpy as np

from analysis.claims.verdict import Effect
from analysis.records.metrics import interval
from analysis.records.runs import Panel
from analysis.records.variants import difference, sweep

FORMS = ("hidetreelora", "treelora")  # inside HiDe's decomposition, as the paper has it on vision


def present(panel: Panel, *labels: str) -> bool:
    """Whether runs of all labels finished."""
    return all(label in panel.finished for label in labels)


def minus(
    panel: Panel, label: str, other: str, region: tuple[float, float] = (0.0, inf), metric="acc"
) -> Effect:
    """One label minus another, paired by seed."""
    values = difference(panel, metric, label, other)
    what = f"{panel.titles[label]} − {panel.titles[other]}"
    return Effect(what, interval(values), len(values), region)


def form(panel: Panel, key: str | None = None) -> str:
    """TreeLoRA in the paper's form if that was run, or in the form whose `key` was varied."""
    for form in FORMS:
        if present(panel, form) and (key is None or len(sweep(panel, form, key)) > 1):
            return form
    return "treelora"


def speed_up(panel: Panel, other: str, paper: float, ours: str = "treelora") -> Effect:
    """TIME of another method over TreeLoRA's = time per step x number of steps, by seed.

    Of the seeds that one device made of both.
    """
    values = panel.beside(ours)
    compared = values.index.get_level_values("method").isin([other, ours])
    values = np.log(values.loc[compared, ["time_seconds", "steps"]])
    values["per_step"] = values["time_seconds"] - values["steps"]
    ratios = values.xs(other).sub(values.xs(ours)).dropna()

    def effect(key: str, what: str, parts: tuple[Effect, ...] = ()) -> Effect:
        region = (log(paper) / 2, inf)
        return Effect(what, interval(ratios[key]), len(ratios), region, "times", parts)

    parts = (effect("per_step", "time per step"), effect("steps", "steps"))
    what = f"TIME of {panel.titles[other]} / {panel.titles[ours]}"
    return effect("time_seconds", what, parts)


def equal_epochs(panel: Panel, other: str) -> tuple[str, str] | None:
    """TreeLoRA and another method with the same epochs, TreeLoRA's own where both have these."""
    ours, theirs = (sweep(panel, name, "epochs") for name in ("treelora", other))
    return next(((ours[n], theirs[n]) for n in ours if n in theirs), None)


def longer(panel: Panel, other: str) -> str | None:
    """The other method's variant with the most epochs, if these are more than TreeLoRA's."""
    steps = panel.done.groupby("method")["steps"].mean()
    labels = sweep(panel, other, "epochs").values()
    longer = [x for x in labels if "treelora" in steps and steps[x] > steps["treelora"]]
    return max(longer, key=steps.get, default=None)
