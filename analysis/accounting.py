"""Table 8 and appendix A.3 from `benchmarks/published/accounting.json`, the paper's numbers beside.

accounting = load(Path("benchmarks/published/accounting.json"))
tables(accounting), figures(accounting), findings(accounting)
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis import figures as look  # also sets matplotlib's defaults
from analysis import reported
from analysis.lettering import powers_of_ten
from analysis.metrics import Estimate
from analysis.records import parse, read_bytes
from analysis.style import styles
from analysis.table import Column, Number, Table, count

TASK = 10  # Table 8 counts at the tenth task
TABLE8_MODEL = "llama-2-7b"
A3_MODELS = {  # A.3 names sizes
    "vit-b16": "vit-b16",
    "gemma-2b": "llm-2b",
    "llama-2-7b": "llm-7b",
    "llama-2-13b": "llm-13b",
}
megabytes, gigabytes, ratio = Number(1e-6), Number(1e-9), Number(digits=3)


class Powers(Number):
    """Numbers as Table 8 prints them, 4.2e6, with a digit more."""

    def __call__(self, value: float, signed: bool = False, like: float | None = None) -> str:
        return f"{value:.2e}".replace("e+0", "e").replace("e+", "e") if value else "0"


powers = Powers()
CAPTIONS = {
    "accounting": "Operations of a training step per token while a task is learnt. The method's "
    "own are penalty, search, projection, memory, query or the branch of earlier adapters; seqlora "
    "has none. The whole step adds the adapter and the network; gem lies beyond the scale.",
}


class Accounting(NamedTuple):
    """The file's facts; a row is a method on a model at a task."""

    settings: dict
    provenance: dict
    rows: pd.DataFrame


def load(path: Path) -> Accounting:
    """Read what `python -m benchmarks.experiments.accounting` wrote."""
    data = parse(read_bytes(path))
    if not isinstance(data, dict) or data.get("kind") != "accounting" or data.get("schema") != 1:
        raise ValueError(f"{path} is no accounting file of schema 1: make it anew")
    rows = pd.DataFrame(data["rows"])
    if not ((rows["model"] == TABLE8_MODEL) & (rows["task"] == TASK)).any():
        raise ValueError(f"{path} lacks {TABLE8_MODEL} at task {TASK}: count it with the defaults")
    return Accounting(data["settings"], data["provenance"], rows)


def tables(accounting: Accounting) -> dict[str, Table]:
    """`operations` (Table 8), `steps` (the same on all models) and `disk` (appendix A.3)."""
    rows = accounting.rows
    texts, images = (accounting.settings["steps"][kind] for kind in ("language", "vision"))
    setting = [
        f"LoRA on {accounting.settings['targets']}, rank {texts['rank']} on language and "
        f"{images['rank']} on vision, counted on the real architectures without weights. A step "
        f"has {texts['batch']} texts of {texts['tokens']} tokens or {images['batch']} images of "
        f"{images['tokens']}; gem keeps {texts['memory']} samples of a task and ogd "
        f"{texts['directions']} gradient.",
    ]
    made = (_operations(rows, setting), _steps(rows, setting), _disk(rows, setting))
    return {table.name: table for table in made}


def _exact(row: dict) -> dict:
    """A row's numbers as table cells; what is missing stays so."""
    return {
        key: Estimate(float(value)) if isinstance(value, int | float) else value
        for key, value in row.items()
    }


def _operations(rows: pd.DataFrame, setting: list[str]) -> Table:
    columns = [
        Column("method", "Method"),
        Column("trainable_parameters", "Trainable parameters", powers),
        Column("stored_parameters", f"Stored after {TASK} tasks", powers),
        Column("disk_bytes_bfloat16", "Disk then, MB bfloat16", megabytes),
        Column("paper", "Paper's Table 8", powers),
        Column("table8_multiply_adds_per_token", "Its complexity in numbers", powers),
        Column("times", "Paper / complexity", Number(digits=2)),
        Column("adapter", "Adapter, FLOP", powers),
        Column("method_flops_per_token", "Method's own, FLOP", powers),
        Column("network", "Network, FLOP", powers),
        Column("step_flops_per_token", "Whole step, FLOP", powers),
        Column("by_seqlora", "Whole step / seqlora", ratio),
    ]
    own = rows[(rows["task"] == TASK) & (rows["model"] == TABLE8_MODEL)].set_index("method")
    step, paper = own["step_flops_per_token"], reported.flops()
    own["paper"] = paper
    own["times"] = paper / own["table8_multiply_adds_per_token"]
    for part in ("adapter", "network"):
        own[part] = own[f"{part}_forward_flops_per_token"] + own[f"{part}_backward_flops_per_token"]
    own["by_seqlora"] = step / step["seqlora"]
    notes = [
        f"Per token, while task {TASK} is learnt. Beside the paper's number stands its parameter "
        "complexity with the sizes put in: a multiply-add for each adapter parameter in use, or "
        "for each weight in ogd, and none for the frozen network. FLOP count two for a "
        "multiply-add, forward and backward. Disk holds gem's samples as well.",
        f"The paper's number for ogd is {ratio(paper['ogd'] / step['seqlora'])} times the whole "
        f"step of seqlora here and {ratio(paper['ogd'] / step['ogd'])} times that of ogd.",
    ]
    title = f"Operations per token at task {TASK} on {TABLE8_MODEL} (the paper's Table 8)"
    shown = [_exact(row) for row in own.reset_index().to_dict("records")]
    return Table("operations", title, columns, shown, notes=notes, setting=setting)


