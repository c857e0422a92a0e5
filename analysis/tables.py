"""Which tables there are of a panel, and what each of them must state about its setting."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from analysis import compare
from analysis.metrics import METRICS, Estimate, estimate, measure, paired_difference
from analysis.records import Panel, Run, Suite
from analysis.table import Column, Table, count, mebibytes, percent, plain, to_csv


def brief(value: object) -> str:
    """A setting's value in few characters; a list of equal entries as one."""
    if isinstance(value, list):
        entries = value[:1] if all(entry == value[0] for entry in value) else value
        return " ".join(map(brief, entries))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def words(settings: Mapping[str, object], skip: Iterable[str] = ()) -> str:
    """Settings as one line."""
    kept = {key: value for key, value in settings.items() if key not in skip}
    return ", ".join(f"{key.replace('_', ' ')} {brief(value)}" for key, value in kept.items())


def shared_training(panel: Panel) -> tuple[dict, list[str]]:
    """The training settings that all methods share, and the names of those that differ."""
    trains = [run.spec["train"] for run in panel.runs]
    keys = dict.fromkeys(key for train in trains for key in train)
    varying = [key for key in keys if len({json.dumps(t.get(key)) for t in trains}) > 1]
    return {key: trains[0].get(key) for key in keys if key not in varying}, varying


def distinct(runs: Iterable[Run], key: str) -> list[str]:
    """The different values of one provenance entry over the runs."""
    return sorted({brief(v) for run in runs if (v := run.provenance.get(key)) is not None})


def setting_notes(panel: Panel) -> list[str]:
    """What the footnotes of every table state: label, stream, limits, backbone, seeds, training."""
    spec = panel.runs[0].spec
    stream = {key: value for key, value in spec["stream"].items() if value is not None}
    limits = {key: value for key, value in stream.items() if "_per_" in key}
    hidden = {"name", "digest", "n_tasks", *limits}
    if panel.modality == "vision":
        hidden.add("max_prompt_tokens")
    backbone = {key: value for key, value in spec["backbone"].items() if value is not None}
    shared, varying = shared_training(panel)
    if shared.get("mask", "") is None:
        del shared["mask"]
    own = f"; by method: {', '.join(varying).replace('_', ' ')}" if varying else ""
    devices, threads = (distinct(panel.runs, key) for key in ("device", "threads"))
    mixed = " Times from different devices or thread counts do not compare."
    parts = [
        f"{stream.get('n_tasks', len(panel.task_names))} tasks",
        words(limits) or "all data",
        words(stream, hidden),
        f"backbone {panel.backbone}",
        words(backbone, ("name", "digest")),
        "seeds " + ", ".join(str(seed) for seed in sorted({run.seed for run in panel.runs})),
    ]
    return [
        f"{panel.suite_label} (suite {panel.suite}).",
        f"Stream {panel.stream}: {', '.join(part for part in parts if part)}.",
        f"Training: {words(shared)}{own}. Device {', '.join(devices) or 'unknown'}, threads per "
        f"run {', '.join(threads) or 'unknown'}."
        + (mixed if len(devices) > 1 or len(threads) > 1 else ""),
    ]


def missing_notes(panel: Panel) -> list[str]:
    """One sentence per reason why runs of a method did not finish."""
    seeds: dict[tuple[str, str, str], list[str]] = {}
    for run in panel.runs:
        if not run.done:
            seeds.setdefault((run.label, run.status, run.error), []).append(str(run.seed))
    return [
        f"{label} {status}, seed {', '.join(numbers)}: {error}"
        for (label, status, error), numbers in seeds.items()
    ]


def estimates(panel: Panel, label: str) -> dict[str, Estimate | None]:
    """Every metric of a method over its finished seeds."""
    measured = [measure(run) for run in panel.of(label)]
    return {name: estimate(values[name] for values in measured) for name in METRICS}


def _counts(panel: Panel, label: str) -> str:
    """How many seeds finished, and where not all, how many failed or were skipped."""
    statuses = [run.status for run in panel.of(label, done=False)]
    missing = [f"{statuses.count(s)} {s}" for s in ("failed", "skipped") if s in statuses]
    done = statuses.count("done")
    return f"{done} of {len(statuses)} ({', '.join(missing)})" if missing else str(done)


def _train(panel: Panel, label: str, key: str) -> str | None:
    """One training setting of a method; None where it does not apply."""
    values = [run.spec["train"].get(key) for run in panel.of(label, done=False)]
    return ", ".join(dict.fromkeys(brief(v) for v in values if v is not None)) or None


