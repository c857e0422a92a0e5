"""Reads result records (one JSON object per line), checks them, and sorts them into panels.

A panel holds the runs of one stream on one backbone: what one table or one figure shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

SCHEMA = 1
STATUSES = ("done", "failed", "skipped")
SPEC_KEYS = (
    *("seed", "modality", "stream.name", "backbone.name"),
    *("method.label", "method.name", "method.version", "method.config"),
    *("train.epochs", "train.batch_size", "train.mask", "train.optimizer_reset"),
)
KEYS = ("status", "error", "key", "suite.name", "suite.label", *(f"spec.{k}" for k in SPEC_KEYS))
DONE_KEYS = ("stream.tasks", "tasks", "R", "footprint", "provenance.device", "provenance.threads")
TIMES = ("train_seconds", "consolidate_seconds", "eval_seconds")
TASK_KEYS = ("name", "steps", "samples", *TIMES, "peak_bytes")
# The order in which tables and legends list methods; others follow by name, the upper bound last.
METHOD_ORDER = ("seqlora", "ewc", "gem", "l2p", "olora", "treelora")
UPPER_BOUND = "joint"
_ABSENT = object()


class RecordError(ValueError):
    """A file of records that cannot be used; its text is one sentence for the user."""


def lookup(record: object, path: str, default: object = _ABSENT) -> object:
    """The value at a dotted path such as `spec.method.label`, or `default`."""
    for part in path.split("."):
        if not isinstance(record, dict) or part not in record:
            return default
        record = record[part]
    return record


@dataclass(frozen=True)
class Run:
    """One checked record."""

    record: dict

    spec = property(lambda self: self.record["spec"])
    key = property(lambda self: self.record["key"])
    status = property(lambda self: self.record["status"])
    done = property(lambda self: self.status == "done")
    error = property(lambda self: self.record["error"] or "no reason recorded")
    seed = property(lambda self: self.spec["seed"])
    label = property(lambda self: self.spec["method"]["label"])
    provenance = property(lambda self: self.record.get("provenance") or {})

    @property
    def task_names(self) -> list[str]:
        """The tasks in the order learnt; empty where a failed run did not get that far."""
        return (self.record.get("stream") or {}).get("tasks") or []

    @cached_property
    def R(self) -> np.ndarray:
        """(task learnt, task tested): scores in [0, 1], NaN where not measured."""
        return np.array(self.record["R"], dtype=float)

    @property
    def only_last_row(self) -> bool:
        """Whether all tasks were learnt at once, so that there is nothing to forget."""
        return self.done and len(self.R) > 1 and bool(np.isnan(self.R[:-1]).all())


@dataclass(frozen=True)
class Panel:
    """The runs of one stream on one backbone; `slug` is its part of a file name."""

    suite: str
    suite_label: str
    slug: str
    runs: tuple[Run, ...]

    stream = property(lambda self: self.runs[0].spec["stream"]["name"])
    backbone = property(lambda self: self.runs[0].spec["backbone"]["name"])
    modality = property(lambda self: self.runs[0].spec["modality"])

    @property
    def task_names(self) -> list[str]:
        """The tasks as one of the runs learnt them."""
        return next((run.task_names for run in self.runs if run.task_names), [])

    @property
    def score(self) -> str:
        """What the literature calls the mean final score: ACC on vision, OP on language."""
        return "OP" if self.modality == "language" else "ACC"

    @cached_property
    def labels(self) -> list[str]:
        """The methods in the order in which they are shown."""

        def rank(label: str) -> tuple:
            known = METHOD_ORDER.index(label) if label in METHOD_ORDER else len(METHOD_ORDER)
            return self.is_upper_bound(label), known, label

        return sorted({run.label for run in self.runs}, key=rank)

    def of(self, label: str, done: bool = True) -> list[Run]:
        """The finished (or with done=False all) runs of one method, by seed."""
        runs = (run for run in self.runs if run.label == label and (run.done or not done))
        return sorted(runs, key=lambda run: run.seed)

    def is_upper_bound(self, label: str) -> bool:
        """Whether the method sees all tasks at once and so is no competitor."""
        return label == UPPER_BOUND or any(run.only_last_row for run in self.of(label))


@dataclass(frozen=True)
class Suite:
    """All records of one file."""

    name: str
    label: str
    file: str
    digest: str
    runs: tuple[Run, ...]

    @cached_property
    def panels(self) -> list[Panel]:
        """The panels in the order of the file."""
        groups: dict[str, list[Run]] = {}
        for slug, run in zip(slugs([run.spec for run in self.runs]), self.runs, strict=True):
            groups.setdefault(slug, []).append(run)
        return [Panel(self.name, self.label, slug, tuple(g)) for slug, g in groups.items()]


def slugs(specs: list[dict]) -> list[str]:
    """The panel of each spec: its stream, where needed with the backbone and a number."""
    panels = [(spec["stream"]["name"], spec["backbone"]["name"], _panel(spec)) for spec in specs]
    names: dict[str, str] = {}
    for stream, backbone, panel in sorted(set(panels)):
        alone = len({other for name, _, other in panels if name == stream}) == 1
        slug = stem = stream if alone else f"{stream}-{backbone}"
        number = 2
        while slug in names.values():
            slug, number = f"{stem}-{number}", number + 1
        names[panel] = slug
    return [names[panel] for _, _, panel in panels]


def _panel(spec: dict) -> str:
    """What the runs of one panel share: the stream with its limits, and the backbone."""
    return json.dumps([spec["stream"], spec["backbone"]], sort_keys=True)


def read(path: Path) -> Suite:
    """Reads and checks a file of records.

    Raises RecordError with one sentence for a file that is missing, empty, truncated, of another
    schema, not made by this project, or different from the digest in a SHA256SUMS beside it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(
            f"{path} cannot be read ({error.strerror}): give a runs.jsonl that "
            "`python -m benchmarks.results collect` has written."
        ) from None
    digest = hashlib.sha256(content).hexdigest()
    _check_published(path, digest)
    runs = []
    for number, line in enumerate(content.splitlines(), start=1):
        runs.append(_parse(line, f"{path}, line {number}"))
    if not runs:
        raise RecordError(f"{path} holds no record: collect the suite again.")
    _check_together(path, runs)
    suite = runs[0].record["suite"]
    return Suite(suite["name"], suite["label"], path.name, digest, tuple(runs))