def _steps(rows: pd.DataFrame, setting: list[str]) -> Table:
    at = rows[rows["task"] == TASK]
    step = at.pivot(index="model", columns="method", values="step_flops_per_token")
    others = [method for method in at["method"].unique() if method != "seqlora"]
    columns = [
        Column("model", "Model"),
        Column("parameters", "Parameters", count),
        Column("adapter", "Adapter, parameters", count),
        Column("forward", "Forward, FLOP", powers),
        Column("seqlora", "Step of seqlora, FLOP", powers),
        *(Column(method, f"{method} / seqlora", ratio) for method in others),
    ]
    first = at.groupby("model").first()
    own = (
        step[others]
        .div(step["seqlora"], axis=0)
        .assign(
            parameters=first["network_parameters"],
            adapter=first["adapter_parameters"],
            forward=at[at["method"] != "l2p"]
            .groupby("model")["network_forward_flops_per_token"]
            .min(),
            seqlora=step["seqlora"],
        )
    )
    title = f"Operations of a whole training step per token at task {TASK}"
    shown = [_exact(row) for row in own.reset_index().to_dict("records")]
    return Table("steps", title, columns, shown, setting=setting)


def _disk(rows: pd.DataFrame, setting: list[str]) -> Table:
    own = rows[rows["method"] == "treelora"]
    disk = own.pivot(index="model", columns="task", values="disk_bytes_bfloat16")
    at = own[own["task"] == own["task"].max()].set_index("model")
    columns = [
        Column("model", "Model"),
        Column("one", "One adapter, MB bfloat16", megabytes),
        *(Column(f"after {n}", f"After {n} tasks, MB", megabytes) for n in disk),
        Column("paper", "Paper's A.3, MB", Number()),
        Column("times", "Paper / one adapter", Number(digits=2)),
        Column("device", f"On the device at task {at['task'].max()}, MB float32", megabytes),
        Column("network", "Network, GB bfloat16", gigabytes),
        Column("peak", "Paper's peak, GB", count),
    ]
    size = at.index.to_series().map(A3_MODELS)
    frame = disk.rename(columns="after {}".format).assign(
        one=2 * at["adapter_parameters"],
        paper=size.map(reported.disk()),
        device=at["tree_device_bytes_float32"],
        network=2 * at["network_parameters"],
        peak=size.map(reported.cells("appendix-a3", "gpu-memory")["treelora"]),
    )
    frame["times"] = frame["paper"] / (frame["one"] * megabytes.scale)
    notes = [
        "treelora stores the adapter in use and one for each finished task, as search and penalty "
        "need them; the paper prints one number per size. On the device: the signatures of the "
        "finished tasks.",
    ]
    title = "Disk and device memory of adapters and tree (appendix A.3)"
    shown = [_exact(row) for row in frame.reset_index().to_dict("records")]
    return Table("disk", title, columns, shown, notes=notes, setting=setting)


def figures(accounting: Accounting) -> dict[str, Figure]:
    """`accounting`: a method's own operations and those of the whole step against the task."""
    own = accounting.rows[accounting.rows["model"] == TABLE8_MODEL]
    if own.empty:
        return {}
    figure = Figure((8.4, 3.8), dpi=150)
    FigureCanvasAgg(figure)
    figure.text(0.01, 0.99, f"Operations of a step on {TABLE8_MODEL}", va="top", weight="bold")
    left, right = (figure.add_axes((x, 0.14, 0.31, 0.68)) for x in (0.08, 0.57))
    _lines(left, own[own["method_flops_per_token"] > 0], "method_flops_per_token")
    left.set_yscale("log")
    powers_of_ten(left.yaxis)
    left.set_title("the method's own", loc="left", fontsize=9)
    _lines(right, own[own["method"] != "gem"], "step_flops_per_token")
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e9:g}"))
    right.set(ylabel="GFLOP per token", ymargin=0.1)
    right.set_ylim(bottom=0)
    right.set_title("whole step, with the network", loc="left", fontsize=9)
    return {"accounting": figure}


def _lines(axes, rows: pd.DataFrame, key: str) -> None:
    """A line for each method, named at its right end; names of lines that coincide are stacked."""
    looks = styles(rows["method"])
    lines = rows.sort_values("task").groupby("method")
    groups: list[list[str]] = []
    ends = lines[key].last().sort_values()
    for method, end in ends.items():
        if groups and end < 1.2 * ends[groups[-1][0]]:
            groups[-1].append(method)
        else:
            groups.append([method])
    for method, line in lines:
        colour, marker = looks[method]
        axes.plot(line["task"], line[key], color=colour, marker=marker, linewidth=1.5)
    for group in groups:
        axes.annotate(
            "\n".join(reversed(group)),
            (rows["task"].max(), ends[group[0]]),
            xytext=(12, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=looks[group[0]].colour if len(group) == 1 else look.GREY,
        )
    axes.set(xlabel="task being learnt", ylabel="FLOP per token")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")


def findings(accounting: Accounting) -> dict[str, dict]:
    """What the claims ask for: operations of a whole step by model and method; bytes by model."""
    at = accounting.rows[accounting.rows["task"] == TASK]
    by_model = at.set_index(["model", "method"])
    flops = by_model["step_flops_per_token"].unstack().to_dict("index")
    stored = by_model["disk_bytes_bfloat16"].xs("treelora", level="method").to_dict()
    return {
        "flops": {TABLE8_MODEL: flops[TABLE8_MODEL]} if TABLE8_MODEL in flops else {},
        "disk": {size: stored[model] for model, size in A3_MODELS.items() if model in stored},
    }
