"""Table 8 and appendix A.3, the paper's numbers beside what was counted."""

from __future__ import annotations

from analysis.catalogue import table
from analysis.records.accounting import A3_MODELS, TABLE8_MODEL, TASK, Accounting
from analysis.records.counterparts import exhibit
from analysis.records.metrics import Estimate
from analysis.records.runs import METHOD_ORDER
from analysis.tables.table import Column, Number, Table, count, two_digits

megabytes, gigabytes, ratio = Number(1e-6), Number(1e-9), Number(digits=3)


class Powers(Number):
    """Numbers as Table 8 prints them, 4.2e6, with a digit more."""

    def __call__(self, value: float, signed: bool = False, like: float | None = None) -> str:
        return f"{value:.2e}".replace("e+0", "e").replace("e+", "e") if value else "0"


powers = Powers()


def _setting(accounting: Accounting) -> list[str]:
    texts, images = (accounting.settings["steps"][kind] for kind in ("language", "vision"))
    return [
        f"LoRA on {accounting.settings['targets']}, rank {texts['rank']} on language and "
        f"{images['rank']} on vision, counted on the real architectures without weights. A step "
        f"has {texts['batch']} texts of {texts['tokens']} tokens or {images['batch']} images of "
        f"{images['tokens']}; GEM keeps {texts['memory']} samples of a task and OGD "
        f"{texts['directions']} gradient."
    ]


def _exact(row: dict) -> dict:
    """A row's numbers as table cells; what is missing stays so."""
    return {
        key: Estimate(float(value)) if isinstance(value, int | float) else value
        for key, value in row.items()
    }


@table(of=Accounting)
def operations(accounting: Accounting) -> Table:
    """Operations per token of every method (Table 8)."""
    rows, setting = accounting.rows, _setting(accounting)
    columns = [
        Column("method", "Method"),
        Column("trainable_parameters", "Trainable parameters", powers),
        Column("stored_parameters", f"Stored after {TASK} tasks", powers),
        Column("disk_bytes_bfloat16", "Disk then, MB bfloat16", megabytes),
        Column("paper", "Paper's Table 8", powers),
        Column("table8_multiply_adds_per_token", "Its complexity in numbers", powers),
        Column("times", "Paper / complexity", two_digits),
        Column("adapter", "Adapter, FLOP", powers),
        Column("method_flops_per_token", "Method's own, FLOP", powers),
        Column("network", "Network, FLOP", powers),
        Column("step_flops_per_token", "Whole step, FLOP", powers),
        Column("by_seqlora", "Whole step / SeqLoRA", ratio),
    ]
    own = rows[(rows["task"] == TASK) & (rows["model"] == TABLE8_MODEL)].set_index("method")
    step, paper = own["step_flops_per_token"], exhibit("table8", "flops-per-token").iloc[0]
    own["paper"] = paper
    own["times"] = paper / own["table8_multiply_adds_per_token"]
    for part in ("adapter", "network"):
        own[part] = own[f"{part}_forward_flops_per_token"] + own[f"{part}_backward_flops_per_token"]
    own["by_seqlora"] = step / step["seqlora"]
    notes = [
        f"Per token, while task {TASK} is learnt. Beside the paper's number stands its parameter "
        "complexity with the sizes put in: a multiply-add for each adapter parameter in use, or "
        "for each weight in OGD, and none for the frozen network. FLOP count two for a "
        "multiply-add, forward and backward. Disk holds GEM's samples as well.",
        f"The paper's number for OGD is {ratio(paper['ogd'] / step['seqlora'])} times the whole "
        f"step of SeqLoRA here and {ratio(paper['ogd'] / step['ogd'])} times that of OGD.",
    ]
    title = f"Operations per token at task {TASK} on {TABLE8_MODEL} (the paper's Table 8)"
    shown = [_exact(row) for row in own.reset_index().to_dict("records")]
    return Table(
        "operations", title, columns, shown, notes=notes, setting=setting, names=METHOD_ORDER
    )


@table(of=Accounting)
def steps(accounting: Accounting) -> Table:
    """Operations of a whole step on every model."""
    rows, setting = accounting.rows, _setting(accounting)
    at = rows[rows["task"] == TASK]
    step = at.pivot(index="model", columns="method", values="step_flops_per_token")
    others = [method for method in at["method"].unique() if method != "seqlora"]
    columns = [
        Column("model", "Model"),
        Column("parameters", "Parameters", count),
        Column("adapter", "Adapter, parameters", count),
        Column("forward", "Forward, FLOP", powers),
        Column("seqlora", "Step of SeqLoRA, FLOP", powers),
        *(Column(method, f"{METHOD_ORDER[method]} / SeqLoRA", ratio) for method in others),
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


@table(of=Accounting)
def disk(accounting: Accounting) -> Table:
    """Bytes of adapters and tree on every model (appendix A.3)."""
    rows, setting = accounting.rows, _setting(accounting)
    own = rows[rows["method"] == "treelora"]
    disk = own.pivot(index="model", columns="task", values="disk_bytes_bfloat16")
    at = own[own["task"] == own["task"].max()].set_index("model")
    columns = [
        Column("model", "Model"),
        Column("one", "One adapter, MB bfloat16", megabytes),
        *(Column(f"after {n}", f"After {n} tasks, MB", megabytes) for n in disk),
        Column("paper", "Paper's A.3, MB", Number()),
        Column("times", "Paper / one adapter", two_digits),
        Column("device", f"On the device at task {at['task'].max()}, MB float32", megabytes),
        Column("network", "Network, GB bfloat16", gigabytes),
        Column("peak", "Paper's peak, GB", count),
    ]
    size = at.index.to_series().map(A3_MODELS)
    frame = disk.rename(columns="after {}".format).assign(
        one=2 * at["adapter_parameters"],
        paper=size.map(exhibit("appendix-a3", "extra-disk")["treelora"]),
        device=at["tree_device_bytes_float32"],
        network=2 * at["network_parameters"],
        peak=size.map(exhibit("appendix-a3", "gpu-memory")["treelora"]),
    )
    frame["times"] = frame["paper"] / (frame["one"] * megabytes.scale)
    notes = [
        "TreeLoRA stores the adapter in use and one for each finished task, as search and penalty "
        "need them; the paper prints one number per size. On the device: the signatures of the "
        "finished tasks."
    ]
    title = "Disk and device memory of adapters and tree (appendix A.3)"
    shown = [_exact(row) for row in frame.reset_index().to_dict("records")]
    return Table("disk", title, columns, shown, notes=notes, setting=setting)
