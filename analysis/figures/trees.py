"""The tree over tasks as it grew."""

from __future__ import annotations

from matplotlib.figure import Figure

from analysis.catalogue import figure
from analysis.figures.canvas import GREY, canvas, say
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
    fig, axes = canvas(f"{panel.stream}: the tree of tasks", panel, (7.4, 4.8), 0.15, of=of)
    axes.set_axis_off()
    if not record:
        say(axes, "No finished run has a tree.")
        return fig
    grown = record["diagnostics"]["trees"]
    names, groups = task_names(record), task_groups(record)
    looks = group_styles(groups)
    large = axes.inset_axes((0, 0.42, 0.84, 0.58))
    _draw_tree(large, grown[-1], groups, looks, names)
    for group in sorted(set(groups) - {""}):
        look = looks[group]._replace(line="").plot
        axes.plot([], [], ms=8, label=drawn(group), **look)
    if any(groups):
        axes.legend(loc="upper right", title="planted group", fontsize=7, title_fontsize=7)
    for index, tree in enumerate(grown[1:-1]):
        width = 1 / max(len(grown) - 2, 1)
        small = axes.inset_axes((index * width, 0, width * 0.86, 0.17))
        _draw_tree(small, tree, groups, looks)
        small.set_title(f"after {index + 2}", fontsize=7, y=1)
    return fig


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
            look = looks[groups[task]]
            axes.plot(len(order), -depth, ms=8 if names else 4, zorder=2, **look.plot)
            if names:
                x = len(order)
                axes.plot([x, x], [-depth, -deepest], c=look.colour, lw=0.6, ls=":", zorder=1)
                spot = {"xytext": (3, -7), "textcoords": "offset points", "rotation": 35}
                text = {"ha": "right", "va": "top", "fontsize": 7, "color": look.colour}
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
