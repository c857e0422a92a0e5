"""The page of measured times, docs/speed.md, from what `timing.py` wrote."""

from __future__ import annotations

INTRODUCTION = """\
# Speed

Measured by `python -m benchmarks.experiments.timing PART`, which writes
[`timing.json`](../benchmarks/published/timing.json). What is compared takes turns in rounds of one
process, with random weights. Times are medians; a ratio is the median over rounds of the ratios
within a round, with its range.
"""
SETTING = "{date}: {device}, threads {threads}{version}; {rounds} rounds of {steps} steps"
PART = {
    "loop": """\
A step of the shared loop against a loop in plain PyTorch, and TreeLoRA's against SeqLoRA's, with
{finished_tasks} finished tasks. Batch {batch_size}, LoRA of rank {rank} on q and v.
""",
    "penalty": """\
TreeLoRA's part of a step: `empty` only reads the adapter and passes a gradient back; `loops` is the
same as ours in loops over tasks and modules. The training step of a ViT-B/16 with LoRA at 224 px
and a batch of {batch_size} takes {vit_step_ms:.0f} ms.
""",
    "schedules": """\
The paper's two schedules at true shapes: how much of a speed-up is the method, and how much the
schedule. {backbone} in {weights}, TRACE's mean lengths x {scale:g}, batch {batch_size}. Schedules
of {long_epochs} and {short_epochs} epochs over {items_per_task} items a task, training steps alone.
""",
}


def as_markdown(data: dict) -> str:
    """The page of `benchmarks/published/timing.json`; parts that it lacks are left out."""
    sections = [INTRODUCTION]
    for name, text in PART.items():
        if part := data["parts"].get(name):
            version = f", torch {part['torch']}" if part["torch"] else ""
            rows = [_columns(row, part) for row in part["rows"]]
            lines = [rows[0].keys(), ["---"] * len(rows[0]), *(row.values() for row in rows)]
            table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
            setting = SETTING.format(version=version, **part)
            sections += [f"## `{name}`\n\n{text.format(**part)}\n{setting}.\n\n{table}\n"]
    return "\n".join(sections)


def _columns(row: dict, part: dict) -> dict[str, str]:
    """The cells of a row by their header."""
    if "plain_ms_per_step" in row:
        return {
            "backbone": row["backbone"],
            "plain loop, ms/step": f"{row['plain_ms_per_step']:.1f}",
            "seqlora / plain": _ratio(row["seqlora_over_plain"]),
            "treelora / seqlora": _ratio(row["treelora_over_seqlora"]),
        }
    if "loops_over_ours" in row:
        share = (row["ours_ms"] - row["empty_ms"]) / part["vit_step_ms"]
        return {
            "shape": row["shape"],
            "finished tasks": str(row["finished_tasks"]),
            "empty, ms": f"{row['empty_ms']:.2f}",
            "ours, ms": f"{row['ours_ms']:.2f}",
            "loops / ours": _ratio(row["loops_over_ours"], 1),
            "of a ViT-B/16 step": f"{share:.2%}" if row["shape"].startswith("ViT") else "–",
        }
    return {
        "method": row["method"],
        "long, s": f"{row['long_s']:.0f}",
        "short, s": f"{row['short_s']:.0f}",
        "same schedule, / seqlora": _ratio(row["over_seqlora"]),
        "long / short": f"{row['long_s'] / row['short_s']:.2f}",
        "peak GiB": f"{row['peak_bytes'] / 2**30:.1f}" if row["peak_bytes"] else "–",
    }


def _ratio(value: dict[str, float], digits: int = 3) -> str:
    median, low, high = (f"{value[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low} to {high})"
