"""Reads result records (one JSON object per line), checks them, and tells which panel they are of.

A panel is one stream on one backbone: what one table or one figure shows.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

SCHEMA = 1
PUBLISHED = Path(__file__).parents[1] / "benchmarks/published"
EXPERIMENTS = (PUBLISHED / "regret.json", PUBLISHED / "accounting.json")  # of no suite
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


class RecordError(ValueError):
    """A file of records that cannot be used; its text is one sentence for the user."""


def task_names(record: dict) -> list[str]:
    """The tasks in the order learnt; empty where a failed run did not get that far."""
    return (record.get("stream") or {}).get("tasks") or []


def scores(record: dict) -> np.ndarray:
    """R of a finished run, (task learnt, task tested): in [0, 1], NaN where not measured."""
    return np.array(record["R"], dtype=float)


def only_last_row(R: np.ndarray) -> bool:
    """Whether all tasks were learnt at once, so that there is nothing to forget."""
    return len(R) > 1 and bool(np.isnan(R[:-1]).all())


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


def read(path: Path) -> tuple[list[dict], str]:
    """The checked records of a file, and the SHA-256 of the file.

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
    lines = enumerate(content.splitlines(), start=1)
    records = [_parse(line, f"{path}, line {number}") for number, line in lines]
    if not records:
        raise RecordError(f"{path} holds no record: collect the suite again.")
    _check_together(path, records)
    return records, digest


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


def _parse(line: bytes, where: str) -> dict:
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
    done = record.get("status") == "done"
    if missing := _missing(record, KEYS + DONE_KEYS if done else KEYS):
        raise RecordError(f"{where}: not a result record of this project, as it lacks {missing}.")
    if record["status"] not in STATUSES:
        raise RecordError(
            f"{where}: the status is {record['status']!r}, but must be one of {STATUSES}."
        )
    if done:
        _check_done(record, where)
    return record


def _missing(record: object, paths: tuple[str, ...]) -> list[str]:
    """The dotted paths, such as `spec.method.label`, that lead nowhere."""

    def leads(path: str) -> bool:
        place = record
        for part in path.split("."):
            if not isinstance(place, dict) or part not in place:
                return False
            place = place[part]
        return True

    return [path for path in paths if not leads(path)]


def _check_done(record: dict, where: str) -> None:
    for index, task in enumerate(record["tasks"]):
        if missing := _missing(task, TASK_KEYS):
            raise RecordError(f"{where}: entry {index} of tasks lacks {missing}.")
    size = len(task_names(record))
    try:
        R = scores(record)
        shape = R.shape
    except (TypeError, ValueError):
        shape = "ragged or not numeric"
    if size == 0 or shape != (size, size):
        raise RecordError(f"{where}: R must be {size} x {size} scores, but is {shape}.")
    measured = ~np.isnan(R)
    full = measured[np.tril_indices(size)].all()
    if not (full or only_last_row(R)) or not measured[-1].all():
        raise RecordError(
            f"{where}: R of a finished run must hold its lower triangle or only its last row."
        )
    outside = R[measured & ~((R >= 0) & (R <= 1))]
    if outside.size:
        raise RecordError(f"{where}: scores must lie in [0, 1], but R holds {outside[0]:g}.")


def _check_together(path: Path, records: list[dict]) -> None:
    suite = records[0]["suite"]["name"]
    seen: dict[tuple, int] = {}
    for number, record in enumerate(records, start=1):
        spec, key = record["spec"], record["key"]
        label, seed = spec["method"]["label"], spec["seed"]
        for what in ((label, key), (label, seed, _panel(spec))):
            if what in seen:
                raise RecordError(
                    f"{path}, line {number}: {label} with seed {seed} (key {key}) "
                    f"stands already on line {seen[what]}; collect the suite again."
                )
            seen[what] = number
        if (name := record["suite"]["name"]) != suite:
            raise RecordError(
                f"{path}, line {number}: belongs to the suite {name!r}, but the file began with "
                "another one; collect one suite per file."
            )
