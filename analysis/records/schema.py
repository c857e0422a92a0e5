"""What a result record holds: the shape of each part, and what must agree among them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import numpy as np

from analysis.errors import DataError
from analysis.text import quoted, visible

SCHEMA = 1
STATUSES = ("done", "failed", "skipped")
LONGEST_NAME = 200  # bytes of what becomes the name of a folder


class Kind(NamedTuple):
    """A kind of plain value: how a sentence calls it, and whether a value is of it."""

    words: str
    fits: Callable[[object], bool]


class OrNull(NamedTuple):
    """A shape in whose place a record may hold null."""

    shape: object


def _is_name(value: object) -> bool:
    """Whether it can be the name of a file or a folder, without leading anywhere else."""
    if not isinstance(value, str) or not value or visible(value) != value or value[0] == ".":
        return False
    return not {"/", "\\"} & set(value) and len(value.encode()) <= LONGEST_NAME


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_amount(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e15


def _is_score(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _is_time(value: object) -> bool:
    """Whether it names one moment, wherever it is read."""
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _is_tree(value: object) -> bool:
    """Whether the children of every node share out its tasks."""
    if not isinstance(value, dict) or not {"tasks", "children"} <= value.keys():
        return False
    tasks, children = value["tasks"], value["children"]
    if not isinstance(tasks, list) or not tasks or not all(map(_is_count, tasks)):
        return False
    if not isinstance(children, list) or not all(map(_is_tree, children)):
        return False
    below = sorted(task for child in children for task in child["tasks"])
    return not children or below == sorted(tasks)


ANY = Kind("anything", lambda value: True)
TEXT = Kind("a text", lambda value: isinstance(value, str))
TIME = Kind("a time of ISO 8601 with its offset from UTC", _is_time)
NAME = Kind(
    f"a name of at most {LONGEST_NAME} bytes without / and \\ that does not begin with a dot",
    _is_name,
)
WHOLE = Kind("a whole number", lambda value: type(value) is int)
COUNT = Kind("a whole number of at least 0", _is_count)
AMOUNT = Kind("a number of at least 0", _is_amount)
SCORE = Kind("a score from 0 to 1", _is_score)
TREE = Kind("a tree of tasks", _is_tree)
STATUS = Kind(f"one of {', '.join(STATUSES)}", lambda value: value in STATUSES)
MODALITY = Kind("vision or language", lambda value: value in ("vision", "language"))

# A dict is an object, a list one whose entries all have its shape. A key with ? may be missing, one
# with ! only in a run that is not done. More keys may stand there.
RECORD = {
    "status": STATUS,
    "error": OrNull(TEXT),
    "key": TEXT,
    "suite": {"name": NAME, "label": TEXT, "reference?": OrNull(TEXT)},
    "spec": {
        "seed": WHOLE,
        "modality": MODALITY,
        "stream": {"name": NAME, "n_tasks": COUNT},
        "backbone": {"name": NAME},
        "method": {
            **{"label": TEXT, "title?": OrNull(TEXT), "tuned?": OrNull(TEXT), "name": TEXT},
            **{"version": WHOLE, "config": {}},
        },
        "train": {
            "epochs": [COUNT],
            "batch_size": COUNT,
            "mask": OrNull(TEXT),
            "optimizer_reset": ANY,
        },
    },
    "stream!": OrNull(
        {
            "tasks!": [TEXT],
            "groups?": OrNull([TEXT]),
            "floor?": OrNull([{"task": TEXT, "rule": TEXT, "score": SCORE}]),
            "blind_floor?": OrNull({"rule": TEXT, "scores": [SCORE]}),
            "defects?": OrNull(
                [{"task": TEXT, "kind": TEXT, "count": COUNT, "note?": OrNull(TEXT)}]
            ),
        }
    ),
    "R!": ANY,
    "tasks!": [
        {
            "name": TEXT,
            "steps": COUNT,
            "samples": COUNT,
            "train_seconds": OrNull(AMOUNT),
            "consolidate_seconds": OrNull(AMOUNT),
            "eval_seconds": OrNull(AMOUNT),
            "peak_bytes": OrNull(COUNT),
            "metric?": OrNull(TEXT),
            "n_train?": OrNull(COUNT),
            "n_test?": OrNull(COUNT),
            "task_accuracy?": OrNull([OrNull(SCORE)]),
            "router_accuracy?": OrNull([SCORE]),
            "legal_share?": OrNull([OrNull(SCORE)]),
        }
    ],
    "footprint!": OrNull(
        {
            "trainable_parameters?": OrNull(COUNT),
            "stored_parameters?": OrNull(COUNT),
            "state_bytes?": OrNull(COUNT),
        }
    ),
    "test_curve?": OrNull([{"task": COUNT, "samples": COUNT, "score": SCORE}]),
    "general?": OrNull({"text": TEXT, "tokens": COUNT, "before": AMOUNT, "after!": AMOUNT}),
    "diagnostics?": OrNull({"trees?": OrNull([TREE]), "pulls?": OrNull([OrNull([[COUNT]])])}),
    "provenance!": OrNull(
        {
            "device!": ANY,
            "threads!": OrNull(COUNT),
            "runs_per_gpu?": OrNull(COUNT),
            "tries?": OrNull([{"started": TIME, "device": TEXT, "tasks": COUNT}]),
            "started?": OrNull(TIME),
            "finished?": OrNull(TIME),
            "packages?": OrNull({}),
            "source_digest?": OrNull(TEXT),
            "sources?": OrNull({}),
        }
    ),
}


def check(record: dict, where: str) -> None:
    """DataError, which begins with `where`, for what is no record of this project."""
    if not isinstance(record, dict) or "schema" not in record:
        raise DataError(f"{where}: not a result record of this project (no schema).")
    if record["schema"] != SCHEMA:
        raise DataError(
            f"{where}: the record has schema {quoted(record['schema'])}, but this version reads "
            f"schema {SCHEMA}: use the version that wrote it."
        )
    done = record.get("status") == "done"
    _check(record, RECORD, "", done, where)
    if done:
        _check_scores(record, where)
        _check_parts(record, where)


def _check(value: object, shape: object, place: str, done: bool, where: str) -> None:
    """Whether a value, which stands at a place such as tasks[0].steps, has its shape."""
    or_null = isinstance(shape, OrNull)
    if or_null:
        if value is None:
            return
        shape = shape.shape
    own = {dict: "an object", list: "a list"}.get(type(shape))
    if not (isinstance(value, type(shape)) if own else shape.fits(value)):
        words = f"{own or shape.words}{' or null' if or_null else ''}"
        raise DataError(f"{where}: {place} must be {words}, but is {quoted(value)}.")
    if own == "a list":
        if isinstance(shape[0], Kind) and all(map(shape[0].fits, value)):
            return  # nearly all that a record holds is in such lists
        for index, entry in enumerate(value):
            _check(entry, shape[0], f"{place}[{index}]", done, where)
    elif own:
        for key, inner in shape.items():
            name = key.rstrip("?!")
            at = f"{place}.{name}" if place else name
            if name in value:
                _check(value[name], inner, at, done, where)
            elif key == name or (done and key[-1] == "!"):
                raise DataError(f"{where}: not a result record of this project: it lacks {at}.")


def _check_scores(record: dict, where: str) -> None:
    """Whether R is the lower triangle of a square over the tasks, or what was asked for of it."""
    size, rows = len(task_names(record)), record["R"]
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise DataError(f"{where}: R must be a list of lists, but is {quoted(rows)}.")
    if size == 0 or [len(row) for row in rows] != [size] * size:
        shape = f"{len(rows)} rows of {sorted({len(row) for row in rows})}"
        raise DataError(f"{where}: R must be {size} x {size} scores, but has {shape}.")
    for score in (score for row in rows for score in row):
        if score is not None and not SCORE.fits(score):
            raise DataError(f"{where}: scores must lie in [0, 1], but R holds {quoted(score)}.")
    R = scores(record)
    final = record["spec"]["train"].get("evaluate") == "final" and not np.isnan(R.diagonal()).any()
    if not (complete(R) or only_last_row(R) or final) or np.isnan(R[-1]).any():
        raise DataError(
            f"{where}: R of a finished run must hold its lower triangle or only its last row, and "
            "with evaluate: final the diagonal beside that."
        )


def _check_parts(record: dict, where: str) -> None:
    """Whether the other parts of a finished run are about its tasks."""
    size = len(task_names(record))
    if len(record["tasks"]) not in (1, size):
        raise DataError(
            f"{where}: tasks must have an entry for each of {size} tasks or one for all, but has "
            f"{len(record['tasks'])}."
        )
    if len(task_groups(record)) != size:
        raise DataError(f"{where}: {size} tasks have {len(task_groups(record))} groups.")
    if unknown := {point["task"] for point in record.get("test_curve") or ()} - set(range(size)):
        raise DataError(f"{where}: test_curve has the task {max(unknown)}, but there are {size}.")
    trees = (record.get("diagnostics") or {}).get("trees") or []
    grown = [sorted(tree["tasks"]) == list(range(n)) for n, tree in enumerate(trees, start=1)]
    if trees and (len(trees) != size or not all(grown)):
        raise DataError(f"{where}: there must be a tree after each of {size} tasks, over these.")


def task_names(record: dict) -> list[str]:
    """The tasks in the order learnt; empty where a failed run did not get that far."""
    return (record.get("stream") or {}).get("tasks") or []


def task_groups(record: dict) -> list[str]:
    """The group in which each task was planted; empty names where there are none."""
    return record["stream"].get("groups") or [""] * len(task_names(record))


def scores(record: dict) -> np.ndarray:
    """R of a finished run, (task learnt, task tested): in [0, 1], NaN where not measured."""
    return np.array(record["R"], dtype=float)


def complete(R: np.ndarray) -> bool:
    """Whether all tasks so far were tested after each."""
    return not np.isnan(R)[np.tri(len(R), dtype=bool)].any()


def only_last_row(R: np.ndarray) -> bool:
    """Whether all tasks were learnt at once, so that there is nothing to forget."""
    return len(R) > 1 and bool(np.isnan(R[:-1]).all())


def panel(spec: dict) -> str:
    """What the runs of one panel share: the stream with its limits, and the backbone."""
    return json.dumps([spec["stream"], spec["backbone"]], sort_keys=True)
