"""Of streams of text: tasks found from the prompt, and what is known of the data."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan

from analysis.catalogue import table
from analysis.records import language
from analysis.records.metrics import Estimate, estimate
from analysis.records.runs import Panel
from analysis.tables.setting import facts, of_methods, setting_notes, stuck_notes
from analysis.tables.table import Column, Number, Table, count, percent

nats = Number(digits=3)


@table(need=lambda spec: spec["modality"] == "language")
def routing(panel: Panel) -> Table:
    """How often methods find the task of a prompt, beside a router that needs no training."""
    columns = [
        Column("task_accuracy", "Acc@task ↑", percent, +1),
        Column("router_accuracy", "word counts", percent),
        Column("difference", "Δ", percent, signed=True),
        Column("n", "Seeds"),
    ]
    found = language.routed(panel)
    rows = []
    if len(found) > 0:
        own = found.dropna()
        own = own.assign(difference=own["task_accuracy"] - own["router_accuracy"])
        seeds, cells = own.groupby("method").size(), estimate(own, "method")
        rows = [{"method": label} | row | {"n": int(seeds[label])} for label, row in cells.items()]
    notes = [
        "Acc@task: the share of test prompts whose task the method finds after the last task, mean "
        "over tasks; word counts: that of the nearest mean of hashed word counts of the training "
        "prompts, which needs no training and which a method should beat. Δ: paired by seed, "
        "mean ± sample standard deviation [95 % t interval], in percentage points."
    ]
    if len(found) and not rows:
        share = percent(found["router_accuracy"].mean())
        notes.append(f"No method here infers the task; by word counts {share} % are found.")
    elif not rows:
        notes.append("These records do not say how often word counts find the task.")
    notes += stuck_notes(panel)
    return of_methods(panel, "routing", "tasks found from the prompt", columns, rows, notes)


@table(need=lambda spec: spec["train"].get("general"))
def general(panel: Panel) -> Table:
    """General ability before and after the stream: the loss on a text apart from it."""
    columns = [
        Column("before", "Before", nats),
        Column("after", "After ↓", nats, -1),
        Column("difference", "Δ", nats, signed=True),
    ]
    found = language.general(panel)
    rows = []
    if len(found) > 0:
        found = found.assign(difference=found["after"] - found["before"])
        rows = [{"method": label} | row for label, row in estimate(found, "method").items()]
    notes = [
        "The mean loss of a text that no task is about, in nats per token; its exponential is the "
        "perplexity. Before: of the backbone as it was loaded. Δ: what learning the stream cost, "
        "mean ± sample standard deviation [95 % t interval]."
    ]
    return of_methods(panel, "general", "general ability", columns, rows, notes)


@table(need=lambda spec: spec["modality"] == "language")
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
        "items. Items are those used, of the last run of the panel that learnt the task."
    ]
    return Table(
        f"data-{panel.slug}",
        f"{panel.stream}, {panel.backbone}: tasks and known defects of the data",
        columns,
        rows,
        notes=notes,
        setting=setting_notes(panel),
        facts=facts(panel),
    )


def _defect(entry: Mapping) -> str:
    note = f" ({entry['note']})" if entry.get("note") else ""
    return f"{entry['kind']}: {entry['count']}{note}"
