"""The tables of a panel, and what each of them must state about its setting.

A table is a function of a panel under the name that `exhibits.TABLES` lists.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from math import nan

import pandas as pd
from scipy.stats import kendalltau

from analysis import language
from analysis.compare import elsewhere, peers_of, published
from analysis.metrics import COUNTS, METRICS, Estimate, estimate
from analysis.records import task_names
from analysis.runs import Panel
from analysis.table import Column, Number, Table, count, mebibytes, percent, plain
from analysis.trees import PERMUTATIONS, agreement
from analysis.variants import difference, interval, sweep, variants
from analysis.variants import settings as choices

ratio_digits = Number(digits=2)
OLD = " †"  # behind a method whose runs today's code would not repeat


def brief(value: object) -> str:
    """A setting's value in few characters; a list of equal entries as one."""
    if isinstance(value, list | tuple):
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
    trains = [record["spec"]["train"] for record in panel.runs["record"]]
    keys = dict.fromkeys(key for train in trains for key in train)
    # an older record does not know an option that is off
    varying = [key for key in keys if len({json.dumps(t.get(key) or None) for t in trains}) > 1]
    return {key: trains[0].get(key) for key in keys if key not in varying}, varying


def distinct(runs: pd.DataFrame, key: str) -> list[str]:
    """The different values of one provenance entry over the runs."""
    return sorted({brief(entry) for entry in runs[key].dropna()})


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
    optional = ("mask", "curve_tests", "micro_batch_size", "compile", "augment")
    optional += ("checkpointing", "test_batch_size", "head_init", "loss_mean")
    shared = {key: value for key, value in shared.items() if value or key not in optional}
    own = f"; by method: {', '.join(varying).replace('_', ' ')}" if varying else ""
    devices, threads = (distinct(panel.runs, key) for key in ("device", "threads"))
    labels = [seen for seen in distinct(panel.runs, "weights_labels") if seen != "own"]
    mixed = " Times from different devices or thread counts do not compare."
    parts = [
        f"{stream.get('n_tasks', len(panel.task_names))} tasks",
        words(limits) or "all data",
        words(stream, hidden),
        f"backbone {panel.backbone}",
        words(backbone, ("name", "digest")),
        f"labels seen by its weights: {' and '.join(labels)}" if labels else "",
        "seeds " + ", ".join(map(str, sorted(set(panel.runs["seed"])))),
    ]
    return [
        f"{panel.suite.label} (suite {panel.suite.name}).",
        f"Stream {panel.stream}: {', '.join(part for part in parts if part)}.",
        f"Training: {words(shared)}{own}. Device {', '.join(devices) or 'unknown'}, threads per "
        f"run {', '.join(threads) or 'unknown'}."
        + (mixed if len(devices) > 1 or len(threads) > 1 else "")
        + (" TIME leaves compilation out." if _compiles(panel) else ""),
    ]


def _compiles(panel: Panel) -> bool:
    return any(record["spec"]["train"].get("compile") for record in panel.runs["record"])


def missing_notes(panel: Panel) -> list[str]:
    """One sentence per reason why runs of a method did not finish."""
    missing = panel.runs[panel.runs["status"] != "done"].fillna({"error": "no reason recorded"})
    return [
        f"{label} {status}, seed {', '.join(map(str, seeds))}: {error}"
        for (label, status, error), seeds in missing.groupby(
            ["method", "status", "error"], sort=False
        )["seed"]
    ]


def outdated_notes(panel: Panel) -> list[str]:
    """What the mark behind a method says: its runs are older than today's code, and why."""
    return [f"{label}{OLD}: {why}." for label, why in panel.outdated.items()]


def _counts(runs: pd.DataFrame) -> str:
    """How many seeds finished, and where not all, how many failed or were skipped."""
    statuses = list(runs["status"])
    missing = [f"{statuses.count(s)} {s}" for s in ("failed", "skipped") if s in statuses]
    done = statuses.count("done")
    return f"{done} of {len(statuses)} ({', '.join(missing)})" if missing else str(done)


def _train(runs: pd.DataFrame, key: str) -> str | None:
    """One training setting of a method; None where it does not apply."""
    entries = [record["spec"]["train"].get(key) for record in runs["record"]]
    return ", ".join(dict.fromkeys(brief(v) for v in entries if v is not None)) or None


