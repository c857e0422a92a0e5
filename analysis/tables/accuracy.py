"""Scores: of every method, its differences to TreeLoRA, and those of every task."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan

import pandas as pd

from analysis.catalogue import table
from analysis.records import bootstrap, language
from analysis.records.counterparts import published
from analysis.records.leaderboard import FLOOR
from analysis.records.leaderboard import leaderboard as ranking
from analysis.records.metrics import Estimate, estimate
from analysis.records.runs import Panel
from analysis.records.schema import task_names
from analysis.tables.setting import (
    counts,
    of_methods,
    stuck_notes,
    training,
)
from analysis.tables.table import Column, Number, Table, count, mebibytes, percent, plain


@table()
def leaderboard(panel: Panel) -> Table:
    """The methods best first: score, difference, what was learnt and forgotten, TIME."""
    ranked = ranking(panel)
    reference = panel.titles.get(panel.reference, panel.reference)
    columns = [
        Column("acc", f"{panel.score} ↑", percent, +1, main=True),
        Column("difference", f"Δ to {reference} [95 %]", percent, signed=True, main=True),
        Column("learning_accuracy", "Just learnt ↑", percent, +1, main=True),
        Column("bwt_paper", "BWT ↓", percent, -1, main=True),
        Column("time_seconds", "TIME s ↓", plain, -1, main=True),
    ]
    if (ranked["paper_setting"] == "same").any():
        columns.append(Column("paper", "Paper", percent, main=True))
    rows = []
    for row in ranked.drop(FLOOR, errors="ignore").itertuples():
        cells = {"method": row.Index} | panel.estimates[row.Index]
        if row.Index != panel.reference:
            cells["difference"] = Estimate(row.difference, nan, row.low, row.high)
        another = row.paper_setting == "another"
        rows.append(cells | {"paper": "another setting" if another else Estimate(row.paper)})
    notes = [
        f"{panel.score} = just learnt − BWT: the mean final score is that right after each task "
        "was learnt, less what was forgotten since, so that what learns nothing forgets nothing. "
        f"Δ: paired by seed with {reference}, and its 95 % t interval. In bold the best, the "
        "reference, TreeLoRA, and methods that were added. TIME is training and consolidation.",
    ]
    if len(columns) == 5 and (ranked["paper_setting"] == "another").any():
        notes.append("The paper's scores on this data have other settings; see their order below.")
    floor = ranked.loc[ranked.index == FLOOR]
    bounds = [{"method": FLOOR, "acc": Estimate(row.score)} for row in floor.itertuples()]
    notes += panel.gaps
    made = of_methods(panel, "leaderboard", "leaderboard", columns, rows, notes, bounds)
    made.marked = ranked.index[ranked["marked"]]
    return made


@table()
def accuracy(panel: Panel) -> Table:
    """The analogue of the paper's Tables 1 and 3, with published counterparts where there are."""
    columns = [
        Column("runs", "Seeds"),
        Column("acc", f"{panel.score} ↑", percent, +1, main=True),
        Column("incremental_accuracy", "Incremental ↑", percent, +1),
        Column("bwt_paper", "BWT (paper) ↓", percent, -1, main=True),
        Column("bwt_released", "BWT (released) ↑", percent, +1),
        Column("bwt_standard", "BWT (standard) ↑", percent, +1),
        Column("forgetting", "Forgetting ↓", percent, -1),
        Column("task_accuracy", "Acc@task ↑", percent),
        Column("legal_share", "Legal", percent),
        Column("time_seconds", "TIME s ↓", plain, -1, main=True),
        Column("ms_per_step", "ms/step ↓", plain, -1),
        Column("steps", "Steps", count),
        Column("peak_bytes", "Peak MiB", mebibytes),
        Column("trainable_parameters", "Trainable", count),
        Column("mask", "Mask"),
        Column("optimizer_reset", "Reset"),
    ]
    rows, sources = [], {}
    for label, runs in panel.methods.items():
        row = {"method": label, "runs": counts(runs)} | panel.estimates[label]
        if row["steps"].mean != 0:  # a classifier in closed form has no use for either
            row |= {key: training(runs, key) for key in ("mask", "optimizer_reset")}
        for who, (values, source) in published(runs["record"].iloc[0]).items():
            row |= {f"{who}_{metric}": value for metric, value in values.items()}
            sources.setdefault(source, []).append(panel.titles[label])
        rows.append(row)
    for key in ("task_accuracy", "legal_share"):
        if not any(row[key].mean >= 0 for row in rows):
            columns = [column for column in columns if column.key != key]
    shown = []
    for column in columns:
        beside = [
            Column(f"{who}_{column.key}", f"{column.title[:-2]}, {who}", column.show)
            for who in ("paper", "independent")
        ]
        shown += [column, *(other for other in beside if any(other.key in row for row in rows))]
    notes = [
        "Scores in percent; mean ± sample standard deviation over seeds; best in bold, joint "
        "apart; – is not defined. Incremental: the average incremental accuracy, a mean over time "
        "of the mean score over the tasks seen so far. Mask: class logits that compete in the "
        "training loss. Reset: the optimiser starts anew for each task.",
        "Published numbers, whose times come from other hardware: "
        + "; ".join(f"{source} ({', '.join(labels)})" for source, labels in sources.items())
        + "."
        if sources
        else "No published number has this setting, so none stands beside ours.",
    ]
    notes += panel.gaps + _cached(panel) + stuck_notes(panel)
    bounds = []
    if panel.modality == "language":
        notes += _scoring(panel)
        floor = language.mean_floor(panel)
        bounds = [{"method": "floor", "acc": floor}] if floor else []
        if blind := language.blind_floor(panel):
            bounds.append({"method": "floor of all tasks", "acc": blind[1]})
    return of_methods(panel, "accuracy", "scores and costs", shown, rows, notes, bounds)


