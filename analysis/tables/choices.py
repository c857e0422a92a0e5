"""What methods and their variants were run with, and what each choice changes."""

from __future__ import annotations

from analysis.catalogue import table
from analysis.records.metrics import interval
from analysis.records.runs import Panel
from analysis.records.variants import difference, variants
from analysis.records.variants import settings as chosen
from analysis.tables.setting import brief, counts, of_methods, shared_training, training, words
from analysis.tables.table import Column, Table, percent, plain


@table(need=lambda spec: spec["method"]["label"] != spec["method"]["name"])
def ablations(panel: Panel) -> Table:
    """Every variant of a method beside what it changes, minus the method as the panel has it.

    The analogue of the paper's Tables 2, 4, 5 and 6: a variant is told by its settings.
    """
    columns = [
        Column("changed", "Changed", main=True),
        Column("value", "Value", main=True),
        Column("base", "Base"),
        Column("runs", "Seeds"),
        Column("acc", f"{panel.score} ↑", percent),
        Column("delta", f"Δ {panel.score}", percent, signed=True, main=True),
        Column("bwt_paper", "BWT (paper) ↓", percent),
        Column("time_seconds", "TIME s ↓", plain),
        Column("ms_per_step", "ms/step ↓", plain),
    ]
    rows, scores = [], []
    for name in dict.fromkeys(panel.runs["name"]):
        if len(variants(panel, name)) > 1:
            scores.append(f"{panel.titles[name]} {percent(panel.estimates[name]['acc'].mean)}")
        for label, changes in variants(panel, name).items():
            base = chosen(panel, name)
            changes = {key: value for key, value in changes.items() if key != "curve_tests"}
            if not changes:
                continue
            row = {"method": label, "runs": counts(panel.methods[label])} | panel.estimates[label]
            row |= {"delta": interval(difference(panel, "acc", label, name))}
            many = len(changes) > 3
            row["changed"] = "many, see settings" if many else ", ".join(changes).replace("_", " ")
            row["value"] = None if many else ", ".join(map(brief, changes.values()))
            row["base"] = None if many else ", ".join(brief(base[key]) for key in changes)
            sizes = [value if isinstance(value, int | float) else 0 for value in changes.values()]
            rows.append(((many, len(changes), row["changed"], name, sizes, row["value"]), row))
    rows = [row for _, row in sorted(rows, key=lambda pair: pair[0])]
    note = (
        "Base: the value in the row with the method's own name; none of layers, depth and budget "
        f"sets no limit. Its {panel.score}: {'; '.join(scores)}. Δ: minus that row, paired by "
        "seed: mean ± sample standard deviation [95 % paired t interval], in percentage points. "
        "Times are of runs that may have shared their processor."
    )
    none = "No method of this panel stands here with other settings as well."
    notes = [note] if rows else [none]
    return of_methods(panel, "ablations", "one choice at a time", columns, rows, notes)


@table()
def settings(panel: Panel) -> Table:
    """What each method was run with beyond the settings that all share."""
    _, varying = shared_training(panel)
    columns = [
        Column("name", "Implementation"),
        Column("version", "Version"),
        *(Column(key, key.replace("_", " ")) for key in varying),
        Column("config", "Configuration", wide=True),
    ]
    rows = []
    for label, runs in panel.methods.items():
        methods = [record["spec"]["method"] for record in runs["record"]]
        configs = dict.fromkeys(words(method["config"]) for method in methods)
        row = {"method": label, "name": methods[0]["name"], "version": methods[0]["version"]}
        row |= {key: training(runs, key) for key in varying}
        rows.append(row | {"config": " / ".join(configs)})
    return of_methods(panel, "settings", "settings by method", columns, rows)
