"""The trees over tasks beside the groups in which the tasks were planted."""

from __future__ import annotations

import dataclasses

import pandas as pd

from analysis.catalogue import table
from analysis.records.metrics import estimate
from analysis.records.runs import Panel
from analysis.records.trees import PERMUTATIONS
from analysis.tables.setting import of_methods
from analysis.tables.table import Column, Table, count, percent, two_digits


@table(need=lambda spec: spec["method"]["name"] in ("treelora", "hidetreelora"))
def trees(panel: Panel) -> Table:
    """Agreement of the last tree with the planted groups of tasks (Figures 5 and 8)."""
    columns = [
        Column("n", "Seeds"),
        Column("clusters", "Clusters", count),
        Column("index", "ARI ↑", two_digits),
        Column("chance", "at random", two_digits),
        Column("chance_95", "95th percentile", two_digits),
        Column("p", "p", two_digits),
        Column("by_order", "ARI of halves", two_digits),
        Column("with_order", "tree and halves", two_digits),
        Column("same_group", "Pulls in group, %", percent),
        Column("same_group_by_chance", "by chance, %", percent),
    ]
    found = [
        {"method": method} | dataclasses.asdict(own)
        for (method, _), own in panel.agreements.items()
    ]
    rows = []
    if found:
        values = pd.DataFrame(found)
        seeds = values["method"].value_counts()
        cells = estimate(values, "method")
        rows = [{"method": m, "n": int(seeds[m])} | means for m, means in cells.items()]
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
    return of_methods(panel, "trees", "tree and planted groups", columns, rows, notes)
