"""Training time of methods, alone and against their score."""

from __future__ import annotations

from math import isnan

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from analysis.catalogue import figure
from analysis.figures.canvas import as_percent, canvas, legend, looks, widest
from analysis.figures.lettering import drawn
from analysis.records.runs import Panel
from analysis.tables.table import plain


@figure(
    "Seconds of learning for the whole stream (Figure 4b): optimisation steps solid, consolidation "
    "hatched; the whisker is one sample standard deviation of the sum."
)
def fig4b(panel: Panel) -> Figure:
    """TIME of the whole stream: optimisation steps, and consolidation hatched."""
    labels, methods, bars = list(panel.drawn), looks(panel), []
    title, height = f"{panel.stream}: training time of the whole stream", 1.0 + 0.3 * len(labels)
    fig, axes = canvas(title, panel, (6.2, max(height, 2)), widest(panel, labels) + 0.2)
    for y, label in enumerate(labels):
        values = panel.estimates[label]
        train, rest, total = (
            values[key] for key in ("train_seconds", "consolidate_seconds", "time_seconds")
        )
        if isnan(total.mean):
            continue
        sd = np.nan_to_num(total.sd)
        bars.append((y, train.mean, rest.mean, total.mean, sd, methods[label].colour))
        spot = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(plain(total.mean), (total.mean + sd, y), **spot)
    if bars:
        ys, train, rest, total, sd, colours = zip(*bars, strict=True)
        axes.barh(ys, train, 0.66, color=colours)
        own = {"color": "white", "edgecolor": colours, "hatch": "////"}
        axes.barh(ys, rest, 0.66, left=train, **own)
        axes.errorbar(total, ys, xerr=sd, fmt="none", ecolor="black", elinewidth=1, capsize=3)
    axes.set_yticks(range(len(labels)), [drawn(panel.titles[label]) for label in labels])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_xlabel("TIME, s (solid: optimisation steps; hatched: consolidation)")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    return fig


@figure("Final score against speed (Figure 4c): the upper right corner is best.")
def fig4c(panel: Panel) -> Figure:
    """The final score against the speed; the best place is the upper right corner."""
    title = f"{panel.stream}: {panel.score} against speed"
    fig, axes = canvas(title, panel, (6.2, 3.6), 0.6, widest(panel, panel.drawn) + 0.6)
    points, methods = [], looks(panel)
    for label in panel.drawn:
        speed, score = (panel.estimates[label][key] for key in ("samples_per_second", "acc"))
        if isnan(speed.mean):
            continue
        look, name = methods[label], drawn(panel.titles[label])
        if panel.is_upper_bound(label):
            look = look._replace(fill="none")
        size = 12 if look.marker == "*" else 7
        axes.plot(
            speed.mean, score.mean, label=name, markersize=size, **look._replace(line="").plot
        )
        sds = np.nan_to_num([speed.sd, score.sd])
        points.append((speed.mean, score.mean, *sds, look.colour))
    if points:
        _whiskers(axes, *map(np.array, zip(*points, strict=True)))
    speeds = [speed for speed, *_ in points]
    if points and max(speeds) > 8 * min(speeds):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))  # all nine would overlap
        axes.xaxis.set_minor_formatter(axes.xaxis.get_major_formatter())
    axes.margins(0.16)
    axes.set(xlabel="training samples per second of TIME", ylabel=f"{panel.score}, %")
    as_percent(axes.yaxis)
    axes.grid()
    if points:
        legend(axes)
    return fig


def _whiskers(axes, x, y, wide, high, colours) -> None:
    """Error bars with caps, all at once, below the points: `errorbar` takes one colour."""
    look = {"linewidths": 1, "zorder": 1.9}
    axes.hlines(y, x - wide, x + wide, colours, **look)
    axes.vlines(x, y - high, y + high, colours, **look)
    ends = {"s": 16, "c": np.tile(colours, 2), **look}  # square points
    axes.scatter(np.concatenate([x - wide, x + wide]), np.tile(y, 2), marker="|", **ends)
    axes.scatter(np.tile(x, 2), np.concatenate([y - high, y + high]), marker="_", **ends)
