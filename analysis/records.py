"""Reads result records (one JSON object per line), checks them, and tells which panel they are of.

A panel is one stream on one backbone: what one table or one figure shows.

Records may come from a stranger. What is read here is checked here, so that nothing downstream
meets a value of another kind, a name that leads out of a folder, or a character that is a command.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from math import isfinite
from pathlib import Path

import numpy as np

from analysis.text import quoted, visible

SCHEMA = 1
PUBLISHED = Path(__file__).parents[1] / "benchmarks/published"
EXPERIMENTS = (PUBLISHED / "regret.json", PUBLISHED / "accounting.json")  # of no suite
STATUSES = ("done", "failed", "skipped")
SPEC_KEYS = (
    *("seed", "modality", "stream.name", "backbone.name"),
    *("method.label", "method.name", "method.version", "method.config"),
    *("stream.n_tasks", "train.epochs", "train.batch_size", "train.mask"),
    "train.optimizer_reset",
)
KEYS = ("status", "error", "key", "suite.name", "suite.label", *(f"spec.{k}" for k in SPEC_KEYS))
DONE_KEYS = ("stream.tasks", "tasks", "R", "footprint", "provenance.device", "provenance.threads")
TIMES = ("train_seconds", "consolidate_seconds", "eval_seconds")
# What each entry of a list must have.
ENTRY_KEYS = {
    "tasks": ("name", "steps", "samples", *TIMES, "peak_bytes"),
    "stream.floor": ("task", "rule", "score"),
    "stream.defects": ("task", "kind", "count"),
    "test_curve": ("task", "samples", "score"),
}
MOST_DEPTH = 100  # of a value within values: a tree over as many tasks has not more
LONGEST_NAME, LONGEST_SLUG = 200, 150  # bytes: of what becomes a folder, of part of a file name


class RecordError(ValueError):
    """A file of records that cannot be used; its text is one sentence for the user."""


def _is_name(value: object) -> bool:
    """Whether it can be the name of a file or a folder, without leading anywhere else."""
    if not isinstance(value, str) or not value or visible(value) != value or value[0] == ".":
        return False
    return not {"/", "\\"} & set(value) and len(value.encode()) <= LONGEST_NAME


def _is_whole(value: object) -> bool:
    return type(value) is int


def _is_count(value: object) -> bool:
    return _is_whole(value) and 0 <= value < 2**53


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 1e15


def _is_score(value: object) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_text(value: object) -> bool:
    return isinstance(value, str)


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


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_count, value))


# Kinds of values, and where they stand; * is every entry. Null is allowed where the kind says so.
KINDS = {
    "a text": (
        _is_text,
        *("key", "suite.label", "spec.method.label", "spec.method.name"),
        *("stream.tasks.*", "stream.groups.*", "tasks.*.name"),
        *("stream.floor.*.task", "stream.floor.*.rule"),
        *("stream.defects.*.task", "stream.defects.*.kind"),
    ),
    "a text or null": (
        lambda value: value is None or _is_text(value),
        *("error", "spec.train.mask", "tasks.*.metric", "stream.defects.*.note"),
        *("provenance.started", "provenance.finished"),
    ),
    f"a name of at most {LONGEST_NAME} bytes without / and \\ that does not begin with a dot": (
        _is_name,
        *("suite.name", "spec.stream.name", "spec.backbone.name"),
    ),
    "vision or language": (lambda value: value in ("vision", "language"), "spec.modality"),
    "a whole number": (_is_whole, "spec.seed", "spec.method.version"),
    "a whole number of at least 0": (
        _is_count,
        *("spec.stream.n_tasks", "spec.train.epochs.*", "spec.train.batch_size"),
        *("tasks.*.steps", "tasks.*.samples", "test_curve.*.task", "test_curve.*.samples"),
        "stream.defects.*.count",
    ),
    "a whole number of at least 0 or null": (
        lambda value: value is None or _is_count(value),
        *("tasks.*.peak_bytes", "tasks.*.n_train", "tasks.*.n_test", "provenance.threads"),
        *("footprint.trainable_parameters", "footprint.stored_parameters"),
        "footprint.state_bytes",
    ),
    "a number of at least 0 or null": (
        lambda value: value is None or (_is_number(value) and value >= 0),
        *(f"tasks.*.{key}" for key in TIMES),
    ),
    "a score from 0 to 1": (
        _is_score,
        *("test_curve.*.score", "stream.floor.*.score"),
        *("tasks.*.task_accuracy.*", "tasks.*.router_accuracy.*"),
    ),
    "a list": (
        lambda value: isinstance(value, list),
        *("tasks", "R", "stream.tasks", "spec.train.epochs"),
    ),
    "a list or null": (
        lambda value: value is None or isinstance(value, list),
        *("test_curve", "stream.groups", "stream.floor", "stream.defects"),
        *("tasks.*.task_accuracy", "tasks.*.router_accuracy"),
        *("diagnostics.trees", "diagnostics.pulls", "diagnostics.pulls.*"),
    ),
    "a list of whole numbers": (_are_counts, "diagnostics.pulls.*.*"),
    "an object": (
        lambda value: isinstance(value, dict),
        *("spec.method.config", "spec.train", "spec.stream", "spec.backbone"),
    ),
    "an object or null": (
        lambda value: value is None or isinstance(value, dict),
        *("stream", "provenance", "provenance.packages", "footprint", "diagnostics"),
    ),
    "a tree of tasks": (_is_tree, "diagnostics.trees.*"),
}


def task_groups(record: dict) -> list[str]:
    """The group in which each task was planted; empty names where there are none."""
    return record["stream"].get("groups") or [""] * len(task_names(record))


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
        stem = stream if alone else f"{stream}-{backbone}"
        slug = stem = stem.encode()[:LONGEST_SLUG].decode(errors="ignore")
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

    All text in them is `visible`.

    Raises RecordError with one sentence for a file that is missing, empty, truncated, of another
    schema, not made by this project, or different from the digest in a SHA256SUMS beside it, and
    for a value of another kind than `KINDS` says.
    """
    content = read_bytes(path)
    digest = hashlib.sha256(content).hexdigest()
    lines = enumerate(content.splitlines(), start=1)
    records = [_parse(line, f"{path}, line {number}") for number, line in lines]
    if not records:
        raise RecordError(f"{path} holds no record: collect the suite again.")
    _check_together(path, records)
    return records, digest


