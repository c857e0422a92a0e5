"""The figures of a panel: the analogue of the paper's Figure 4 (a) (b) (c), and the matrices R.

A figure is a function of a panel under the name that `exhibits.FIGURES` lists.
"""

from __future__ import annotations

import io
import textwrap
from math import isnan
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.metrics import running_accuracy
from analysis.runs import Panel
from analysis.style import Style, styles
from analysis.table import percent, plain

GREY = "#595959"
# No dates, so that the same records give the same bytes.
METADATA = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
}
matplotlib.rc_file(Path(__file__).with_suffix(".mplstyle"))


def _new(title: str, panel: Panel, size: tuple, left: float, right: float = 0.15) -> tuple:
    """A figure and its axes; size and margins in inches, as a computed layout costs seconds.

    The title stands on top. The foot states the suite's label and which methods are not drawn.
    """
    seeds = {len(runs) for runs in panel.finished.values()}
    count = "–".join(map(str, sorted({min(seeds), max(seeds)}))) if seeds else "no"
    spread = "one seed" if count == "1" else f"mean ± sd over {count} seeds"
    foot = f"{panel.suite.label}. {panel.stream}, {panel.backbone}; {spread}."
    absent = [
        f"{label} ({runs['status'].iloc[0]})"
        for label, runs in panel.methods.items()
        if label not in panel.finished
    ]
    if absent:
        foot += f" Not drawn: {', '.join(absent)}."
    lines = textwrap.wrap(foot, int(size[0] * 18))
    width, height = size[0], size[1] + 0.14 * len(lines)
    bottom, top = 0.55 + 0.14 * len(lines), 0.4
    figure = Figure((width, height), dpi=150)
    FigureCanvasAgg(figure)
    figure.text(0.08 / width, 1 - 0.1 / height, title, va="top", fontsize=10, fontweight="bold")
    figure.text(0.08 / width, 0.06 / height, "\n".join(lines), va="bottom", fontsize=7, c=GREY)
    inner = (width - left - right) / width, (height - bottom - top) / height
    return figure, figure.add_axes((left / width, bottom / height, *inner))


def _widest(panel: Panel) -> float:
    """Inches that the longest method name needs."""
    return 0.085 * max(map(len, panel.methods))


def _as_percent(axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))


def _styles(panel: Panel) -> dict[str, Style]:
    return styles(panel.suite.runs["method"])