def _table(
    panel: Panel,
    name: str,
    title: str,
    columns: list[Column],
    rows: Iterable[dict],
    notes: Iterable[str] = (),
    bounds: Iterable[dict] = (),
) -> Table:
    """Rows of methods, the upper bound under the rule, with the setting in the footnotes.

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
        (below if panel.is_upper_bound(label) else above).append(row)
    return Table(
        f"{name}-{panel.slug}",
        f"{panel.stream}, {panel.backbone}: {title}",
        [Column("method", "Method"), *columns],
        above,
        [*below, *bounds],
        list(notes),
        setting_notes(panel) + missing_notes(panel) + outdated_notes(panel),
        _facts(panel),
        dict.fromkeys(panel.outdated, OLD),
    )


def accuracy(panel: Panel) -> Table:
    """The analogue of the paper's Tables 1 and 3, with published counterparts where there are."""
    columns = [
        Column("runs", "Seeds"),
        Column("acc", f"{panel.score} ↑", percent, +1),
        Column("bwt_paper", "BWT (paper) ↓", percent, -1),
        Column("bwt_released", "BWT (released) ↑", percent, +1),
        Column("bwt_standard", "BWT (standard) ↑", percent, +1),
        Column("forgetting", "Forgetting ↓", percent, -1),
        Column("task_accuracy", "Acc@task ↑", percent),
        Column("time_seconds", "TIME s ↓", plain, -1),
        Column("ms_per_step", "ms/step ↓", plain, -1),
        Column("steps", "Steps", count),
        Column("peak_bytes", "Peak MiB", mebibytes),
        Column("trainable_parameters", "Trainable", count),
        Column("mask", "Mask"),
        Column("optimizer_reset", "Reset"),
    ]
    rows, sources = [], {}
    for label, runs in panel.methods.items():
        row = {"method": label, "runs": _counts(runs)} | panel.estimates[label]
        if row["steps"].mean != 0:  # a classifier in closed form has no use for either
            row |= {key: _train(runs, key) for key in ("mask", "optimizer_reset")}
        for who, (values, source) in published(runs["record"].iloc[0]).items():
            row |= {f"{who}_{metric}": value for metric, value in values.items()}
            sources.setdefault(source, []).append(label)
        rows.append(row)
    if not any(row["task_accuracy"].mean >= 0 for row in rows):
        columns = [column for column in columns if column.key != "task_accuracy"]
    shown = []
    for column in columns:
        beside = [
            Column(f"{who}_{column.key}", f"{column.title[:-2]}, {who}", column.show)
            for who in ("paper", "independent")
        ]
        shown += [column, *(other for other in beside if any(other.key in row for row in rows))]
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
    notes += _cached(panel) + _stuck(panel)
    bounds = []
    if panel.modality == "language":
        notes += _scoring(panel)
        floor = language.mean_floor(panel)
        bounds = [{"method": "floor", "acc": floor}] if floor else []
    return _table(panel, "accuracy", "scores and costs", shown, rows, notes, bounds)


def _cached(panel: Panel) -> list[str]:
    """Whose TIME has the frozen backbone's pass over each training image only once."""
    labels = [
        label
        for label, runs in panel.finished.items()
        for diagnostics in [runs["record"].iloc[0].get("diagnostics") or {}]
        if diagnostics.get("cached_features") or diagnostics.get("cached_queries")
    ]
    what = "the frozen backbone's features of training images were computed once and kept"
    return [f"TIME of {', '.join(labels)}: {what}."] if labels else []


def _stuck(panel: Panel) -> list[str]:
    """Whose inference of the task tells none apart: after the last it finds one and no other."""
    stuck = {}
    for label, runs in panel.finished.items():
        shares = {
            (run.seed, name): share
            for run in runs.itertuples()
            for name, share in zip(
                task_names(run.record),
                run.record["tasks"][-1].get("task_accuracy") or (),
                strict=False,
            )
        }
        found = {place for place, share in shares.items() if share > 0.02}
        n_runs = len({seed for seed, _ in shares})
        if len(shares) > n_runs and len({seed for seed, _ in found}) == len(found):
            stuck[label] = ", ".join(sorted({name for _, name in found})) or "none"
    if not stuck:
        return []
    words = "; ".join(f"{label} ({tasks})" for label, tasks in stuck.items())
    return [f"Inference of the task fails here, as it finds one and no other: {words}."]


