"""The page of measured times, docs/speed.md, from what `timing.py` wrote; without torch."""

from __future__ import annotations


def as_markdown(data: dict) -> str:
    """The page.

    Args:
        data: content of `benchmarks/published/timing.json`; parts that it lacks are left out.
    """
    pages = [page(data["parts"][name]) for name, page in PARTS.items() if name in data["parts"]]
    return "\n\n".join(["# Speed", INTRODUCTION, *pages]) + "\n"


INTRODUCTION = """\
Measured by `python -m benchmarks.experiments.timing PART`, which writes
[`timing.json`](../benchmarks/published/timing.json). What is compared takes turns in rounds of one
process, with random weights. Times are medians; a ratio is the median over rounds of the ratios
within a round, with its range."""


def _loop(part: dict) -> str:
    header = ("backbone", "plain loop, ms/step", "seqlora / plain", "treelora / seqlora")
    rows = [
        (
            row["backbone"],
            f"{row['plain_ms_per_step']:.1f}",
            _ratio(row["seqlora_over_plain"]),
            _ratio(row["treelora_over_seqlora"]),
        )
        for row in part["rows"]
    ]
    return f"""## The shared loop (`loop`)

A step of the shared loop against a loop in plain PyTorch, and TreeLoRA's against SeqLoRA's.

{_setting(part)}; LoRA of rank {part["rank"]} on q and v; treelora with {part["finished_tasks"]} \
finished tasks.

{_table(header, rows)}"""


def _penalty(part: dict) -> str:
    header = ("shape", "finished tasks", "empty, ms", "ours, ms", "loops / ours", "of a ViT step")
    whole = part["vit_step_ms"]
    rows = [
        (
            row["shape"],
            str(row["finished_tasks"]),
            f"{row['empty_ms']:.2f}",
            f"{row['ours_ms']:.2f}",
            _ratio(row["loops_over_ours"], 1),
            f"{(row['ours_ms'] - row['empty_ms']) / whole:.2%}" if "ViT" in row["shape"] else "–",
        )
        for row in part["rows"]
    ]
    return f"""## TreeLoRA's part of a step (`penalty`)

`empty` only reads the adapter and passes a gradient back; `loops` is the same as ours in loops over
tasks and modules.

{_setting(part)} of a ViT-B/16 with LoRA at 224 px, whose training step takes {whole:.0f} ms.

{_table(header, rows)}"""


def _schedules(part: dict) -> str:
    header = ("method", "long, s", "short, s", "long / seqlora's", "long / short", "peak GiB")
    rows = [
        (
            row["method"],
            f"{row['long_s']:.0f}",
            f"{row['short_s']:.0f}",
            _ratio(row["over_seqlora"]),
            f"{row['long_s'] / row['short_s']:.2f}",
            f"{row['peak_bytes'] / 2**30:.1f}" if row["peak_bytes"] else "–",
        )
        for row in part["rows"]
    ]
    long, short = (sum(part["epochs"][schedule]) for schedule in ("long", "short"))
    return f"""## The paper's two schedules at true shapes (`schedules`)

How much of a speed-up is the method, and how much the schedule. Training steps alone.

{_setting(part)}; {part["backbone"]} in {part["weights"] or "float32"}\
{" with checkpointing" if part["checkpointing"] else ""}, TRACE's mean lengths x {part["scale"]:g}. \
Schedules of {long} and {short} epochs over {part["items_per_task"]} items a task.

{_table(header, rows)}"""


PARTS = {"loop": _loop, "penalty": _penalty, "schedules": _schedules}


def _setting(part: dict) -> str:
    torch = f", torch {part['torch']}" if part["torch"] else ""
    return (
        f"{part['date']}: {part['device']}, threads {part['threads']}{torch}; {part['rounds']} "
        f"rounds of {part['steps']} steps, batch {part['batch_size']}"
    )


def _ratio(value: dict[str, float], digits: int = 3) -> str:
    median, low, high = (f"{value[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low} to {high})"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