def fig4a(panel: Panel) -> Figure:
    """The mean score over the tasks seen so far, after each task."""
    title = f"{panel.stream}: {panel.score} after each task"
    figure, axes = _new(title, panel, (6.2, 3.6), 0.6, _widest(panel) + 0.6)
    for label, runs in panel.finished.items():
        colour, marker = _styles(panel)[label]
        if panel.is_upper_bound(label):
            height = panel.estimates[label]["acc"].mean
            axes.axhline(height, color=colour, linestyle="--", linewidth=1.3, label=label)
            continue
        curves = np.array([running_accuracy(R) for R in runs["R"]])
        x, mean = np.arange(1, curves.shape[1] + 1), curves.mean(axis=0)
        if len(runs) > 1:
            sd = curves.std(axis=0, ddof=1)
            axes.fill_between(x, mean - sd, mean + sd, color=colour, alpha=0.15, linewidth=0)
        size = 9 if marker == "*" else 5
        axes.plot(x, mean, color=colour, marker=marker, markersize=size, linewidth=1.5, label=label)
    axes.set(xlabel="tasks learnt", ylabel="mean score of the tasks seen, %")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _as_percent(axes.yaxis)
    axes.grid(axis="y")
    if panel.finished:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def fig4b(panel: Panel) -> Figure:
    """TIME of the whole stream: optimisation steps, and consolidation hatched."""
    labels = list(panel.finished)
    title, height = f"{panel.stream}: training time of the whole stream", 1.0 + 0.3 * len(labels)
    figure, axes = _new(title, panel, (6.2, max(height, 2)), _widest(panel) + 0.2)
    for y, label in enumerate(labels):
        values = panel.estimates[label]
        train, rest, total = (
            values[key] for key in ("train_seconds", "consolidate_seconds", "time_seconds")
        )
        if isnan(total.mean):
            continue
        colour, sd = _styles(panel)[label].colour, np.nan_to_num(total.sd)
        axes.barh(y, train.mean, 0.66, color=colour)
        axes.barh(
            y, rest.mean, 0.66, left=train.mean, color="white", edgecolor=colour, hatch="////"
        )
        axes.errorbar(total.mean, y, xerr=sd, color="black", capsize=3, linewidth=1)
        axes.annotate(
            plain(total.mean),
            (total.mean + sd, y),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_xlabel("TIME, s (solid: optimisation steps; hatched: consolidation)")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    return figure


def fig4c(panel: Panel) -> Figure:
    """The final score against the speed; the best place is the upper right corner."""
    title = f"{panel.stream}: {panel.score} against speed"
    figure, axes = _new(title, panel, (6.2, 3.6), 0.6)
    looks, points, spreads = _styles(panel), {}, {}
    for label in panel.finished:
        speed, score = (panel.estimates[label][key] for key in ("samples_per_second", "acc"))
        if isnan(speed.mean):
            continue
        colour, marker = looks[label]
        points[label] = (speed.mean, score.mean)
        spreads[label] = np.nan_to_num((speed.sd, score.sd))
        axes.errorbar(
            *points[label],
            *spreads[label][::-1],
            color=colour,
            marker=marker,
            markersize=12 if marker == "*" else 7,
            capsize=2,
            linewidth=1,
            markerfacecolor="white" if panel.is_upper_bound(label) else colour,
        )
    speeds = [speed for speed, _ in points.values()]
    if speeds and max(speeds) > 8 * min(speeds):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.margins(0.16)
    axes.set(xlabel="training samples per second of TIME", ylabel=f"{panel.score}, %")
    _as_percent(axes.yaxis)
    axes.grid()
    colours = {label: looks[label].colour for label in points}
    _place_labels(figure, axes, points, spreads, colours)
    return figure


def _place_labels(figure: Figure, axes, points: dict, spreads: dict, colours: dict) -> None:
    """Names every point at the nearest of some places where it covers no mark and no label."""
    axes.autoscale_view()
    renderer, unit = figure.canvas.get_renderer(), figure.dpi / 72
    frame, to_data = axes.get_window_extent(renderer).extents, axes.transData.inverted()
    at = {label: axes.transData.transform(point) for label, point in points.items()}
    taken = [(x - 6 * unit, y - 6 * unit, x + 6 * unit, y + 6 * unit) for x, y in at.values()]
    for label, (x, y) in at.items():  # and the whiskers
        left, low = axes.transData.transform(np.subtract(points[label], spreads[label]))
        right, high = axes.transData.transform(np.add(points[label], spreads[label]))
        taken += [(left, y - 2, right, y + 2), (x - 2, low, x + 2, high)]
    for label, point in sorted(points.items(), key=lambda item: item[1][::-1]):
        text = axes.annotate(label, point, color=colours[label], va="center", fontweight="bold")
        size = text.get_window_extent(renderer)
        places = []
        for radius in (10, 16, 24, 34, 46):
            for angle in np.radians(range(0, 360, 30)):
                left = at[label][0] + radius * unit * np.cos(angle)
                left += (np.cos(angle) - 1) / 2 * size.width
                low = at[label][1] + radius * unit * np.sin(angle) - size.height / 2
                box = (left, low, left + size.width, low + size.height)
                outside = size.width * size.height - _overlap(box, frame)
                cost = sum(_overlap(box, other) for other in taken) + 4 * outside
                places.append((round(cost, 6), radius, box))
        _, radius, box = min(places, key=lambda place: place[0])
        taken.append(box)
        text.set_position(to_data.transform((box[0], (box[1] + box[3]) / 2)))
        if radius > 16:
            near = np.clip(at[label], box[:2], box[2:])
            ends = to_data.transform([at[label], near])
            axes.plot(*ends.T, color=colours[label], linewidth=0.6, zorder=1)


def _overlap(a: tuple, b: tuple) -> float:
    """The area that two boxes (left, low, right, high) share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def matrix(panel: Panel) -> Figure:
    """The mean matrix R of every method: a row per task learnt, a column per task tested."""
    means = {label: np.mean(list(runs["R"]), axis=0) for label, runs in panel.finished.items()}
    count, size = max(len(means), 1), max(map(len, means.values()), default=1)
    columns = min(4, count)
    rows, step = -(-count // columns), 1.25 * size
    colours = matplotlib.colormaps["viridis"].with_extremes(bad="#EDEDED")
    title = f"{panel.stream}: score on every task after every task, mean R"
    figure, axes = _new(title, panel, (1.75 * columns + 1.1, 1.75 * rows + 0.95), 0.4, 0.9)
    for index, (label, R) in enumerate(means.items()):
        x, y = step * (index % columns), step * (index // columns)
        box = (x, x + len(R), y + len(R), y)
        image = axes.imshow(R, cmap=colours, vmin=0, vmax=1, extent=box)
        name = f"{label}  {percent(R[-1].mean())}"
        axes.text(x, y - 0.04 * size, name, fontsize=min(8, 200 / len(name)))
    axes.set(xlim=(0, step * columns - 0.25 * size), ylim=(step * rows - 0.2 * size, -0.2 * size))
    axes.set(xticks=(), yticks=(), xlabel="task tested →", ylabel="← after task")
    axes.spines[:].set_visible(False)
    if means:
        bar = figure.colorbar(image, cax=axes.inset_axes((1.03, 0.1, 0.02, 0.8)))
        bar.set_label(f"score, % (number: {panel.score})")
        _as_percent(bar.ax.yaxis)
    return figure


def render(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of a `pdf` or `svg` file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=METADATA[kind])
    return buffer.getvalue()
