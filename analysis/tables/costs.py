"""Time, memory and parameters."""

from __future__ import annotations

from analysis.catalogue import table
from analysis.records.metrics import COUNTS, METRICS, estimate
from analysis.records.runs import Panel
from analysis.records.variants import sweep
from analysis.tables.setting import of_methods, training
from analysis.tables.table import Column, Table, count, mebibytes, percent, plain


@table()
def speed(panel: Panel) -> Table:
    """TIME relative to SeqLoRA, split into time per step and number of steps, by epochs."""
    trained = [label for label in panel.finished if panel.estimates[label]["steps"].mean > 0]
    first = next(iter(trained), "none")
    reference = "seqlora" if "seqlora" in trained else first
    columns = [
        Column("epochs", "Epochs"),
        Column("acc", f"{panel.score} ↑", percent),
        Column("time_ratio", f"TIME / {panel.titles.get(reference, reference)}'s", plain),
        Column("step_ratio", "= TIME per step", plain),
        Column("steps_ratio", "× steps", plain),
        Column("time_seconds", "TIME s", plain),
        Column("ms_per_step", "ms/step", plain),
        Column("steps", "Steps", count),
    ]
    labels = [
        label
        for name in dict.fromkeys(panel.runs["name"])
        for label in sorted(
            sweep(panel, name, "epochs").values(),
            key=lambda label: panel.estimates[label]["steps"].mean,
        )
        if label not in panel.upper_bounds and label in trained
    ]
    rows = []
    if trained:
        values = panel.beside(reference)[["time_seconds", "steps"]].query("steps > 0")
        ratio = values.div(values.xs(reference), level="seed")
        ratio["step"] = ratio["time_seconds"] / ratio["steps"]
        ratio = ratio.rename(columns={"time_seconds": "time_ratio", "steps": "steps_ratio"})
        ratios = estimate(ratio.rename(columns={"step": "step_ratio"}), "method")
        rows = [
            {"method": label, "epochs": training(panel.methods[label], "epochs")}
            | panel.estimates[label]
            | ratios[label]
            for label in labels
        ]
    note = (
        f"Ratios to {reference}, paired by seed of one device; below 1 is faster. TIME per step "
        "includes consolidation, ms/step does not. A method is as fast as its steps are cheap and "
        "few: on language the paper's contenders learn for more epochs than TreeLoRA."
    )
    return of_methods(panel, "speed", "time per step and number of steps", columns, rows, [note])


@table()
def cost(panel: Panel) -> Table:
    """TIME with its parts, memory and parameters."""
    keys = list(METRICS)[list(METRICS).index("time_seconds") :]
    shows = dict.fromkeys(COUNTS, count) | {"peak_bytes": mebibytes, "state_bytes": mebibytes}
    columns = [Column(key, METRICS[key], shows.get(key, plain)) for key in keys]
    rows = [{"method": label} | panel.estimates[label] for label in panel.methods]
    note = "TIME = train + consolidate; samples/s are over TIME, ms/step over train alone."
    return of_methods(panel, "cost", "time, memory and parameters", columns, rows, [note])
