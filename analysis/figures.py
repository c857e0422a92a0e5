"""The figures of a panel: the analogue of the paper's Figure 4 (a) (b) (c), and the matrices R.

A figure is a function of a panel under the name that `exhibits.FIGURES` lists.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable
from math import inf, isnan
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from analysis.lettering import drawn, use_fallbacks, width
from analysis.metrics import running_accuracy
from analysis.records import task_groups, task_names
from analysis.runs import Panel
from analysis.style import Style, group_styles, styles
from analysis.table import percent, plain
from analysis.trees import ranks
from analysis.variants import sweep, variants

GREY = "#595959"
# No dates, so that the same records give the same bytes.
METADATA = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
}
matplotlib.rc_file(Path(__file__).with_suffix(".mplstyle"))
use_fallbacks()


def _new(
    title: str, panel: Panel, size: tuple, left: float, right: float = 0.15, of: str = ""
) -> tuple:
    """A figure and its axes; size and margins in inches, as a computed layout costs seconds.

    The title stands on top. The foot states the suite's label, which runs are drawn (`of`, else
    the panel's), and which methods are not.
    """
    foot = f"{panel.suite.label}. {panel.stream}, {panel.backbone}; {of or _seeds(panel)}."
    absent = [
        f"{label} ({runs['status'].iloc[0]})"
        for label, runs in panel.methods.items()
        if label not in panel.finished
    ]
    if absent:
        foot += f" Not drawn: {', '.join(absent)}."
    if not of and (left_out := len(panel.finished) - len(panel.drawn)):
        foot += f" {left_out} variants of these methods are in the table of ablations."
    foot += "".join(f" {label}: {why}." for label, why in panel.outdated.items())
    foot = drawn(foot, 1000)
    lines = textwrap.wrap(foot, int(size[0] * 18 * len(foot) / width(foot)))
    wide, high = size[0], size[1] + 0.14 * len(lines)
    bottom, top = 0.55 + 0.14 * len(lines), 0.4
    figure = Figure((wide, high), dpi=150)
    FigureCanvasAgg(figure)
    title = {"s": drawn(title, 80), "fontsize": 10, "fontweight": "bold"}
    figure.text(0.08 / wide, 1 - 0.1 / high, va="top", **title)
    figure.text(0.08 / wide, 0.06 / high, "\n".join(lines), va="bottom", fontsize=7, c=GREY)
    inner = (wide - left - right) / wide, (high - bottom - top) / high
    return figure, figure.add_axes((left / wide, bottom / high, *inner))


def _seeds(panel: Panel) -> str:
    """Over what the means are."""
    seeds = {len(runs) for runs in panel.finished.values()}
    count = "–".join(map(str, sorted({min(seeds), max(seeds)}))) if seeds else "no"
    return "one seed" if count == "1" else f"mean ± sd over {count} seeds"


def _widest(labels: Iterable[str]) -> float:
    """Inches that the longest name needs."""
    return 0.085 * max((width(drawn(label)) for label in labels), default=0)


def _say(axes, text: str) -> None:
    """Why there is nothing to draw."""
    axes.set_axis_off()
    axes.text(0, 0.5, text, fontsize=9)


def _as_percent(axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))


def _styles(panel: Panel) -> dict[str, Style]:
    return styles(panel.suite.runs["method"])


def fig4a(panel: Panel) -> Figure:
    """The mean score over the tasks seen so far, after each task."""
    title = f"{panel.stream}: {panel.score} after each task"
    figure, axes = _new(title, panel, (6.2, 3.6), 0.6, _widest(panel.drawn) + 0.6)
    for label, runs in panel.drawn.items():
        colour, marker = _styles(panel)[label]
        if panel.is_upper_bound(label):
            height = panel.estimates[label]["acc"].mean
            axes.axhline(height, color=colour, linestyle="--", linewidth=1.3, label=drawn(label))
            continue
        curves = np.array([running_accuracy(R) for R in runs["R"]])
        x, mean = np.arange(1, curves.shape[1] + 1), curves.mean(axis=0)
        if len(runs) > 1:
            sd = curves.std(axis=0, ddof=1)
            axes.fill_between(x, mean - sd, mean + sd, color=colour, alpha=0.15, linewidth=0)
        size = 9 if marker == "*" else 5
        look = {"color": colour, "marker": marker, "markersize": size, "linewidth": 1.5}
        axes.plot(x, mean, label=drawn(label), **look)
    axes.set(xlabel="tasks learnt", ylabel="mean score of the tasks seen, %")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _as_percent(axes.yaxis)
    axes.grid(axis="y")
    if panel.drawn:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def fig4b(panel: Panel) -> Figure:
    """TIME of the whole stream: optimisation steps, and consolidation hatched."""
    labels = list(panel.drawn)
    title, height = f"{panel.stream}: training time of the whole stream", 1.0 + 0.3 * len(labels)
    figure, axes = _new(title, panel, (6.2, max(height, 2)), _widest(labels) + 0.2)
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
    axes.set_yticks(range(len(labels)), map(drawn, labels))
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
    for label in panel.drawn:
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
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))  # all nine would overlap
        axes.xaxis.set_minor_formatter(axes.xaxis.get_major_formatter())
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
        look = {"color": colours[label], "va": "center", "fontweight": "bold"}
        text = axes.annotate(drawn(label), point, **look)
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
    means = {label: np.mean(list(runs["R"]), axis=0) for label, runs in panel.drawn.items()}
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
        name = f"{drawn(label)}  {percent(R[-1].mean())}"
        axes.text(x, y - 0.04 * size, name, fontsize=min(8, 200 / width(name)))
    axes.set(xlim=(0, step * columns - 0.25 * size), ylim=(step * rows - 0.2 * size, -0.2 * size))
    axes.set(xticks=(), yticks=(), xlabel="task tested →", ylabel="← after task")
    axes.spines[:].set_visible(False)
    if means:
        bar = figure.colorbar(image, cax=axes.inset_axes((1.03, 0.1, 0.02, 0.8)))
        bar.set_label(f"score, % (number: {panel.score})")
        _as_percent(bar.ax.yaxis)
    return figure


def sensitivity(panel: Panel) -> Figure:
    """The final score against every numeric setting that was varied alone (Tables 2, 4 and 6)."""
    swept = _swept(panel)
    title = f"{panel.stream}: {panel.score} against one setting at a time"
    columns, rows = min(3, max(len(swept), 1)), max(-(-len(swept) // 3), 1)
    size = (7.4, 0.5 + 2.4 * rows)
    figure, axes = _new(title, panel, size, 0.6, of=_seeds(panel))
    axes.set_axis_off()
    if not swept:
        _say(axes, "No run differs from its base in a numeric setting alone.")
    looks = styles(panel.suite.runs["name"])
    for index, (key, methods) in enumerate(swept.items()):
        row, column = divmod(index, columns)
        box = (column / columns, 1 - (row + 0.78) / rows, 0.82 / columns, 0.78 / rows)
        part = axes.inset_axes(box)
        values = sorted({value for labels in methods.values() for value in labels})
        for name, labels in methods.items():
            scores = [panel.estimates[label]["acc"] for label in labels.values()]
            means, spreads = zip(*[(e.mean, np.nan_to_num(e.sd)) for e in scores], strict=True)
            colour, marker = looks[name]
            look = {"color": colour, "marker": marker, "capsize": 2, "linewidth": 1.3}
            part.errorbar(
                [values.index(v) for v in labels], means, spreads, label=drawn(name), **look
            )
        names = ["no limit" if value == inf else f"{value:g}" for value in values]
        part.set_xticks(range(len(values)), names, fontsize=8)
        part.set(
            xlabel=drawn(key.replace("_", " ")), ylim=(0, None), xlim=(-0.3, len(values) - 0.7)
        )
        _as_percent(part.yaxis)
        part.grid(axis="y")
        part.legend(fontsize=7, loc="lower left")
        if column == 0:
            part.set_ylabel(f"{panel.score}, %")
    return figure


def _swept(panel: Panel) -> dict[str, dict[str, dict[float, str]]]:
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


def fig1(panel: Panel) -> Figure:
    """The score on a new task while it is learnt, mean over all tasks but the first (Figure 1)."""
    curves = {label: _learning_curves(runs) for label, runs in panel.finished.items()}
    curves = {label: curve for label, curve in curves.items() if len(curve)}
    title = f"{panel.stream}: score on a new task while it is learnt"
    figure, axes = _new(title, panel, (6.2, 3.4), 0.6, _widest(curves) + 0.6, _seeds(panel))
    if not curves:
        _say(axes, "No finished run was tested while it learnt.")
        return figure
    for label, curve in curves.items():
        base = panel.finished[label]["name"].iloc[0]
        # A variant that is only tested more often looks like its method.
        colour, marker = styles([base])[base]
        x, mean, sd = curve.index, curve.mean(axis=1), curve.std(axis=1)
        axes.fill_between(x, mean - sd, mean + sd, color=colour, alpha=0.15, linewidth=0)
        look = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.4}
        axes.plot(x, mean, label=drawn(label), **look)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set(xlabel="training samples of the new task seen", ylabel="score, %")
    axes.set_ylim(bottom=0)
    _as_percent(axes.yaxis)
    axes.grid(axis="y")
    return figure


def _learning_curves(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean score over all tasks but the first by samples seen, a column per seed.

    Only where every task and seed was tested; empty if none was.
    """
    curves = {}
    for run in runs.itertuples():
        points = run.record.get("test_curve") or []
        points = pd.DataFrame(points, columns=["task", "samples", "score"]).query("task > 0")
        by_task = points.pivot(index="samples", columns="task", values="score").dropna()
        curves[run.seed] = by_task.mean(axis=1)
    return pd.DataFrame(curves).dropna()


