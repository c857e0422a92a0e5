"""The operations of a step while a task is learnt."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.catalogue import figure
from analysis.figures.canvas import TWO, legend, sheet
from analysis.figures.lettering import powers_of_ten
from analysis.figures.style import style
from analysis.records.accounting import TABLE8_MODEL, Accounting
from analysis.records.runs import METHOD_ORDER


@figure(
    "Operations of a training step per token while a task is learnt. The method's own are penalty, "
    "search, projection, memory, query or the branch of earlier adapters; SeqLoRA has none. The "
    "whole step adds the adapter and the network; GEM lies beyond the scale.",
    of=Accounting,
)
def accounting(accounting: Accounting) -> Figure:
    """A method's own operations and those of the whole step against the task."""
    own = accounting.rows[accounting.rows["model"] == TABLE8_MODEL]
    fig = sheet(TWO, 2.3, f"{TABLE8_MODEL}.")
    left, right = (fig.add_axes((x, 0.27, 0.42, 0.64)) for x in (0.065, 0.57))
    _lines(left, own[own["method_flops_per_token"] > 0], "method_flops_per_token")
    left.set_yscale("log")
    powers_of_ten(left.yaxis)
    left.set_title("the method's own", loc="left")
    _lines(right, own[own["method"] != "gem"], "step_flops_per_token")
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e9:g}"))
    right.set(ylabel="GFLOP per token", ymargin=0.1)
    right.set_ylim(bottom=0)
    right.set_title("whole step, with the network", loc="left")
    lines = {line.get_label(): line for axes in (right, left) for line in axes.get_lines()}
    order = own.groupby("method")["step_flops_per_token"].last().sort_values(ascending=False)
    legend(fig, {METHOD_ORDER[method]: lines[method] for method in order.index})
    return fig


def _lines(axes, rows: pd.DataFrame, key: str) -> None:
    """A line for each method."""
    for method, line in rows.sort_values("task").groupby("method"):
        axes.plot(line["task"], line[key], label=method, **style(method).plot)
    axes.set(xlabel="task being learnt", ylabel="FLOP per token")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