def _grouped(of: Mapping[str, str]) -> str:
    """The keys by value: value (key, key); value (key). A value that all have stands alone."""
    groups: dict[str, list[str]] = {}
    for key, value in of.items():
        groups.setdefault(value.replace("_", " "), []).append(key)
    if len(groups) == 1:
        return next(iter(groups))
    return "; ".join(f"{value} ({', '.join(keys)})" for value, keys in groups.items())


def _scoring(panel: Panel) -> list[str]:
    """How text is scored, what a score is worth without a model, and how noisy it is."""
    notes, tested = [], language.tested(panel)
    if tested:
        metrics = {name: entry.get("metric") or "unknown" for name, entry in tested.items()}
        notes.append(f"Metrics of the tasks: {_grouped(metrics)}.")
    if rules := {task: entry["rule"] for task, entry in language.floors(panel).items()}:
        notes.append(f"floor: what outputs without any model reach, by {_grouped(rules)}.")
    if error := language.standard_error(panel):
        sizes = sorted(entry["n_test"] for entry in tested.values() if entry.get("n_test"))
        items = " to ".join(str(n) for n in dict.fromkeys((sizes[0], sizes[-1])))
        notes.append(
            f"With {items} test items a task, {panel.score} has a binomial standard error of "
            f"{'at most' if error[0] < error[1] else 'about'} {percent(error[1])} points, which no "
            "further seed lessens."
        )
    return notes


def routing(panel: Panel) -> Table:
    """How often methods find the task of a prompt, beside a router that needs no training."""
    columns = [
        Column("task_accuracy", "Acc@task ↑", percent, +1),
        Column("router_accuracy", "word counts", percent),
        Column("difference", "Δ", percent, signed=True),
        Column("n", "Seeds"),
    ]
    found = language.routed(panel).assign(n=1)
    rows = []
    if len(found) > 0:
        own = found.dropna()
        own = own.assign(difference=own["task_accuracy"] - own["router_accuracy"])
        counts = own["n"].groupby("method").count()
        cells = estimate(own.drop(columns="n"), "method")
        rows = [{"method": label} | row | {"n": int(counts[label])} for label, row in cells.items()]
    notes = [
        "Acc@task: the share of test prompts whose task the method finds after the last task, mean "
        "over tasks; word counts: that of the nearest mean of hashed word counts of the training "
        "prompts, which needs no training and which a method should beat. Δ: paired by seed, "
        "mean ± sample standard deviation [95 % t interval], in percentage points.",
    ]
    if len(found) and not rows:
        share = percent(found["router_accuracy"].mean())
        notes.append(f"No method here infers the task; by word counts {share} % are found.")
    elif not rows:
        notes.append("These records do not say how often word counts find the task.")
    notes += _stuck(panel)
    return _table(panel, "routing", "tasks found from the prompt", columns, rows, notes)


def data(panel: Panel) -> Table:
    """The tasks of a text stream with their sizes, floors and known defects."""
    columns = [
        Column("task", "Task"),
        Column("metric", "Metric"),
        Column("n_train", "Training items", count),
        Column("n_test", "Test items", count),
        Column("floor", "Floor", percent),
        Column("rule", "by"),
        Column("defects", "Known defects", wide=True),
    ]
    tested, floors, known = (
        read(panel) for read in (language.tested, language.floors, language.defects)
    )
    rows = []
    for name in dict.fromkeys([*tested, *floors, *(entry["task"] for entry in known)]):
        row = tested.get(name, {})
        own = [entry for entry in known if entry["task"] == name]
        rows.append(
            {
                "task": name,
                "metric": row.get("metric"),
                **{key: Estimate(row.get(key, nan)) for key in ("n_train", "n_test")},
                "floor": Estimate(floors.get(name, {}).get("score", nan)),
                "rule": floors.get(name, {}).get("rule"),
                "defects": "; ".join(map(_defect, own)),
            }
        )
    notes = [
        "Floor: the score of outputs without any model, by the rule that is best on the training "
        "items. Items are those used, of the last run of the panel that learnt the task.",
    ]
    return Table(
        f"data-{panel.slug}",
        f"{panel.stream}, {panel.backbone}: tasks and known defects of the data",
        columns,
        rows,
        notes=notes,
        setting=setting_notes(panel),
        facts=_facts(panel),
    )


def _defect(entry: Mapping) -> str:
    note = f" ({entry['note']})" if entry.get("note") else ""
    return f"{entry['kind']}: {entry['count']}{note}"


