"""What every table of a panel states about its setting, and the rows of methods that it has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import PurePosixPath, PureWindowsPath

import pandas as pd

from analysis.records.metrics import OF_THE_MACHINE
from analysis.records.runs import Panel, learnt_on
from analysis.records.schema import task_names
from analysis.tables.table import Column, Table

MOST_LISTED = 20  # entries of a setting's list
OLD = " †"  # behind a method whose runs today's code would not repeat


def brief(value: object) -> str:
    """A setting's value in few characters; a list of equal entries as one."""
    if isinstance(value, list | tuple):
        entries = value[:1] if all(entry == value[0] for entry in value) else value
        more = f" ... ({len(entries)})" if len(entries) > MOST_LISTED else ""
        return " ".join(map(brief, entries[: 3 if more else None])) + more
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    absolute = PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
    return PureWindowsPath(text).name if absolute else text


def words(settings: Mapping[str, object], skip: Iterable[str] = ()) -> str:
    """Settings as one line."""
    kept = {key: value for key, value in settings.items() if key not in skip}
    return ", ".join(f"{key.replace('_', ' ')} {brief(value)}" for key, value in kept.items())


@cache
def shared_training(panel: Panel) -> tuple[dict, list[str]]:
    """The training settings that all methods share, and the names of those that differ."""
    trains = [record["spec"]["train"] for record in panel.runs["record"]]
    keys = dict.fromkeys(key for train in trains for key in train)
    # an older record does not know an option that is off
    varying = [key for key in keys if len({json.dumps(t.get(key) or None) for t in trains}) > 1]
    return {key: trains[0].get(key) for key in keys if key not in varying}, varying


def distinct(runs: pd.DataFrame, key: str) -> list[str]:
    """The different values of one provenance entry over the runs."""
    return sorted({brief(entry) for entry in runs[key].dropna()})


@cache
def setting_notes(panel: Panel) -> list[str]:
    """What the footnotes of every table state: label, stream, limits, backbone, seeds, training."""
    stream, backbone = (
        {key: value for key, value in panel.spec[part].items() if value is not None}
        for part in ("stream", "backbone")
    )
    limits = {key: value for key, value in stream.items() if "_per_" in key}
    hidden = {"name", "digest", "n_tasks", *limits}
    if panel.modality == "vision":
        hidden.add("max_prompt_tokens")
    shared, varying = shared_training(panel)
    optional = ("mask", "curve_tests", "micro_batch_size", "compile", "augment", "general")
    optional += ("checkpointing", "test_batch_size", "head_init", "loss_mean", "evaluate")
    shared = {key: value for key, value in shared.items() if value or key not in optional}
    own = f"; by method: {', '.join(varying).replace('_', ' ')}" if varying else ""
    devices, threads = _devices(panel), distinct(panel.runs, "threads")
    sharing = [] if (n := distinct(panel.runs, "runs_per_gpu")) == ["1"] else n
    compiled = any(record["spec"]["train"].get("compile") for record in panel.runs["record"])
    labels = [seen for seen in distinct(panel.runs, "weights_labels") if seen != "own"]
    seen = panel.modality == "vision" and labels != ["none"]
    unlike = " (the paper's have seen none)" if seen else ""
    mixed = " ".join(
        [" Times from different devices or thread counts do not compare.", *partly_timed(panel)]
    )
    parts = [
        f"{stream.get('n_tasks', len(panel.task_names))} tasks",
        words(limits) or "all data",
        words(stream, hidden),
        f"backbone {panel.backbone}",
        words(backbone, ("name", "digest")),
        f"labels seen by its weights: {' and '.join(labels)}{unlike}" if labels else "",
        "seeds " + ", ".join(map(str, sorted(set(panel.runs["seed"])))),
    ]
    return [
        f"{panel.suite.label} (suite {panel.suite.name}).",
        f"Stream {panel.stream}: {', '.join(part for part in parts if part)}.",
        f"Training: {words(shared)}{own}. Device {', '.join(devices) or 'unknown'}, threads per "
        f"run {', '.join(threads) or 'unknown'}"
        + (f", runs on a GPU at a time {', '.join(sharing)}." if sharing else ".")
        + (mixed if len(devices) > 1 or len(threads) > 1 else "")
        + (" TIME leaves compilation out." if compiled else ""),
    ]