def _cached(panel: Panel) -> list[str]:
    """Whose TIME has the frozen backbone's pass over each training image only once."""
    labels = [
        panel.titles[label]
        for label, runs in panel.finished.items()
        for diagnostics in [runs["record"].iloc[0].get("diagnostics") or {}]
        if diagnostics.get("cached_features") or diagnostics.get("cached_queries")
    ]
    what = "the frozen backbone's features of training images were computed once and kept"
    return [f"TIME of {', '.join(labels)}: {what}."] if labels else []


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
    if blind := language.blind_floor(panel):
        notes.append(
            f"floor of all tasks: the same by one rule for all ({', '.join(sorted(blind[0]))}), "
            "which is not told the task, as no method is."
        )
    if panel.values["legal_share"].notna().any():
        notes.append("Legal: final outputs that are an option of the task, right or wrong.")
    if error := language.standard_error(panel):
        sizes = sorted(entry["n_test"] for entry in tested.values() if entry.get("n_test"))
        items = " to ".join(str(n) for n in dict.fromkeys((sizes[0], sizes[-1])))
        notes.append(
            f"With {items} test items a task, {panel.score} of one run has a binomial standard "
            f"error of {'at most' if error[0] < error[1] else 'about'} {percent(error[1])} points. "
            f"{_tasks_by_seed(panel)}"
        )
    return notes


def _tasks_by_seed(panel: Panel) -> str:
    """How far further seeds lessen the noise of the items."""
    drawn = {frozenset(task_names(record)) for record in panel.done["record"]}
    if len(drawn) == 1:
        return "Seeds are tested on the same items, so that their mean lessens it in part."
    return f"Each seed draws its own tasks ({len(drawn)} sets), so that their mean lessens it."


@table()
def differences(panel: Panel) -> Table:
    """Every method minus the reference of the suite, paired by seed."""
    reference = panel.reference
    title = panel.titles.get(reference, reference)
    columns = [
        Column("acc", f"Δ {panel.score}", percent, signed=True, main=True),
        Column("bwt_paper", "Δ BWT (paper)", percent, signed=True),
        Column("forgetting", "Δ Forgetting", percent, signed=True),
        Column("time_seconds", "Δ TIME s", plain, signed=True),
        Column("ms_per_step", "Δ ms/step", plain, signed=True),
        Column("n", "Pairs"),
    ]
    values = panel.beside(reference)
    if panel.finished:
        values = values.sub(values.xs(reference), level="seed")
    pairs = values["acc"].groupby("method").count()
    rows = [
        {"method": label, "n": int(pairs[label])} | cells
        for label, cells in estimate(values, "method").items()
        if label != reference
    ]
    notes = [
        f"Method minus {title}, paired by seed: mean ± sample standard deviation [95 % paired "
        "t interval] over the seeds that both finished, of times over those of one device; scores "
        "in percentage points. An interval that holds 0 shows no difference; with few seeds it is "
        "wide.",
        *panel.gaps,
    ]
    if resampled := bootstrap.differences(panel):
        columns[1:1] = [
            Column("acc_items", f"Δ {panel.score}, seeds and items", percent, signed=True),
            Column("p_items", "p", Number(digits=3)),
        ]
        for row in rows:
            row["acc_items"], row["p_items"] = resampled.get(row["method"], (None, None))
        notes.append(
            "Seeds and items: [95 % interval] and two-sided p of a paired bootstrap over both, "
            f"{bootstrap.N_DRAWS:,} draws of S − 1 of S seeds and of weights of the test items, "
            "where both methods kept their answers; of one seed over items only. It uses what each "
            "item says, and believes that the seeds at hand show how much seeds differ, of which "
            "the t interval of few seeds makes more."
        )
    return of_methods(panel, "differences", f"differences to {title}", columns, rows, notes)


@table()
def tasks(panel: Panel) -> Table:
    """Per task: the score right after it was learnt and the score at the end.

    Columns are tasks by name where all seeds have the same ones, otherwise positions.
    """
    done = [(run, task_names(run.record)) for run in panel.done.itertuples()]
    by_name = len({frozenset(names) for _, names in done}) == 1
    first = done[0][1] if done else panel.task_names
    places = [f"task{place}" for place in range(1, len(first) + 1)]
    by_name &= len(set(first)) == len(first) and first != places
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
        if when == "final" or label not in panel.upper_bounds
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
    return of_methods(panel, "tasks", "score of each task", columns, rows, [note], bounds)