def _check_published(path: Path, digest: str) -> None:
    sums = path.parent / "SHA256SUMS"
    if not sums.is_file():
        return
    listed = dict(reversed(line.split(maxsplit=1)) for line in sums.read_text().splitlines())
    expected = listed.get(path.name) or listed.get(f"*{path.name}")
    if expected is None:
        raise RecordError(
            f"{path} is not listed in {sums}: published files are added with "
            "`python -m benchmarks.results publish`."
        )
    if expected != digest:
        raise RecordError(
            f"{path} has the digest {digest[:12]}, but {sums} lists {expected[:12]}: "
            "the file was changed after it was published, so restore it."
        )


def _parse(line: bytes, where: str) -> Run:
    def no_constant(name: str) -> None:
        raise ValueError(f"the number {name}, which is not JSON")

    try:
        record = json.loads(line, parse_constant=no_constant)
    except ValueError as error:
        reason = getattr(error, "msg", None) or str(error)
        raise RecordError(
            f"{where}: corrupt or truncated ({reason}); collect the suite again."
        ) from None
    if not isinstance(record, dict) or "schema" not in record:
        raise RecordError(f"{where}: not a result record of this project (no schema).")
    if record["schema"] != SCHEMA:
        raise RecordError(
            f"{where}: the record has schema {record['schema']!r}, but this version reads "
            f"schema {SCHEMA}: use the version that wrote it."
        )
    missing = [key for key in KEYS if lookup(record, key) is _ABSENT]
    if record.get("status") == "done":
        missing += [key for key in DONE_KEYS if lookup(record, key) is _ABSENT]
    if missing:
        raise RecordError(f"{where}: not a result record of this project, as it lacks {missing}.")
    if record["status"] not in STATUSES:
        raise RecordError(
            f"{where}: the status is {record['status']!r}, but must be one of {STATUSES}."
        )
    run = Run(record)
    if run.done:
        _check_done(run, where)
    return run


def _check_done(run: Run, where: str) -> None:
    for index, task in enumerate(run.record["tasks"]):
        missing = [key for key in TASK_KEYS if lookup(task, key) is _ABSENT]
        if missing:
            raise RecordError(f"{where}: entry {index} of tasks lacks {missing}.")
    size = len(run.task_names)
    try:
        shape = run.R.shape
    except (TypeError, ValueError):
        shape = "ragged or not numeric"
    if size == 0 or shape != (size, size):
        raise RecordError(f"{where}: R must be {size} x {size} scores, but is {shape}.")
    measured = ~np.isnan(run.R)
    full = measured[np.tril_indices(size)].all()
    if not (full or run.only_last_row) or not measured[-1].all():
        raise RecordError(
            f"{where}: R of a finished run must hold its lower triangle or only its last row."
        )
    outside = run.R[measured & ~((run.R >= 0) & (run.R <= 1))]
    if outside.size:
        raise RecordError(f"{where}: scores must lie in [0, 1], but R holds {outside[0]:g}.")


def _check_together(path: Path, runs: Iterable[Run]) -> None:
    seen: dict[tuple, int] = {}
    for number, run in enumerate(runs, start=1):
        name = run.record["suite"]["name"]
        for what in ((run.label, run.key), (run.label, run.seed, _panel(run.spec))):
            if what in seen:
                raise RecordError(
                    f"{path}, line {number}: {run.label} with seed {run.seed} (key {run.key}) "
                    f"stands already on line {seen[what]}; collect the suite again."
                )
            seen[what] = number
        if seen.setdefault(("suite", name), number) > 1:
            raise RecordError(
                f"{path}, line {number}: belongs to the suite {name!r}, but the file began with "
                "another one; collect one suite per file."
            )
