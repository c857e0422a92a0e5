"""The matrices R of all methods side by side."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from analysis.catalogue import figure
from analysis.figures.canvas import as_percent, canvas
from analysis.figures.lettering import drawn, width
from analysis.records.runs import Panel
from analysis.tables.table import percent


@figure(
    "R, the score on every task after every task; rows are tasks learnt. Grey was not measured."
)
def matrix(panel: Panel) -> Figure:
    """The mean matrix R of every method: a row per task learnt, a column per task tested."""
    means = {label: np.mean(list(runs["R"]), axis=0) for label, runs in panel.drawn.items()}
    count, size = max(len(means), 1), max(map(len, means.values()), default=1)
    columns = min(4, count)
    rows, step = -(-count // columns), 1.25 * size
    colours = matplotlib.colormaps["viridis"].with_extremes(bad="#EDEDED")
    title = f"{panel.stream}: score on every task after every task, mean R"
    fig, axes = canvas(title, panel, (1.75 * columns + 1.1, 1.75 * rows + 0.95), 0.4, 0.9)
    for index, (label, R) in enumerate(means.items()):
        x, y = step * (index % columns), step * (index // columns)
        box = (x, x + len(R), y + len(R), y)
        axes.imshow(R, cmap=colours, vmin=0, vmax=1, extent=box)
        name = f"{drawn(panel.titles[label])}  {percent(R[-1].mean())}"
        axes.text(x, y - 0.04 * size, name, fontsize=min(8, 200 / width(name)))
    axes.set(xlim=(0, step * columns - 0.25 * size), ylim=(step * rows - 0.2 * size, -0.2 * size))
    axes.set(xticks=(), yticks=(), xlabel="task tested →", ylabel="← after task")
    axes.spines[:].set_visible(False)
    if means:
        bar = axes.inset_axes((1.03, 0.1, 0.02, 0.8))
        bar.imshow(np.c_[1:0:256j], cmap=colours, extent=(0, 1, 0, 1), aspect="auto")
        bar.spines[:].set_visible(True)
        bar.set(xticks=(), ylabel=f"score, % (number: {panel.score})")
        bar.yaxis.set_label_position("right")
        bar.yaxis.tick_right()
        as_percent(bar.yaxis)
    return fig
