"""Our scores beside those of others: published ones of any setting, and other public code's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.catalogue import table
from analysis.records.counterparts import elsewhere, peers_of
from analysis.records.metrics import Estimate
from analysis.records.runs import Panel
from analysis.tables.setting import of_methods
from analysis.tables.table import Column, Table, percent, two_digits


def kendall_tau(one: Sequence[float], other: Sequence[float]) -> float:
    """Kendall's tau-b of two rankings of the same things; NaN where one is all ties."""
    a, b = (np.sign(np.subtract.outer(values, values)) for values in map(np.array, (one, other)))
    with np.errstate(invalid="ignore"):
        return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


@table(need=lambda spec: spec["method"]["label"] in elsewhere(spec["stream"]["name"]).index)
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
            tau = kendall_tau(both.iloc[:, 0], both.iloc[:, 1])
            agreements.append(f"{source} {two_digits(tau, True)} ({len(both)} methods)")
    notes = [
        "Other numbers come from other settings, so that only their order compares. Kendall's tau "
        "with ours, 1 for the same order, 0 for none, −1 for its reverse: "
        f"{'; '.join(agreements) or 'no source has three of these methods'}."
    ]
    if panel.modality == "vision":
        notes[0] += (
            " The paper's SeqLoRA stands beside SeqLoRA unmasked, its TreeLoRA beside that in HiDe."
        )
    return of_methods(panel, "ordering", "order of the methods elsewhere", columns, rows, notes)


@table(need=lambda spec: len(peers_of(spec)) > 0)
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
    return of_methods(panel, "peers", "beside other public code", columns, rows, [note])