def partly_timed(panel: Panel) -> list[str]:
    """Of which seeds the TIME of a method is, if some were made on another device."""
    partly: dict[str, list[str]] = {}
    for label, runs in panel.timed.items():
        if len(runs) < len(panel.finished[label]):
            partly.setdefault(", ".join(map(str, runs["seed"])), []).append(panel.titles[label])
    found = (f"{', '.join(rows)} of seeds {seeds}" for seeds, rows in partly.items())
    return [f"TIME is on one device: {'; '.join(found)}."] if partly else []


def _devices(panel: Panel) -> list[str]:
    """Those that learnt a task of a run; a run that was continued may have more than one."""
    return sorted({*distinct(panel.runs, "device")}.union(*map(learnt_on, panel.runs["record"])))


@cache
def missing_notes(panel: Panel) -> list[str]:
    """One sentence per reason why runs of a method did not finish."""
    missing = panel.runs[panel.runs["status"] != "done"].fillna({"error": "no reason recorded"})
    return [
        f"{panel.titles[label]} {status}, seed {', '.join(map(str, seeds))}: {error}"
        for (label, status, error), seeds in missing.groupby(
            ["method", "status", "error"], sort=False
        )["seed"]
    ]


def _marked(panel: Panel, label: str) -> str:
    """How a table calls a method: with a mark where its runs are older than today's code."""
    return panel.titles[label] + (OLD if label in panel.outdated else "")


def outdated_notes(panel: Panel) -> list[str]:
    """What that mark says."""
    return [f"{_marked(panel, label)}: {why}." for label, why in panel.outdated.items()]


def tuned_notes(panel: Panel) -> list[str]:
    """Which rows were tuned, by trials of which suite; nothing where none was."""
    tuned: dict[str, list[str]] = {}
    for label, spec in panel.specs.items():
        suite = (spec["method"].get("tuned") or "/").split("/")[0]
        tuned.setdefault(suite, []).append(panel.titles[label])
    untuned = tuned.pop("", [])
    notes = [
        f"Tuned, each by as many trials, in the suite {suite}: {', '.join(titles)}."
        for suite, titles in tuned.items()
    ]
    return [*notes, f"Not tuned: {', '.join(untuned)}."] if notes and untuned else notes


@cache
def source_notes(panel: Panel) -> list[str]:
    """Which rows, and more loudly which seeds of one row, come from different versions of the code.

    Records that hold the digest of each file are compared file by file, others by that of all code.
    """
    versions: dict[str, dict[str, dict[str, None]]] = {}  # of each file the digests, and of whom
    for run in panel.done.itertuples():
        provenance = run.record.get("provenance") or {}
        code = provenance.get("sources") or {"the code": provenance.get("source_digest")}
        for file, digest in code.items():
            own = versions.setdefault(file, {}).setdefault(str(digest or "unknown")[:6], {})
            own[panel.titles[run.method]] = None
    alike: dict[tuple[int, str], list[str]] = {}  # the files whose digests part the rows alike
    mixed: dict[str, None] = {}
    for file, digests in versions.items():
        labels = [label for own in digests.values() for label in own]
        mixed |= dict.fromkeys(label for label in labels if labels.count(label) > 1)
        rest = max(digests.values(), key=len)
        parts = [
            f"{digest} ({'the rest' if own is rest and len(own) > 3 else ', '.join(own)})"
            for digest, own in digests.items()
        ]
        alike.setdefault((len(digests), ", ".join(parts)), []).append(file)
    notes = [
        f"Made by {n} versions of {', '.join(files)}: {parts}."
        for (n, parts), files in alike.items()
        if n > 1
    ]
    if mixed:
        loud = "CAUTION: the seeds of one row come from different versions of the code, so that its"
        notes.insert(0, f"{loud} mean and deviation are of neither: {', '.join(mixed)}.")
    return notes


