"""The matrices R of all methods side by side."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from analysis.catalogue import figure
from analysis.figures.canvas import FLOOR, LETTER, TWO, as_percent, canvas, names, says
from analysis.figures.lettering import width
from analysis.records.language import floor_curve
from analysis.records.runs import Panel
from analysis.tables.table import percent

COLUMNS = 5


@figure(
    "R, the score on every task after every task; rows are tasks learnt, numbers mean final "
    "scores. Grey was not measured; the floor is what outputs without any model score."
)
def matrix(panel: Panel) -> Figure:
    """The mean matrix R of every method: a row per task learnt, a column per task tested."""
    called, floor = names(panel, panel.drawn), floor_curve(panel)
    shown = {called[x]: np.mean(list(runs["R"]), axis=0) for x, runs in panel.drawn.items()}
    if floor is not None:
        shown[FLOOR["label"]] = floor[None]
    size = max((R.shape[1] for R in shown.values()), default=1)
    rows, right, down = -(-max(len(shown), 1) // COLUMNS), 1.18 * size, 1.3 * size
    wide, high = right * COLUMNS - 0.18 * size, down * rows - 0.13 * size
    inch = (TWO - 0.75) / wide
    fig, axes = canvas(inch * high, 0.2, says=says(panel), wide=TWO, right=0.55, bottom=0.2)
    colours = matplotlib.colormaps["viridis"].with_extremes(bad="#D0D0D0")
    for index, (name, R) in enumerate(shown.items()):
        x, y = right * (index % COLUMNS), down * (index // COLUMNS)
        axes.imshow(R, cmap=colours, vmin=0, vmax=1, extent=(x, x + R.shape[1], y + len(R), y))
        name = f"{name}\u00a0\u00a0{percent(R[-1].mean())}"
        small = 6.5 * size * inch / LETTER / width(name)
        axes.text(x, y - 0.03 * size, name, fontsize=min(6.5, small))
    axes.set(xlim=(0, wide), ylim=(high - 0.15 * size, -0.15 * size))
    axes.set(xticks=(), yticks=(), xlabel="task tested →", ylabel="← after task")
    axes.spines[:].set_visible(False)
    if shown:
        bar = axes.inset_axes((1.02, 0.1, 0.015, 0.8))
        bar.imshow(np.c_[1:0:256j], cmap=colours, extent=(0, 1, 0, 1), aspect="auto")
        bar.spines[:].set_visible(True)
        bar.set(xticks=(), ylabel="score, %")
        bar.yaxis.set_label_position("right")
        bar.yaxis.tick_right()
        as_percent(bar.yaxis)
    return fig