def _facts(panel: Panel) -> dict[str, object]:
    return dict(panel.runs[["suite", "suite_label", "stream", "backbone"]].iloc[0])


def cost(panel: Panel) -> Table:
    """TIME with its parts, memory and parameters."""
    keys = list(METRICS)[list(METRICS).index("time_seconds") :]
    shows = dict.fromkeys(COUNTS, count) | {"peak_bytes": mebibytes, "state_bytes": mebibytes}
    columns = [Column(key, METRICS[key], shows.get(key, plain)) for key in keys]
    rows = [{"method": label} | panel.estimates[label] for label in panel.methods]
    note = "TIME = train + consolidate; samples/s are over TIME, ms/step over train alone."
    return _table(panel, "cost", "time, memory and parameters", columns, rows, [note])


def differences(panel: Panel) -> Table:
    """Every method minus the reference (treelora where present), paired by seed."""
    first = next(iter(panel.finished), "none")
    reference = "treelora" if "treelora" in panel.finished else first
    columns = [
        Column("acc", f"Δ {panel.score}", percent, signed=True),
        Column("bwt_paper", "Δ BWT (paper)", percent, signed=True),
        Column("forgetting", "Δ Forgetting", percent, signed=True),
        Column("time_seconds", "Δ TIME s", plain, signed=True),
        Column("ms_per_step", "Δ ms/step", plain, signed=True),
        Column("n", "Pairs"),
    ]
    values = panel.values
    if panel.finished:
        values = values.sub(values.xs(reference), level="seed")
    pairs = values["acc"].groupby("method").count()
    rows = [
        {"method": label, "n": int(pairs[label])} | cells
        for label, cells in estimate(values, "method").items()
        if label != reference
    ]
    note = (
        f"Method minus {reference}, paired by seed: mean ± sample standard deviation [95 % paired "
        "t interval] over the seeds that both finished; scores in percentage points. An interval "
        "that holds 0 shows no difference; with few seeds it is wide."
    )
    return _table(panel, "differences", f"differences to {reference}", columns, rows, [note])


def ordering(panel: Panel) -> Table:
    """The scores beside published ones of any setting on the same data: does the order agree?"""
    theirs = elsewhere(panel.stream)
    columns = [
        Column("acc", f"{panel.score}, here", percent),
        *(Column(source, f"{panel.score}, {source}", percent) for source in theirs),
    ]
    ours = pd.Series({x: panel.estimates[x]["acc"].mean for x in panel.finished}, dtype=float)
    rows = [
        {"method": label, "acc": panel.estimates[label]["acc"]}
        | {source: Estimate(theirs.at[label, source]) for source in theirs}
        for label in ours.sort_values(ascending=False, kind="stable").index
        if label in theirs.index
    ]
    agreements = []
    for source in theirs:
        both = pd.concat([ours, theirs[source]], axis=1, join="inner").dropna()
        if len(both) > 2:
            tau = kendalltau(both.iloc[:, 0], both.iloc[:, 1]).statistic
            agreements.append(f"{source} {ratio_digits(tau, True)} ({len(both)} methods)")
    notes = [
        "Other numbers come from other settings, so that only their order compares. Kendall's tau "
        "with ours, 1 for the same order, 0 for none, −1 for its reverse: "
        f"{'; '.join(agreements) or 'no source has three of these methods'}.",
    ]
    if panel.modality == "vision":
        notes[0] += (
            " The paper's SeqLoRA stands beside seqlora-unmasked, its TreeLoRA beside hidetreelora."
        )
    return _table(panel, "ordering", "order of the methods elsewhere", columns, rows, notes)


