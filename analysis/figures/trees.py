"""The trees over tasks, and how one grew."""

from __future__ import annotations

from math import nan

from matplotlib.figure import Figure

from analysis.catalogue import figure, is_result
from analysis.figures.canvas import GREY, TWO, canvas, legend, say, says
from analysis.figures.lettering import drawn
from analysis.figures.style import group_styles
from analysis.records.runs import Panel
from analysis.records.schema import task_groups, task_names
from analysis.records.trees import ranks

TREE, NAMES, GROWTH = 1.0, 0.72, 0.75  # inches of a tree, of its names, of the trees before


@figure(
    "The trees after the last task and, of the first seed, after each task before (as Figures 5 "
    "and 8). Numbers are places in the stream, colours and marks the planted groups. A bar joins "
    "tasks whose adapters were merged.",
    need=lambda spec: is_result(spec) and spec["method"]["name"] in ("treelora", "hidetreelora"),
)
def trees(panel: Panel) -> Figure:
    """The last tree of every seed of TreeLoRA, and below how the first grew (Figures 5 and 8)."""
    runs = [r for r in panel.done["record"] if (r.get("diagnostics") or {}).get("trees")]
    labels = dict.fromkeys(r["spec"]["method"]["label"] for r in runs)
    label = "treelora" if "treelora" in labels else next(iter(labels), "")
    runs = [r for r in runs if r["spec"]["method"]["label"] == label]
    of = f"{panel.titles[label]}, a tree for each seed" if runs else "no run"
    found = sorted({group for record in runs for group in task_groups(record)} - {""})
    columns = min(3, max(len(runs), 1))
    high = -(-len(runs) // columns) * (TREE + NAMES) + GROWTH if runs else 1
    fig, axes = canvas(high, 0.15, map(drawn, found), says(panel, of), wide=TWO, bottom=0.02)
    axes.set_axis_off()
    if not runs:
        say(axes, "No finished run has a tree.")
        return fig
    looks = group_styles(found)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for index, record in enumerate(runs):
        row, column = divmod(index, columns)
        left, top = (column + 0.25) / columns, 1 - row * (TREE + NAMES) / high
        box = (left, top - TREE / high, 0.72 / columns, (TREE - 0.08) / high)
        last, named = record["diagnostics"]["trees"][-1], task_names(record)
        _draw_tree(axes, box, last, task_groups(record), looks, named)
        axes.text(column / columns, top, f"seed {record['spec']['seed']}", va="top", fontsize=6.5)
    for group in found:
        axes.plot([], [], ms=5, label=drawn(group), **looks[group]._replace(line="").plot)
    legend(fig)
    grown, groups = runs[0]["diagnostics"]["trees"], task_groups(runs[0])
    step = 1 / max(len(grown) - 2, 1)
    for index, tree in enumerate(grown[1:-1]):
        left, wide = (index + 0.08) * step, 0.7 * step
        _draw_tree(axes, (left, 0.06 / high, wide, 0.45 / high), tree, groups, looks)
        spot = (left + wide / 2, 0.57 / high)
        axes.text(*spot, f"after {index + 2}", ha="center", fontsize=6.5)
    return fig


def _called(task: int, name: str) -> str:
    """A task's place and its name, unless that says no more than the place."""
    return f"{task + 1}" if name == f"task{task + 1}" else f"{task + 1} {drawn(name, 24)}"


def _draw_tree(axes, box: tuple, tree: dict, groups: list, looks: dict, names=None) -> None:
    """A tree in a box (left, bottom, width, height), with leaves side by side.

    Each leaf is where its branch ends, marked by its task's group, and below stand the `names`.
    """
    left, bottom, width, height = box
    deepest, wide = len(list(ranks(tree))) - 1, max(len(tree["tasks"]) - 1, 1)
    branches: list[tuple[float, float]] = []
    leaves: dict[str, list[tuple[float, float]]] = {}
    above, below = {"zorder": 1, "c": GREY}, {"zorder": 1, "lw": 0.5, "ls": ":"}

    def high(depth: int) -> float:
        return bottom + height * (1 - depth / max(deepest, 1))

    def place(node: dict, depth: int) -> float:
        if node["children"]:
            xs = [place(child, depth + 1) for child in node["children"]]
            x, y, end = sum(xs) / len(xs), high(depth), high(depth + 1)
            for other in xs:  # what is not a number parts the lines
                branches.extend([(x, y), (other, y), (other, end), (nan, nan)])
            return x
        xs = []
        for task in node["tasks"]:
            x = left + width * sum(map(len, leaves.values())) / wide
            leaves.setdefault(groups[task], []).append((x, high(depth)))
            if names:
                colour = looks[groups[task]].colour
                axes.plot([x, x], [high(depth), bottom], c=colour, **below)
                spot = {"xytext": (3, -7), "textcoords": "offset points", "rotation": 35}
                text = {"ha": "right", "va": "top", "fontsize": 6.5, "color": colour}
                axes.annotate(_called(task, names[task]), (x, bottom), **spot, **text)
            xs.append(x)
        if len(xs) > 1:  # tasks whose adapters were merged
            axes.plot(xs, [high(depth)] * len(xs), lw=3 if names else 1.5, alpha=0.4, **above)
        return sum(xs) / len(xs)

    place(tree, 0)
    if branches:
        axes.plot(*zip(*branches, strict=True), lw=0.7, **above)
    for group, spots in leaves.items():
        look = looks[group]._replace(line="").plot
        axes.plot(*zip(*spots, strict=True), ms=5.5 if names else 2.8, zorder=2, **look)