def read_bytes(path: Path) -> bytes:
    """The content of a plain file, which has the digest that a SHA256SUMS beside it lists."""
    try:
        if path.exists() and not path.is_file():
            raise RecordError(f"{path} is no plain file: give a runs.jsonl.")
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(
            f"{path} cannot be read ({error.strerror}): give a runs.jsonl that "
            "`python -m benchmarks.runs.results collect` has written."
        ) from None
    _check_published(path, hashlib.sha256(content).hexdigest())
    return content


def _check_published(path: Path, digest: str) -> None:
    sums = path.parent / "SHA256SUMS"
    if not sums.is_file():
        return
    lines = [line.split(maxsplit=1) for line in sums.read_text(errors="replace").splitlines()]
    listed = {words[1]: words[0] for words in lines if len(words) == 2}
    expected = listed.get(path.name) or listed.get(f"*{path.name}")
    if expected is None:
        raise RecordError(
            f"{path} is not listed in {sums}: published files are added with "
            "`python -m benchmarks.runs.results publish`."
        )
    if expected != digest:
        raise RecordError(
            f"{path} has the digest {digest[:12]}, but {sums} lists {expected[:12]}: "
            "the file was changed after it was published, so restore it."
        )


def parse(text: bytes) -> object:
    """JSON whose every value can be computed with and printed; ValueError says what cannot.

    Text becomes `visible`. Beyond what JSON says, no key may stand twice, and numbers are finite
    and have at most 64 bits.
    """

    def no_constant(name: str) -> None:
        raise ValueError(f"the number {name}, which is not JSON")

    def unique(pairs: list[tuple[str, object]]) -> dict:
        whole = {visible(key): value for key, value in pairs}
        if len(whole) < len(pairs):
            keys = [visible(key) for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"the key {quoted(twice)} stands twice")
        return whole

    try:
        value = json.loads(text, parse_constant=no_constant, object_pairs_hook=unique)
        return _plain(value, 0)
    except RecursionError:
        raise ValueError("values are nested too deeply") from None


def _plain(value: object, depth: int) -> object:
    if depth > MOST_DEPTH:
        raise ValueError("values are nested too deeply")
    if isinstance(value, dict):
        return {key: _plain(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry, depth + 1) for entry in value]
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("a number that is not finite")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("a whole number of more than 64 bits")
    return visible(value) if isinstance(value, str) else value


