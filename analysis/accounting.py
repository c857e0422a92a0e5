"""Table 8 and appendix A.3 from `benchmarks/published/accounting.json`, the paper's numbers beside.

accounting = load(Path("benchmarks/published/accounting.json"))
tables(accounting), findings(accounting)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis import reported
from analysis.metrics import Estimate
from analysis.table import Column, Number, Table, count

TASK = 10  # Table 8 counts at the tenth task
PAPER_MODELS = {  # the paper's Table 8 is on one model; A.3 names sizes
    "vit-b16": "vit-b16",
    "gemma-2b": "llm-2b",
    "llama-2-7b": "llm-7b",
    "llama-2-13b": "llm-13b",
}
TABLE8_MODEL = "llama-2-7b"
millions, megabytes = Number(1e-6), Number(1e-6)


class Accounting(NamedTuple):
    """The file's facts; a row is a method on a model at a task."""

    settings: dict
    provenance: dict
    rows: pd.DataFrame


def load(path: Path) -> Accounting:
    """Read what `python -m benchmarks.accounting` wrote."""
    data = json.loads(path.read_text(encoding="utf-8"))
    if data.get("kind") != "accounting" or data.get("schema") != 1:
        raise ValueError(
            f"{path} is no accounting file of schema 1: make it with benchmarks.accounting"
        )
    return Accounting(data["settings"], data["provenance"], pd.DataFrame(data["rows"]))


def _exact(value: float | None) -> Estimate | None:
    return None if value is None or pd.isna(value) else Estimate(float(value))


def tables(accounting: Accounting) -> dict[str, Table]:
    """`operations` (Table 8) and `disk` (appendix A.3)."""
    (length, batch), (patches, images) = (
        accounting.settings["tokens_and_batch"][kind] for kind in ("language", "vision")
    )
    setting = [
        f"LoRA of rank {accounting.settings['rank']} on {accounting.settings['targets']} "
        f"projections, counted on the real architectures without weights; a step has {batch} "
        f"sequences of {length} tokens, or {images} images of {patches} patches.",
    ]
    return {
        "operations": _operations(accounting.rows, setting),
        "disk": _disk(accounting.rows, setting),
    }


def _operations(rows: pd.DataFrame, setting: list[str]) -> Table:
    columns = [
        Column("method", "Method"),
        Column("trainable_parameters", "Trainable, millions", millions),
        Column("stored_parameters", f"Stored after {TASK} tasks, millions", millions),
        Column("adapter_multiply_adds_per_token", "Adapters alone, M multiply-adds", millions),
        Column("paper", "Paper's Table 8, M", millions),
        Column("method_flops_per_token", "Method's own, kFLOP", Number(1e-3)),
        Column("step_flops_per_token", "Whole step, MFLOP", millions),
        Column("ratio", "Whole step / seqlora", Number(digits=3)),
    ]
    paper = reported.flops()
    shown = []
    for model, own in rows[rows["task"] == TASK].groupby("model"):
        whole = own.set_index("method")["step_flops_per_token"]
        for row in own.to_dict("records"):
            cells = {c.key: _exact(row.get(c.key)) for c in columns if c.key != "method"}
            cells["ratio"] = _exact(whole[row["method"]] / whole["seqlora"])
            if model == TABLE8_MODEL:
                cells["paper"] = _exact(paper.get(row["method"]))
            shown.append({"model": model, "method": row["method"]} | cells)
    notes = [
        f"Per token of one training step while the task number {TASK} is learnt. Adapters alone is "
        "what the paper's numbers are: one multiply-add for each adapter parameter in use. The "
        "whole step counts two operations for each multiply-add of forward and backward passes "
        "through the frozen network as well. Method's own: penalty, search, projection, memory.",
    ]
    return Table(
        "operations",
        f"Operations per token at task {TASK} (the paper's Table 8)",
        [Column("model", "Model"), *columns],
        shown,
        notes=notes,
        setting=setting,
    )


def _disk(rows: pd.DataFrame, setting: list[str]) -> Table:
    own = rows[(rows["method"] == "treelora")].set_index(["model", "task"])
    tasks = sorted(rows["task"].unique())
    columns = [
        Column("model", "Model"),
        Column("adapter", "Adapter, parameters", count),
        Column("one", "One adapter, MB bfloat16", megabytes),
        *(Column(f"after {n}", f"TreeLoRA after {n} tasks, MB", megabytes) for n in tasks),
        Column("paper", "Paper's A.3, MB", Number()),
    ]
    paper = reported.disk()
    shown = []
    for model in own.index.unique("model"):
        adapter = own.loc[(model, tasks[0]), "trainable_parameters"]
        row = {"model": model, "adapter": _exact(adapter), "one": _exact(2 * adapter)}
        row |= {f"after {n}": _exact(own.loc[(model, n), "stored_bytes_bfloat16"]) for n in tasks}
        shown.append(row | {"paper": _exact(paper.get(PAPER_MODELS.get(model)))})
    notes = [
        "TreeLoRA stores the adapter in use and one of each finished task, as the search and the "
        "penalty need them; bfloat16. The paper prints one number per model.",
    ]
    title = "Disk for adapters and tree (appendix A.3)"
    return Table("disk", title, columns, shown, notes=notes, setting=setting)


def findings(accounting: Accounting) -> dict[str, dict]:
    """What the claims ask for: operations of a whole step by model and method; bytes by model."""
    at = accounting.rows[accounting.rows["task"] == TASK]
    by_model = at.set_index(["model", "method"])
    flops = by_model["step_flops_per_token"].unstack().to_dict("index")
    stored = by_model["stored_bytes_bfloat16"].xs("treelora", level="method")
    return {
        "flops": {TABLE8_MODEL: flops[TABLE8_MODEL]} if TABLE8_MODEL in flops else {},
        "disk": {name: stored[model] for model, name in PAPER_MODELS.items() if model in stored},
    }