def _table(
    panel: Panel,
    name: str,
    title: str,
    columns: list[Column],
    rows: Iterable[dict],
    notes: Iterable[str] = (),
) -> Table:
    """Rows of methods, the upper bound under the rule, with the setting in the footnotes.

    Where no run of a method finished, its first numeric cell says so instead of being a hole.
    """
    first = next((column.key for column in columns if column.show), None)
    above, below = [], []
    for row in rows:
        statuses = [run.status for run in panel.of(row["method"], done=False)]
        if first and "done" not in statuses:
            row = row | {first: f"{statuses[0]} ({len(statuses)})"}
        (below if panel.is_upper_bound(row["method"]) else above).append(row)
    return Table(
        f"{name}-{panel.slug}",
        f"{panel.stream}, {panel.backbone}: {title}",
        [Column("method", "Method"), *columns],
        above,
        below,
        list(notes),
        setting_notes(panel) + missing_notes(panel),
        _facts(panel),
    )


def _facts(panel: Panel) -> dict[str, str]:
    facts = {"suite": panel.suite, "suite_label": panel.suite_label, "stream": panel.stream}
    return facts | {"backbone": panel.backbone}


def accuracy(panel: Panel) -> Table:
    """The analogue of the paper's Tables 1 and 3, with published counterparts where there are."""
    columns = [
        Column("runs", "Seeds"),
        Column("acc", f"{panel.score} ↑", percent, +1),
        Column("bwt_paper", "BWT (paper) ↓", percent, -1),
        Column("bwt_released", "BWT (released) ↑", percent, +1),
        Column("bwt_standard", "BWT (standard) ↑", percent, +1),
        Column("forgetting", "Forgetting ↓", percent, -1),
        Column("time_seconds", "TIME s ↓", plain, -1),
        Column("ms_per_step", "ms/step ↓", plain, -1),
        Column("steps", "Steps", count),
        Column("peak_bytes", "Peak MiB", mebibytes),
        Column("trainable_parameters", "Trainable", count),
        Column("mask", "Mask"),
        Column("optimizer_reset", "Reset"),
    ]
    rows, sources = [], {}
    for label in panel.labels:
        row = {"method": label} | estimates(panel, label)
        row |= {key: _train(panel, label, key) for key in ("mask", "optimizer_reset")}
        row["runs"] = _counts(panel, label)
        for who, find in (("paper", compare.paper), ("independent", compare.independent)):
            if found := find(panel.of(label, done=False)[0]):
                row |= {f"{who}_{metric}": value for metric, value in found[0].items()}
                sources.setdefault(found[1], []).append(label)
        rows.append(row)
    for column in reversed(columns.copy()):
        for who in ("independent", "paper"):
            key = f"{who}_{column.key}"
            if any(row.get(key) for row in rows):
                beside = Column(key, f"{column.title[:-2]}, {who}", column.show)
                columns.insert(columns.index(column) + 1, beside)
    notes = [
        "Scores in percent; mean ± sample standard deviation over seeds; best in bold, upper bound "
        "apart; – is not defined. Mask: class logits that compete in the training loss. Reset: "
        "the optimiser starts anew for each task.",
        "Published numbers, whose times come from other hardware: "
        + "; ".join(f"{source} ({', '.join(labels)})" for source, labels in sources.items())
        + "."
        if sources
        else "No published number has this setting, so none stands beside ours.",
    ]
    return _table(panel, "accuracy", "scores and costs", columns, rows, notes)


def cost(panel: Panel) -> Table:
    """TIME with its parts, memory and parameters."""
    keys = list(METRICS)[list(METRICS).index("time_seconds") :]
    shows = dict.fromkeys(("steps", "samples", "trainable_parameters", "stored_parameters"), count)
    shows |= {"peak_bytes": mebibytes, "state_bytes": mebibytes}
    columns = [Column(key, METRICS[key][0], shows.get(key, plain)) for key in keys]
    rows = [{"method": label} | estimates(panel, label) for label in panel.labels]
    note = "TIME = train + consolidate; samples/s are over TIME, ms/step over train alone."
    return _table(panel, "cost", "time, memory and parameters", columns, rows, [note])


