"""The score against each setting that was varied alone."""

from __future__ import annotations

from math import inf

import numpy as np
from matplotlib.figure import Figure

from analysis.catalogue import figure
from analysis.figures.canvas import (
    FLOOR,
    ONE,
    TWO,
    as_percent,
    canvas,
    legend,
    names,
    say,
    says,
    seeds,
)
from analysis.figures.lettering import drawn
from analysis.figures.style import style
from analysis.records.language import mean_floor
from analysis.records.runs import Panel
from analysis.records.variants import sweep, variants


@figure(
    "The final score against each numeric setting that was varied alone (as Tables 2, 4 and 6), "
    "values at equal distances; whiskers are one sample standard deviation. Layers are adapted "
    "blocks, depth is the matrices that the tree looks at; no limit takes all.",
    need=lambda spec: spec["method"]["label"] != spec["method"]["name"],
)
def sensitivity(panel: Panel) -> Figure:
    """The final score against every numeric setting that was varied alone (Tables 2, 4 and 6)."""
    swept, floor = swept_settings(panel), mean_floor(panel)
    called = names(panel, dict.fromkeys(name for methods in swept.values() for name in methods))
    listed = [*called.values(), *([FLOOR["label"]] if floor and called else [])]
    columns, rows = min(3, max(len(swept), 1)), max(-(-len(swept) // 3), 1)
    wide = ONE if len(swept) < 2 else TWO
    fig, axes = canvas(1.55 * rows, 0.4, listed, says(panel, seeds(panel)), wide, bottom=0.02)
    axes.set_axis_off()
    if not swept:
        say(axes, "No run differs from its base in a numeric setting alone.")
    for index, (key, methods) in enumerate(swept.items()):
        row, column = divmod(index, columns)
        box = (column / columns, 1 - (row + 0.74) / rows, 0.84 / columns, 0.74 / rows)
        part = axes.inset_axes(box)
        values = sorted({value for labels in methods.values() for value in labels})
        for name, labels in methods.items():
            scores = [panel.estimates[label]["acc"] for label in labels.values()]
            means, spreads = zip(*[(e.mean, np.nan_to_num(e.sd)) for e in scores], strict=True)
            x, look = [values.index(v) for v in labels], style(name).plot
            part.errorbar(x, means, spreads, elinewidth=0.7, **look)
        if floor:
            part.axhline(floor.mean, **FLOOR)
        ticks = ["no limit" if value == inf else f"{value:g}" for value in values]
        part.set_xticks(range(len(values)), ticks)
        part.set(
            xlabel=drawn(key.replace("_", " ")), ylim=(0, None), xlim=(-0.3, len(values) - 0.7)
        )
        as_percent(part.yaxis)
        part.grid(axis="y")
        if column == 0:
            part.set_ylabel(f"{panel.score}, %")
    for name in called:
        axes.plot([], [], label=called[name], **style(name).plot)
    if floor and called:
        axes.plot([], [], **FLOOR)
    legend(fig)
    return fig


def swept_settings(panel: Panel) -> dict[str, dict[str, dict[float, str]]]:
    """By setting and method the labels by ascending value, where no limit (none) is infinite."""
    swept: dict[str, dict[str, dict[float, str]]] = {}
    for name in dict.fromkeys(panel.runs["name"]):
        changed = {key for own in variants(panel, name).values() if len(own) == 1 for key in own}
        for key in sorted(changed - {"curve_tests"}):
            labels = sweep(panel, name, key)
            if not any(isinstance(value, str | bool | tuple) for value in labels):
                known = {inf if value is None else value: label for value, label in labels.items()}
                swept.setdefault(key, {})[name] = dict(sorted(known.items()))
    return swept