def peers(panel: Panel) -> Table:
    """Our scores beside those of other public code on the same images, weights and settings."""
    columns = [
        Column("acc", f"{panel.score}, here", percent),
        Column("theirs", f"{panel.score}, theirs", percent),
        Column("peer", "Their code"),
        Column("commit", "Commit"),
        Column("logits_within", "Logits within"),
        Column("of_theirs", "Theirs is", wide=True),
    ]
    rows = [
        found._asdict()
        | {"method": label, "acc": panel.estimates[label]["acc"], "theirs": Estimate(found.acc)}
        for label in panel.finished
        for found in peers_of(panel.methods[label]["record"].iloc[0]["spec"]).itertuples()
    ]
    note = (
        "Theirs ran once, with one seed, on the same images, weights, order of classes and "
        "settings; each drew its own initial values, and that draw alone moves a score by as much "
        "as DualPrompt's rows differ. Logits within: the largest difference after three tasks of "
        "both codes from the same values on the same batches, where that was looked at; what "
        "remains between two scores is then how classifier and prompts start."
    )
    return _table(panel, "peers", "beside other public code", columns, rows, [note])


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
    for label, runs in panel.methods.items():
        methods = [record["spec"]["method"] for record in runs["record"]]
        configs = dict.fromkeys(words(method["config"]) for method in methods)
        row = {"method": label, "name": methods[0]["name"], "version": methods[0]["version"]}
        row |= {key: _train(runs, key) for key in varying}
        rows.append(row | {"config": " / ".join(configs)})
    return _table(panel, "settings", "settings by method", columns, rows)


def ablations(panel: Panel) -> Table:
    """Every variant of a method beside what it changes, minus the method as the panel has it.

    The analogue of the paper's Tables 2, 4, 5 and 6: a variant is told by its settings.
    """
    columns = [
        Column("changed", "Changed"),
        Column("value", "Value"),
        Column("base", "Base"),
        Column("runs", "Seeds"),
        Column("acc", f"{panel.score} ↑", percent),
        Column("delta", f"Δ {panel.score}", percent, signed=True),
        Column("bwt_paper", "BWT (paper) ↓", percent),
        Column("time_seconds", "TIME s ↓", plain),
        Column("ms_per_step", "ms/step ↓", plain),
    ]
    rows = []
    for name in dict.fromkeys(panel.runs["name"]):
        for label, changes in variants(panel, name).items():
            base = choices(panel, name)
            changes = {key: value for key, value in changes.items() if key != "curve_tests"}
            if not changes:
                continue
            row = {"method": label, "runs": _counts(panel.methods[label])} | panel.estimates[label]
            row |= {"delta": interval(difference(panel, "acc", label, name))}
            many = len(changes) > 3
            row["changed"] = "many, see settings" if many else ", ".join(changes).replace("_", " ")
            row["value"] = None if many else ", ".join(map(brief, changes.values()))
            row["base"] = None if many else ", ".join(brief(base[key]) for key in changes)
            sizes = [value if isinstance(value, int | float) else 0 for value in changes.values()]
            rows.append(((many, len(changes), row["changed"], name, sizes, row["value"]), row))
    rows = [row for _, row in sorted(rows, key=lambda pair: pair[0])]
    note = (
        "Base: the value in the row with the method's own name (table accuracy), where none sets "
        "no limit. Δ: minus that row, paired by seed: mean ± sample standard deviation [95 % "
        "paired t interval], in percentage points. Times are of runs that may have shared their "
        "processor."
    )
    none = "No method of this panel stands here with other settings as well."
    notes = [note] if rows else [none]
    return _table(panel, "ablations", "one choice at a time", columns, rows, notes)


def speed(panel: Panel) -> Table:
    """TIME relative to SeqLoRA, split into time per step and number of steps, by epochs."""
    trained = [label for label in panel.finished if panel.estimates[label]["steps"].mean > 0]
    first = next(iter(trained), "none")
    reference = "seqlora" if "seqlora" in trained else first
    columns = [
        Column("epochs", "Epochs"),
        Column("acc", f"{panel.score} ↑", percent),
        Column("time_ratio", f"TIME / {reference}'s", plain),
        Column("step_ratio", "= TIME per step", plain),
        Column("steps_ratio", "× steps", plain),
        Column("time_seconds", "TIME s", plain),
        Column("ms_per_step", "ms/step", plain),
        Column("steps", "Steps", count),
    ]
    labels = [
        label
        for name in dict.fromkeys(panel.runs["name"])
        for label in sorted(
            sweep(panel, name, "epochs").values(),
            key=lambda label: panel.estimates[label]["steps"].mean,
        )
        if not panel.is_upper_bound(label) and label in trained
    ]
    rows = []
    if trained:
        values = panel.values[["time_seconds", "steps"]].query("steps > 0")
        ratio = values.div(values.xs(reference), level="seed")
        ratio["step"] = ratio["time_seconds"] / ratio["steps"]
        ratio = ratio.rename(columns={"time_seconds": "time_ratio", "steps": "steps_ratio"})
        ratios = estimate(ratio.rename(columns={"step": "step_ratio"}), "method")
        rows = [
            {"method": label, "epochs": _train(panel.methods[label], "epochs")}
            | panel.estimates[label]
            | ratios[label]
            for label in labels
        ]
    note = (
        f"Ratios to {reference}, paired by seed; below 1 is faster. TIME per step includes "
        "consolidation, ms/step does not. A method is as fast as its steps are cheap and few: on "
        "language the paper's contenders learn for more epochs than TreeLoRA."
    )
    return _table(panel, "speed", "time per step and number of steps", columns, rows, [note])


