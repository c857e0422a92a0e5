"""What a run keeps beside its record, in files that bear the version of the same code.

Predictions of the final row and of the diagonal are kept always; what a suite asks for under
`keep` is kept as well, and a run that lacks it is open.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from analysis.records.predictions import n_cells

Keep = Literal["all", "adapters"]


def predictions(record: Path) -> Path:
    """The file of a run's predictions, by that of its record."""
    return record.with_name(record.name.replace("result", "predictions", 1) + "l.gz")


def inside(state: Path) -> Path:
    """The file of the state inside a task, by that of the state between tasks."""
    return state.with_name(state.name.replace("state", "inside", 1))


def adapters(record: Path) -> Path:
    """The folder of a run's adapters, which has one for each task, by the file of its record."""
    return record.with_name(record.stem.replace("result", "adapters", 1))


def missing(record_path: Path, record: dict, keep: Collection[Keep]) -> list[Keep]:
    """What is asked for and does not lie beside a record; a failed run has nothing to keep."""
    if record["status"] != "done":
        return []
    return [what for what in keep if not _is_there(what, record_path, record)]


def _is_there(what: Keep, record_path: Path, record: dict) -> bool:
    if what == "adapters":
        return len(list(adapters(record_path).glob("*"))) >= len(record["tasks"])
    path = predictions(record_path)
    n_scores = sum(score is not None for row in record["R"] for score in row)
    return path.exists() and n_cells(path) == n_scores
