"""Predictions of runs: of each test item the class or text that a model answered, and its score.

A file is packed JSON lines. Of a run, the first line has what its cells share, and each further
one is a cell of R, task `task` after task `after`, both counted from 0 in the order learnt:

    {"schema": 1, "key": "1f0c9d2e7a55", "tasks": ["script3", ...], "items": [[6, 7], ...],
     "cells": 19}
    {"after": 0, "task": 0, "outputs": [3, 2], "scores": [1, 0], "inferred": [0, 0]}

An item's id is its place among all test items of the prepared stream, or among all its training
items where some of those are held out and tested, so that items pair over seeds and methods. A
class is a label of the prepared stream. `inferred` are the tasks that a method took the items for,
if it says so. Files put together are a file of all their runs.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from analysis.errors import DataError
from analysis.records.reading import DAMAGED, read_bytes, unpack
from analysis.records.schema import SCHEMA
from analysis.text import visible

DECODER = json.JSONDecoder(parse_constant=lambda name: _require(False, f"the number {name}"))


class Cell(NamedTuple):
    """What was answered to the items of one task: a label or a text, and a score in [0, 1], each.

    `inferred` has the tasks that the items were taken for, None if the method does not say.
    """

    outputs: list[int] | list[str]
    scores: list[float]
    inferred: list[int] | None = None

    @property
    def score(self) -> float:
        """As R has it."""
        return fmean(self.scores)


@dataclass(frozen=True)
class Predictions:
    """Of one run.

    Attributes:
        tasks: their names, in the order learnt.
        items: of each task the ids of its test items.
        cells: by (task learnt last, task tested).
    """

    key: str
    tasks: list[str]
    items: list[list[int]]
    cells: dict[tuple[int, int], Cell]

    def belong_to(self, record: dict) -> bool:
        """Whether they are of this run as it was recorded: what they have of R is equal to it."""
        R, size = record["R"], len(self.tasks)
        if record["key"] != self.key or len(R) != size:
            return False
        whole = {(size - 1, task) for task in range(size) if R[-1][task] is not None}
        return whole <= self.cells.keys() and all(
            R[after][task] == cell.score for (after, task), cell in self.cells.items()
        )

    def pack(self) -> bytes:
        """The content of a file; the same for the same predictions."""
        head = {"schema": SCHEMA, "key": self.key, "tasks": self.tasks, "items": self.items}
        lines = [head | {"cells": len(self.cells)}]
        for (after, task), cell in sorted(self.cells.items()):
            line = {"after": after, "task": task, "outputs": cell.outputs}
            line["scores"] = [int(s) if s in (0, 1) else s for s in cell.scores]
            lines.append(line | ({} if cell.inferred is None else {"inferred": cell.inferred}))
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        return gzip.compress(text.encode(), mtime=0)


def file_of(runs: Path) -> Path:
    """Where the predictions of a file of records lie: packed as that, or gzipped."""
    packing = runs.suffix if runs.suffix != ".jsonl" else ".gz"
    name = runs.name.removesuffix(packing).removesuffix(".jsonl").removesuffix(".runs")
    return runs.with_name(f"{name}.predictions.jsonl{packing}")


def joined(paths: Iterable[Path]) -> bytes:
    """The content of a file with the runs of all these, which are packed together, being alike.

    Raises:
        DataError: as for `read`.
    """
    texts = []
    for path in paths:
        with _whole(path):
            texts.append(gzip.decompress(path.read_bytes()))
    return gzip.compress(b"".join(texts), mtime=0) if texts else b""


def n_cells(path: Path) -> int:
    """How many cells the first run of a file has; only its first line is read."""
    with _whole(path), gzip.open(path) as file:
        return _head(file.readline())["cells"]


def read(path: Path) -> list[Predictions]:
    """All runs of a file, in its order.

    Raises:
        DataError: the file is truncated, holds something else, or is not what a SHA256SUMS beside
            it lists.
    """
    with _whole(path):
        return list(_runs(unpack(path, read_bytes(path)).splitlines()))


def by_key(path: Path) -> dict[str, list[Predictions]]:
    """The runs of a file by their keys; none if there is no file."""
    found = defaultdict(list)
    for run in read(path) if path.exists() else ():
        found[run.key].append(run)
    return found


def of_record(found: dict[str, list[Predictions]], record: dict) -> Predictions | None:
    """Those of a run that is done."""
    own = found.get(record["key"], ())
    return next((run for run in own if run.belong_to(record)), None)


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (*DAMAGED, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} holds no predictions or is damaged ({visible(str(error))}): delete it, and "
            "make its runs again or restore them."
        ) from error


def _runs(lines: list[bytes]) -> Iterator[Predictions]:
    rest = iter(lines)
    for line in rest:
        head = _head(line)
        tasks, items = head["tasks"], head["items"]
        cells = dict(_cell(_parse(line), items) for line in islice(rest, head["cells"]))
        _require(len(cells) == head["cells"], "fewer cells than it says")
        yield Predictions(head["key"], tasks, items, cells)


def _parse(line: bytes) -> dict:
    value = DECODER.decode(line.decode())
    _require(isinstance(value, dict), "a line that is no object")
    return value


def _head(line: bytes) -> dict:
    head = _parse(line)
    _require(head.get("schema") == SCHEMA, f"no schema {SCHEMA}")
    _require(
        type(head["cells"]) is int and type(head["key"]) is str, "a first line of another kind"
    )
    _require(_are(head["tasks"], str) and _are(head["items"], list), "tasks of another kind")
    _require(len(head["tasks"]) == len(head["items"]), "tasks without items")
    _require(all(_are(items, int) for items in head["items"]), "items that are no whole numbers")
    return head


def _cell(line: dict, items: list[list[int]]) -> tuple[tuple[int, int], Cell]:
    place = after, task = line["after"], line["task"]
    _require(_are([*place], int), "a cell without a place")
    _require(0 <= after < len(items) and 0 <= task < len(items), "a cell of no task")
    cell = Cell(line["outputs"], line["scores"], line.get("inferred"))
    _require(_are(cell.outputs, int) or _are(cell.outputs, str), "outputs of another kind")
    _require(_are(cell.scores, int, float), "scores that are no numbers")
    _require(0 <= min(cell.scores) <= max(cell.scores) <= 1, "scores outside [0, 1]")
    _require(cell.inferred is None or _are(cell.inferred, int), "inferred tasks of another kind")
    sizes = {len(part) for part in cell if part is not None}
    _require(sizes == {len(items[task])}, "a cell with more or fewer entries than items")
    return place, cell


def _are(values: object, *kinds: type) -> bool:
    """Whether it is a list of such values."""
    return isinstance(values, list) and {*map(type, values)} <= {*kinds}


def _require(fits: bool, otherwise: str) -> None:
    if not fits:
        raise ValueError(f"it has {otherwise}")
