"""The page of measured times, docs/speed.md, from what `timing.py` wrote."""

from __future__ import annotations

INTRODUCTION = """\
# Speed

Measured by `python -m benchmarks.experiments.timing PART`, which writes
[`timing.json`](../benchmarks/published/timing.json); those of GPUs lie beside it as
`timing_*.json`. What is compared takes turns in rounds of one
process, with random weights. Times are medians; a ratio is the median over rounds of the ratios
within a round, with its range.
"""
SETTING = "{date}: {device}, threads {threads}{version}; {rounds} rounds of {steps} steps"
PART = {
    "loop": """\
A step of the shared loop against a loop in plain PyTorch, and TreeLoRA's against SeqLoRA's, with
{finished_tasks} finished tasks, in {precision}. Batch {batch_size}, LoRA of rank {rank} on q and v.
""",
    "penalty": """\
TreeLoRA's part of a step: `empty` only reads the adapter and passes a gradient back; `loops` is the
same as ours in loops over tasks and modules. The training step of a ViT-B/16 with LoRA at 224 px
and a batch of {batch_size} takes {vit_step_ms:.0f} ms.
""",
    "sharing": """\
Several runs on one GPU, a process each: {method} on {backbone} in {precision}, batch {batch_size}.
""",
    "schedules": """\
The paper's two schedules at true shapes: how much of a speed-up is the method, and how much the
schedule. {backbone} in {weights}, TRACE's mean lengths x {scale:g}, batch {batch_size}. Schedules
of {long_epochs} and {short_epochs} epochs over {items_per_task} items a task, training steps alone.
""",
}


def as_markdown(files: list[dict]) -> str:
    """The page of `benchmarks/published/timing*.json`; parts that they lack are left out."""
    sections = [INTRODUCTION]
    for name, text in PART.items():
        for data in files:
            if part := data["parts"].get(name):
                version = f", torch {part['torch']}" if part["torch"] else ""
                rows = [_columns(row, part) for row in part["rows"]]
                lines = [rows[0].keys(), ["---"] * len(rows[0]), *(row.values() for row in rows)]
                table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
                part = {"precision": "float32"} | part  # the only one, in older files
                setting = SETTING.format(version=version, **part)
                title = f"## `{name}`, {part['device']}"
                sections += [f"{title}\n\n{text.format(**part)}\n{setting}.\n\n{table}\n"]
    return "\n".join(sections)


def _columns(row: dict, part: dict) -> dict[str, str]:
    """The cells of a row by their header; of a GPU there are more."""
    peak = row.get("peak_bytes")
    if "plain_ms_per_step" in row:
        on_gpu = {}
        if part.get("peak_tflops"):
            share = f"{row['tflops'] / part['peak_tflops']:.0%}"
            on_gpu = {"TFLOP/s of treelora": f"{row['tflops']:.1f}", "of a matrix product's": share}
        return {
            "backbone": row["backbone"],
            "plain loop, ms/step": f"{row['plain_ms_per_step']:.1f}",
            "seqlora / plain": _ratio(row["seqlora_over_plain"]),
            "treelora / seqlora": _ratio(row["treelora_over_seqlora"]),
        } | on_gpu
    if "loops_over_ours" in row:
        share = (row["ours_ms"] - row["empty_ms"]) / part["vit_step_ms"]
        return {
            "shape": row["shape"],
            "finished tasks": str(row["finished_tasks"]),
            "empty, ms": f"{row['empty_ms']:.2f}",
            "ours, ms": f"{row['ours_ms']:.2f}",
            "loops / ours": _ratio(row["loops_over_ours"], 1),
            "of a ViT-B/16 step": f"{share:.2%}" if row["shape"].startswith("ViT") else "–",
        } | ({"peak MiB": f"{peak / 2**20:.0f}"} if peak else {})
    if "gain" in row:
        return {
            "runs on the GPU": str(row["runs"]),
            "ms/step of each": f"{row['ms_per_step']:.1f}",
            "steps/s of all": f"{row['steps_per_second']:.1f}",
            "gain": f"{row['gain']:.2f}",
        }
    return {
        "method": row["method"],
        "long, s": f"{row['long_s']:.0f}",
        "short, s": f"{row['short_s']:.0f}",
        "same schedule, / seqlora": _ratio(row["over_seqlora"]),
        "long / short": f"{row['long_s'] / row['short_s']:.2f}",
        "peak GiB": f"{peak / 2**30:.1f}" if peak else "–",
    }


def _ratio(value: dict[str, float], digits: int = 3) -> str:
    median, low, high = (f"{value[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low} to {high})"