def trees(panel: Panel) -> Figure:
    """The tree after the last task, and below it after each task before (Figures 5 and 8)."""
    runs = [r for r in panel.done["record"] if (r.get("diagnostics") or {}).get("trees")]
    named = [r for r in runs if r["spec"]["method"]["label"] == "treelora"]
    record = next(iter(named or runs), None)
    spec = record["spec"] if record else panel.spec
    of = f"one run, {spec['method']['label']}, seed {spec['seed']}" if record else "no run"
    figure, axes = _new(f"{panel.stream}: the tree of tasks", panel, (7.4, 4.8), 0.15, of=of)
    axes.set_axis_off()
    if not record:
        _say(axes, "No finished run has a tree.")
        return figure
    grown = record["diagnostics"]["trees"]
    names, groups = task_names(record), task_groups(record)
    looks = group_styles(groups)
    large = axes.inset_axes((0, 0.42, 0.84, 0.58))
    _draw_tree(large, grown[-1], groups, looks, names)
    for group in sorted(set(groups) - {""}):
        colour, marker = looks[group]
        axes.plot([], [], c=colour, marker=marker, ls="", ms=8, label=drawn(group))
    if any(groups):
        axes.legend(loc="upper right", title="planted group", fontsize=7, title_fontsize=7)
    for index, tree in enumerate(grown[1:-1]):
        width = 1 / max(len(grown) - 2, 1)
        small = axes.inset_axes((index * width, 0, width * 0.86, 0.17))
        _draw_tree(small, tree, groups, looks)
        small.set_title(f"after {index + 2}", fontsize=7)
    return figure


