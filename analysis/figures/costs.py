"""Training time of methods, alone and against their score."""

from __future__ import annotations

from math import isnan

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from analysis.catalogue import figure
from analysis.figures.canvas import (
    FLOOR,
    GREY,
    LETTER,
    as_percent,
    canvas,
    legend,
    looks,
    names,
    says,
)
from analysis.figures.lettering import width
from analysis.records.language import mean_floor
from analysis.records.runs import Panel
from analysis.tables.setting import partly_timed
from analysis.tables.table import plain


@figure(
    "Seconds of learning for the whole stream (Figures 4b, 6b and 7b): optimisation steps solid, "
    "consolidation hatched; the whisker is one sample standard deviation of the sum. What was "
    "timed on another device or with other threads has no bar."
)
def fig4b(panel: Panel) -> Figure:
    """TIME of the whole stream: optimisation steps, and consolidation hatched."""
    called = names(panel, [label for label in panel.drawn if not panel.is_untrained(label)])
    methods, bars = looks(panel), []
    left = LETTER * max(map(width, called.values()), default=1) + 0.16
    fig, axes = canvas(
        max(0.3 + 0.14 * len(called), 0.8), left, says=says(panel, notes=partly_timed(panel))
    )
    for y, label in enumerate(called):
        values = panel.estimates[label]
        train, rest, total = (
            values[key] for key in ("train_seconds", "consolidate_seconds", "time_seconds")
        )
        if isnan(total.mean):
            continue
        at, text, colour = total.mean + np.nan_to_num(total.sd), plain(total.mean), "black"
        if label in panel.elsewhere:
            at, text, colour = 0, f"{text} ({panel.elsewhere[label]})", GREY
        else:
            bars.append((y, train.mean, rest.mean, at - total.mean, methods[label].colour))
        spot = {"xytext": (3, 0), "textcoords": "offset points", "va": "center", "fontsize": 6.5}
        axes.annotate(text, (at, y), color=colour, **spot)
    if bars:
        ys, train, rest, sd, colours = zip(*bars, strict=True)
        axes.barh(ys, train, 0.66, color=colours)
        own = {"color": "white", "edgecolor": colours, "hatch": "//////"}
        axes.barh(ys, rest, 0.66, left=train, **own)
        axes.errorbar(np.add(train, rest), ys, xerr=sd, fmt="none", ecolor="black", elinewidth=0.7)
    axes.set_yticks(range(len(called)), called.values())
    axes.set_ylim(len(called) - 0.4, -0.6)
    axes.margins(x=0.15)
    axes.set_xlim(left=0)
    axes.set_xlabel("TIME, s (hatched: consolidation)")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    return fig


@figure(
    "Final score against speed (Figures 4c, 6c and 7c): the upper right corner is best. The floor "
    "is what outputs without any model score. What was timed on another device or with other "
    "threads is not drawn, and what does not train is a level."
)
def fig4c(panel: Panel) -> Figure:
    """The final score against the speed; the best place is the upper right corner."""
    methods, floor, points, levels = looks(panel), mean_floor(panel), {}, []
    for label in panel.drawn:
        speed, score = (panel.estimates[label][key] for key in ("samples_per_second", "acc"))
        if panel.is_untrained(label):
            levels.append((label, score.mean))
        elif not isnan(speed.mean) and label not in panel.elsewhere:
            points[label] = speed, score
    called = names(panel, [*points, *(label for label, _ in levels)])
    listed = [*called.values(), *([FLOOR["label"]] if floor else [])]
    fig, axes = canvas(
        1.75, 0.38, listed, says(panel, notes=_elsewhere(panel) + partly_timed(panel))
    )
    for label, (speed, score) in points.items():
        look = methods[label]._replace(line="")
        if label in panel.upper_bounds:
            look = look._replace(fill="none")
        size = 9 if look.marker == "*" else 5
        axes.plot(speed.mean, score.mean, label=called[label], markersize=size, **look.plot)
    if floor:
        axes.axhline(floor.mean, **FLOOR)
    if points:
        spread = [(v.mean, s.mean, *np.nan_to_num([v.sd, s.sd])) for v, s in points.values()]
        colours = [methods[label].colour for label in points]
        _whiskers(axes, *map(np.array, zip(*spread, strict=True)), colours)
    speeds = [speed.mean for speed, _ in points.values()]
    if points and max(speeds) > 8 * min(speeds):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))  # all nine would overlap
        axes.xaxis.set_minor_formatter(axes.xaxis.get_major_formatter())
    axes.margins(0.12)
    axes.autoscale_view()
    for label, level in levels:
        axes.axhline(level, label=called[label], color=methods[label].colour, linestyle="--")
    axes.set(xlabel="training samples per second of TIME", ylabel=f"{panel.score}, %")
    as_percent(axes.yaxis)
    axes.grid()
    legend(fig)
    return fig


def _elsewhere(panel: Panel) -> list[str]:
    """Which methods' TIME does not compare with the reference's."""
    found = [panel.titles[label] for label in panel.drawn if label in panel.elsewhere]
    why = f"TIME does not compare with that of {panel.titles.get(panel.reference, 'others')}"
    return [f"{why}: {', '.join(found)}."] if found else []


def _whiskers(axes, x, y, wide, high, colours) -> None:
    """Error bars with caps, all at once, below the points: `errorbar` takes one colour."""
    look = {"linewidths": 0.7, "zorder": 1.9}
    axes.hlines(y, x - wide, x + wide, colours, **look)
    axes.vlines(x, y - high, y + high, colours, **look)
    ends = {"s": 7, "c": np.tile(colours, 2), **look}  # square points
    axes.scatter(np.concatenate([x - wide, x + wide]), np.tile(y, 2), marker="|", **ends)
    axes.scatter(np.tile(x, 2), np.concatenate([y - high, y + high]), marker="_", **ends)