def trees(panel: Panel) -> Table:
    """Agreement of the last tree with the planted groups of tasks (Figures 5 and 8)."""
    columns = [
        Column("n", "Seeds"),
        Column("clusters", "Clusters", count),
        Column("index", "ARI ↑", ratio_digits),
        Column("chance", "at random", ratio_digits),
        Column("chance_95", "95th percentile", ratio_digits),
        Column("p", "p", ratio_digits),
        Column("by_order", "ARI of halves", ratio_digits),
        Column("with_order", "tree and halves", ratio_digits),
        Column("same_group", "Pulls in group, %", percent),
        Column("same_group_by_chance", "by chance, %", percent),
    ]
    found = [
        {"method": run.method, "n": 1} | dataclasses.asdict(own)
        for run in panel.done.itertuples()
        if (own := agreement(run.record))
    ]
    rows = []
    if found:
        values = pd.DataFrame(found)
        counts = values.groupby("method")["n"].sum()
        cells = estimate(values.drop(columns="n"), "method")
        rows = [{"method": m, "n": int(counts[m])} | means for m, means in cells.items()]
    notes = [
        "ARI: adjusted Rand index of the planted groups and the tree after the last task, cut at "
        "the depth where its number of clusters is closest to that of the groups (of two such "
        "depths the shallower): 1 is agreement, 0 what chance gives.",
        f"At random: {PERMUTATIONS:,} trees of the same shape with permuted leaves, their mean and "
        "95th percentile; p is the share of them that agree at least as well. Halves: the tree "
        "that splits by order of arrival, its ARI with the groups and with our tree.",
        "Pulls in group: how often the search chose a task of the current one's group, where "
        "an earlier one was there; by chance: had it chosen all leaves alike. A leaf of merged "
        "tasks counts by its share of them.",
    ]
    if not rows:
        notes = ["No run here has a tree over tasks that were planted in groups of several."]
    return _table(panel, "trees", "tree and planted groups", columns, rows, notes)


def tasks(panel: Panel) -> Table:
    """Per task: the score right after it was learnt and the score at the end.

    Columns are tasks by name where all seeds have the same ones, otherwise positions.
    """
    done = [(run, task_names(run.record)) for run in panel.done.itertuples()]
    by_name = len({frozenset(names) for _, names in done}) == 1
    first = done[0][1] if done else panel.task_names
    by_name &= len(set(first)) == len(first)
    names = first if by_name else range(1, len(first) + 1)
    shown = [Column(f"task {name}", str(name), percent) for name in names]
    seen = []
    for run, own in done:
        for when, scores in (("learnt", run.R.diagonal()), ("final", run.R[-1])):
            cells = zip(own if by_name else names, scores, strict=True)
            row = {f"task {name}": score for name, score in cells}
            seen.append({"method": run.method, "when": when} | row)
    keys = ["method", "when"]
    cells = estimate(pd.DataFrame(seen, columns=keys + [column.key for column in shown]), keys)
    rows = [
        {"method": label, "when": when, "mean": means[mean]} | cells.get((label, when), {})
        for label, means in panel.estimates.items()
        for when, mean in (("learnt", "learning_accuracy"), ("final", "acc"))
        if when == "final" or not panel.is_upper_bound(label)
    ]
    floors = language.floors(panel)
    floor = {f"task {task}": Estimate(entry["score"]) for task, entry in floors.items()}
    bounds = [{"method": "floor", "mean": language.mean_floor(panel)} | floor] if floor else []
    columns = [Column("when", "Score"), Column("mean", "Mean", percent), *shown]
    column = "a task, whose place" if by_name else "a place in the stream, whose task"
    note = (
        "learnt: right after the task's own training; final: after the last task; in percent. "
        f"A column is {column} in the stream may differ by seed."
    )
    return _table(panel, "tasks", "score of each task", columns, rows, [note], bounds)
