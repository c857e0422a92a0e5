"""The accounting of operations and bytes: what was counted, a row for each method on a model."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis.errors import DataError
from analysis.records.reading import read_experiment

TASK = 10  # Table 8 counts at the tenth task
TABLE8_MODEL = "llama-2-7b"
A3_MODELS = {  # A.3 names sizes
    "vit-b16": "vit-b16",
    "gemma-2b": "llm-2b",
    "llama-2-7b": "llm-7b",
    "llama-2-13b": "llm-13b",
}


class Accounting(NamedTuple):
    """The file's facts; a row is a method on a model at a task."""

    settings: dict
    provenance: dict
    rows: pd.DataFrame


def load(path: Path) -> Accounting:
    """Read what `make experiments` wrote."""
    data = read_experiment(path, "accounting")
    rows = pd.DataFrame(data["rows"])
    if not ((rows["model"] == TABLE8_MODEL) & (rows["task"] == TASK)).any():
        raise DataError(f"{path} lacks {TABLE8_MODEL} at task {TASK}: count it with the defaults")
    return Accounting(data["settings"], data["provenance"], rows)


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
