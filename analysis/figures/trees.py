"""The tree over tasks as it grew."""

from __future__ import annotations

from math import nan

from matplotlib.figure import Figure

from analysis.catalogue import figure
from analysis.figures.canvas import GREY, TWO, canvas, legend, say, says
from analysis.figures.lettering import drawn
from analysis.figures.style import group_styles
from analysis.records.runs import Panel
from analysis.records.schema import task_groups, task_names
from analysis.records.trees import ranks


@figure(
    "The tree of one run after the last task and, below, after each task before (as Figures 5 and "
    "8). Numbers are places in the stream, colours and marks the planted groups. A bar joins tasks "
    "whose adapters were merged.",
    need=lambda spec: spec["method"]["name"] in ("treelora", "hidetreelora"),
)
def trees(panel: Panel) -> Figure:
    """The tree after the last task, and below it after each task before (Figures 5 and 8)."""
    runs = [r for r in panel.done["record"] if (r.get("diagnostics") or {}).get("trees")]
    named = [r for r in runs if r["spec"]["method"]["label"] == "treelora"]
    record = next(iter(named or runs), None)
    spec = record["spec"] if record else panel.spec
    title = panel.titles[spec["method"]["label"]]
    of = f"one run, {title}, seed {spec['seed']}" if record else "no run"
    names, groups = (task_names(record), task_groups(record)) if record else ([], [])
    planted = [drawn(group) for group in sorted(set(groups) - {""})]
    fig, axes = canvas(3.2, 0.15, planted, says(panel, of), wide=TWO, bottom=0.02)
    axes.set_axis_off()
    if not record:
        say(axes, "No finished run has a tree.")
        return fig
    grown = record["diagnostics"]["trees"]
    looks = group_styles(groups)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    _draw_tree(axes, (0.09, 0.46, 0.88, 0.52), grown[-1], groups, looks, names)
    for group in sorted(set(groups) - {""}):
        axes.plot([], [], ms=5, label=drawn(group), **looks[group]._replace(line="").plot)
    legend(fig)
    step = 1 / max(len(grown) - 2, 1)
    for index, tree in enumerate(grown[1:-1]):
        left, wide = (index + 0.08) * step, 0.7 * step
        _draw_tree(axes, (left, 0.02, wide, 0.14), tree, groups, looks)
        axes.text(left + wide / 2, 0.18, f"after {index + 2}", ha="center", fontsize=6.5)
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