def differences(panel: Panel) -> Table:
    """Every method minus the reference (treelora where present), paired by seed."""
    finished = [label for label in panel.labels if panel.of(label)]
    reference = "treelora" if "treelora" in finished else next(iter(finished), "none")
    columns = [
        Column("acc", f"Δ {panel.score}", percent, signed=True),
        Column("bwt_paper", "Δ BWT (paper)", percent, signed=True),
        Column("forgetting", "Δ Forgetting", percent, signed=True),
        Column("time_seconds", "Δ TIME s", plain, signed=True),
        Column("ms_per_step", "Δ ms/step", plain, signed=True),
        Column("n", "Pairs"),
    ]
    measured = {who: {run.seed: measure(run) for run in panel.of(who)} for who in panel.labels}
    rows = []
    for label in panel.labels:
        if label == reference:
            continue
        row = {"method": label, "n": len(measured[label].keys() & measured.get(reference, {}))}
        for key in (column.key for column in columns if column.show):
            ours, theirs = (
                {seed: values[key] for seed, values in measured.get(who, {}).items()}
                for who in (label, reference)
            )
            row[key] = paired_difference(ours, theirs)
        rows.append(row)
    note = (
        f"Method minus {reference}, paired by seed: mean ± sample standard deviation [95 % paired "
        "t interval] over the seeds that both finished; scores in percentage points. An interval "
        "that holds 0 shows no difference; with few seeds it is wide."
    )
    return _table(panel, "differences", f"differences to {reference}", columns, rows, [note])


def settings(panel: Panel) -> Table:
    """What each method was run with beyond the settings that all share."""
    _, varying = shared_training(panel)
    columns = [
        Column("name", "Implementation"),
        Column("version", "Version"),
        *(Column(key, key.replace("_", " ")) for key in varying),
        Column("config", "Configuration"),
    ]
    rows = []
    for label in panel.labels:
        methods = [run.spec["method"] for run in panel.of(label, done=False)]
        configs = dict.fromkeys(words(method["config"]) for method in methods)
        row = {"method": label, "name": methods[0]["name"], "version": methods[0]["version"]}
        row |= {key: _train(panel, label, key) for key in varying}
        rows.append(row | {"config": " / ".join(configs)})
    return _table(panel, "settings", "settings by method", columns, rows)


def tasks(panel: Panel) -> Table:
    """Per task: the score right after it was learnt and the score at the end.

    Columns are tasks by name where all seeds have the same ones, otherwise positions.
    """
    done = [run for run in panel.runs if run.done]
    by_name = len({frozenset(run.task_names) for run in done}) == 1
    names = panel.task_names if by_name else range(1, len(panel.task_names) + 1)
    columns = [Column("when", "Score"), Column("mean", "Mean", percent)]
    columns += [Column(f"task {name}", str(name), percent) for name in names]
    rows = []
    for label in panel.labels:
        means = estimates(panel, label)
        for when, mean in (("learnt", "learning_accuracy"), ("final", "acc")):
            row: dict = {"method": label, "when": when, "mean": means[mean]}
            for name in names:
                values = []
                for run in panel.of(label):
                    j = run.task_names.index(name) if by_name else name - 1
                    score = run.R[j if when == "learnt" else -1, j]
                    values.append(None if score != score else float(score))
                row[f"task {name}"] = estimate(values)
            if when == "final" or not panel.is_upper_bound(label):
                rows.append(row)
    note = "learnt: right after the task's own training; final: after the last task; in percent. "
    note += "A column is a task, whose place in the stream may differ by seed."
    if not by_name:
        note = note.replace("a task, whose place in", "a place in the stream, whose task in")
    return _table(panel, "tasks", "score of each task", columns, rows, [note])


TABLES = {
    "accuracy": accuracy,
    "cost": cost,
    "differences": differences,
    "settings": settings,
    "tasks": tasks,
}


def summary(suite: Suite) -> str:
    """summary.csv: one row per stream, method and seed, with every metric and its setting."""
    rows = []
    for panel in suite.panels:
        for run in (run for label in panel.labels for run in panel.of(label, done=False)):
            method, train = run.spec["method"], run.spec["train"]
            rows.append(
                _facts(panel)
                | {"method": run.label, "name": method["name"], "version": method["version"]}
                | {"seed": run.seed, "status": run.status, "error": run.record["error"]}
                | {"key": run.key}
                | measure(run)
                | {key: train[key] for key in ("batch_size", "mask", "optimizer_reset")}
                | {key: run.provenance.get(key) for key in ("device", "threads")}
            )
    return to_csv(rows)


def compact(suite: Suite) -> str:
    """The Markdown for a README: per stream the scores and times, under the suite's label."""
    keep = ("method", "acc", "bwt_paper", "time_seconds", "runs")
    parts = []
    for panel in suite.panels:
        table = accuracy(panel)
        table.columns = [column for column in table.columns if column.key in keep]
        table.title = f"{panel.stream}, {panel.backbone} ({suite.label})"
        table.setting, table.notes = missing_notes(panel), []
        parts.append(table.markdown().strip())
    return "\n\n".join(parts)