# What stands under every table of methods.
ALL_NOTES = (setting_notes, tuned_notes, missing_notes, outdated_notes, source_notes)


def counts(runs: pd.DataFrame) -> str:
    """How many seeds finished, and where not all, how many failed or were skipped."""
    statuses = list(runs["status"])
    missing = [f"{statuses.count(s)} {s}" for s in ("failed", "skipped") if s in statuses]
    done = statuses.count("done")
    return f"{done} of {len(statuses)} ({', '.join(missing)})" if missing else str(done)


def training(runs: pd.DataFrame, key: str) -> str | None:
    """One training setting of a method; None where it does not apply."""
    entries = [record["spec"]["train"].get(key) for record in runs["record"]]
    return ", ".join(dict.fromkeys(brief(v) for v in entries if v is not None)) or None


def of_methods(
    panel: Panel,
    name: str,
    title: str,
    columns: list[Column],
    rows: Iterable[dict],
    notes: Iterable[str] = (),
    bounds: Iterable[dict] = (),
) -> Table:
    """Rows of methods, what does not compete under the rule, the setting in the footnotes.

    `bounds` are rows of no method that stand under the rule too.

    Where no run of a method finished, its first numeric cell says so instead of being a hole.
    """
    first = next((column.key for column in columns if column.show), None)
    above, below = [], []
    for row in rows:
        label = row["method"]
        if first and label not in panel.finished:
            statuses = panel.methods[label]["status"]
            row = row | {first: f"{statuses.iloc[0]} ({len(statuses)})"}
        competes = label not in panel.upper_bounds and not panel.is_untrained(label)
        (above if competes else below).append(row)
    return Table(
        f"{name}-{panel.slug}",
        f"{panel.stream}, {panel.backbone}: {title}",
        [Column("method", "Method"), *columns],
        above,
        [*below, *bounds],
        [*notes, *_elsewhere(panel, columns)],
        [note for notes in ALL_NOTES for note in notes(panel)],
        facts(panel),
        {label: _marked(panel, label) for label in panel.titles},
        elsewhere=panel.elsewhere,
    )


def _elsewhere(panel: Panel, columns: list[Column]) -> list[str]:
    """What parentheses around a cost say, if there are any."""
    if not panel.elsewhere or not any(column.key in OF_THE_MACHINE for column in columns):
        return []
    reference = panel.titles.get(panel.reference, panel.reference)
    return [f"(In parentheses): does not compare with {reference}'s, another device or load."]


def stuck_notes(panel: Panel) -> list[str]:
    """Whose inference of the task tells none apart: after the last it finds one and no other."""
    stuck = {}
    for label, runs in panel.finished.items():
        shares = {
            (seed, name): share
            for seed, record in zip(runs["seed"], runs["record"], strict=True)
            if (found := record["tasks"][-1].get("task_accuracy"))
            for name, share in zip(task_names(record), found, strict=False)
        }
        found = {place for place, share in shares.items() if share > 0.02}
        n_runs = len({seed for seed, _ in shares})
        if len(shares) > n_runs and len({seed for seed, _ in found}) == len(found):
            stuck[panel.titles[label]] = ", ".join(sorted({name for _, name in found})) or "none"
    if not stuck:
        return []
    words = "; ".join(f"{label} ({tasks})" for label, tasks in stuck.items())
    return [f"Inference of the task fails here, as it finds one and no other: {words}."]


@cache
def facts(panel: Panel) -> dict[str, object]:
    return dict(panel.runs[["suite", "suite_label", "stream", "backbone"]].iloc[0])