def _parse(line: bytes, where: str) -> dict:
    try:
        record = parse(line)
    except ValueError as error:
        reason = getattr(error, "msg", None) or str(error)
        raise RecordError(
            f"{where}: corrupt or truncated ({reason}); collect the suite again."
        ) from None
    if not isinstance(record, dict) or "schema" not in record:
        raise RecordError(f"{where}: not a result record of this project (no schema).")
    if record["schema"] != SCHEMA:
        raise RecordError(
            f"{where}: the record has schema {quoted(record['schema'])}, but this version reads "
            f"schema {SCHEMA}: use the version that wrote it."
        )
    done = record.get("status") == "done"
    if missing := _missing(record, KEYS + DONE_KEYS if done else KEYS):
        raise RecordError(f"{where}: not a result record of this project, as it lacks {missing}.")
    if record["status"] not in STATUSES:
        raise RecordError(
            f"{where}: the status is {quoted(record['status'])}, but must be one of {STATUSES}."
        )
    _check_entries(record, where)
    _check_kinds(record, where)
    if done:
        _check_done(record, where)
    return record


def _missing(record: object, paths: tuple[str, ...]) -> list[str]:
    """The dotted paths, such as `spec.method.label`, that lead nowhere."""
    return [path for path in paths if not list(_places(record, path.split(".")))]


def _places(value: object, parts: list[str], at: str = "") -> Iterator[tuple[str, object]]:
    """Every value to which a path leads, with its place; * stands for all entries of a list."""
    if not parts:
        yield at, value
    elif parts[0] == "*":
        for index, entry in enumerate(value if isinstance(value, list) else ()):
            yield from _places(entry, parts[1:], f"{at}[{index}]")
    elif isinstance(value, dict) and parts[0] in value:
        yield from _places(value[parts[0]], parts[1:], f"{at}.{parts[0]}" if at else parts[0])


def _check_entries(record: dict, where: str) -> None:
    for path, keys in ENTRY_KEYS.items():
        entries = [entry for _, entry in _places(record, [*path.split("."), "*"])]
        for index, entry in enumerate(entries):
            if missing := _missing(entry, keys):
                raise RecordError(f"{where}: entry {index} of {path} lacks {missing}.")


def _check_kinds(record: dict, where: str) -> None:
    for kind, (fits, *paths) in KINDS.items():
        for path in paths:
            for place, value in _places(record, path.split(".")):
                if path == "R" and record["status"] != "done":
                    continue  # a run that failed has none
                if not fits(value):
                    raise RecordError(f"{where}: {place} must be {kind}, but is {quoted(value)}.")


def _check_done(record: dict, where: str) -> None:
    size, rows = len(task_names(record)), record["R"]
    square = len(rows) == size > 0 and all(isinstance(r, list) and len(r) == size for r in rows)
    if not square:
        lengths = {len(row) if isinstance(row, list) else None for row in rows}
        shape = (len(rows), *lengths) if len(lengths) == 1 else "ragged or not numeric"
        raise RecordError(f"{where}: R must be {size} x {size} scores, but is {shape}.")
    for score in (score for row in rows for score in row):
        if score is not None and not _is_score(score):
            raise RecordError(f"{where}: scores must lie in [0, 1], but R holds {quoted(score)}.")
    R = scores(record)
    measured = ~np.isnan(R)
    full = measured[np.tril_indices(size)].all()
    if not (full or only_last_row(R)) or not measured[-1].all():
        raise RecordError(
            f"{where}: R of a finished run must hold its lower triangle or only its last row."
        )
    if len(record["tasks"]) not in (1, size):
        raise RecordError(
            f"{where}: tasks must have an entry for each of {size} tasks or one for all, but has "
            f"{len(record['tasks'])}."
        )
    if len(task_groups(record)) != size:
        raise RecordError(f"{where}: {size} tasks have {len(task_groups(record))} groups.")
    if unknown := {point["task"] for point in record.get("test_curve") or ()} - set(range(size)):
        raise RecordError(f"{where}: test_curve has the task {max(unknown)}, but there are {size}.")
    trees = (record.get("diagnostics") or {}).get("trees") or []
    grown = [sorted(tree["tasks"]) == list(range(n)) for n, tree in enumerate(trees, start=1)]
    if trees and (len(trees) != size or not all(grown)):
        raise RecordError(f"{where}: there must be a tree after each of {size} tasks, over these.")


def _check_together(path: Path, records: list[dict]) -> None:
    suite = records[0]["suite"]["name"]
    seen: dict[tuple, int] = {}
    sizes: dict[str, int] = {}
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
        if record["status"] == "done":
            size = len(task_names(record))
            if sizes.setdefault(_panel(spec), size) != size:
                raise RecordError(
                    f"{path}, line {number}: has {size} tasks, but an earlier run on this stream "
                    f"and backbone has {sizes[_panel(spec)]}; collect the suite again."
                )