def _draw_tree(axes, tree: dict, groups: list, looks: dict, names: list | None = None) -> None:
    """Leaves side by side, each where its branch ends, marked by their tasks' groups."""
    order: list[int] = []
    deepest = len(list(ranks(tree))) - 1

    def place(node: dict, depth: int) -> float:
        if node["children"]:
            xs = [place(child, depth + 1) for child in node["children"]]
            x = sum(xs) / len(xs)
            for below in xs:
                axes.plot([x, below, below], [-depth, -depth, -depth - 1], c=GREY, lw=0.9, zorder=1)
            return x
        first = len(order)
        for task in node["tasks"]:
            colour, marker = looks[groups[task]]
            axes.plot(len(order), -depth, c=colour, marker=marker, ms=8 if names else 4, zorder=2)
            if names:
                axes.plot([len(order)] * 2, [-depth, -deepest], c=colour, lw=0.6, ls=":", zorder=1)
                spot = {"xytext": (3, -7), "textcoords": "offset points", "rotation": 35}
                text = {"ha": "right", "va": "top", "fontsize": 7, "color": colour}
                axes.annotate(
                    f"{task + 1} {drawn(names[task], 24)}", (len(order), -deepest), **spot, **text
                )
            order.append(task)
        ends = [first, len(order) - 1]
        if ends[0] < ends[1]:  # tasks whose adapters were merged
            axes.plot(ends, [-depth] * 2, c=GREY, lw=4 if names else 2, alpha=0.4, zorder=1)
        return sum(ends) / 2

    place(tree, 0)
    axes.set(xlim=(-1.2 if names else -0.7, max(len(order), 2) - 0.3), ylim=(-deepest - 0.4, 0.4))
    axes.set_axis_off()


def render(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of a `pdf` or `svg` file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=METADATA[kind])
    return buffer.getvalue()
