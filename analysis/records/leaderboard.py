"""The methods of a panel, best first: what a table, a page and the command line show of them."""

from __future__ import annotations

from functools import cache
from math import nan

import pandas as pd

from analysis.records import language
from analysis.records.counterparts import elsewhere, published
from analysis.records.metrics import estimate
from analysis.records.runs import METHOD_ORDER, REFERENCE, UPPER_BOUND, Panel

UNTRAINED, FLOOR = "untrained", "floor"
BOUNDS = ("upper bound", UNTRAINED, FLOOR)  # roles of rows that are no competitors


@cache
def leaderboard(panel: Panel) -> pd.DataFrame:
    """The methods with a finished run by descending score; below them what does not compete.

    Returns:
        A row for each label, which is the index (`floor` that of what no model scores):
        method: how tables call it.
        role: one of BOUNDS, "reference" (what differences are taken to), "added" (of a method
            that does not come with this project), else "".
        marked: whether it is the reference, treelora or added.
        seeds: how many finished.
        score, score_sd: the mean final score, a fraction, and its sample standard deviation.
        difference, low, high: score minus the reference's, paired by the seeds that both finished,
            and its 95 % t interval.
        bwt: the paper's, positive is forgetting. just_learnt: the mean score of each task right
            after it was learnt; the score is just_learnt - bwt.
        time_seconds: training and consolidation.
        paper: the paper's score in the same setting.
        paper_setting: "same", "another" where the paper has a score on this data alone, else "".
        What is not defined is NaN.
    """
    values = panel.values[["acc"]]
    if panel.finished:
        values = values.sub(values.xs(panel.reference), level="seed")
    differences = estimate(values, "method")
    theirs = elsewhere(panel.stream).filter(like="paper")
    rows = []
    for label, runs in panel.finished.items():
        means, difference = panel.estimates[label], differences[label]["acc"]
        same, _ = published(runs["record"].iloc[0]).get("paper", ({}, ""))
        role = _role(panel, label)
        rows.append(
            {
                **{"label": label, "method": panel.titles[label], "role": role},
                "marked": role in ("reference", "added") or label == REFERENCE,
                **{"seeds": len(runs), "score": means["acc"].mean, "score_sd": means["acc"].sd},
                **{"difference": difference.mean, "low": difference.low, "high": difference.high},
                **{"bwt": means["bwt_paper"].mean, "just_learnt": means["learning_accuracy"].mean},
                "time_seconds": means["time_seconds"].mean,
                "paper": same["acc"].mean if "acc" in same else nan,
                "paper_setting": "same" if "acc" in same else "another" * (label in theirs.index),
            }
        )
    if floor := language.mean_floor(panel):
        rows.append({"label": FLOOR, "method": FLOOR, "role": FLOOR, "marked": False, "seeds": 0})
        rows[-1] |= {"score": floor.mean, "score_sd": floor.sd, "paper_setting": ""}
    board = pd.DataFrame(rows, columns=["label", *_COLUMNS]).set_index("label")
    below = board["role"].map({role: 1 + i for i, role in enumerate(BOUNDS)}).fillna(0)
    order = board.assign(below=below).sort_values("score", ascending=False, kind="stable")
    return board.loc[order.sort_values("below", kind="stable").index]


_COLUMNS = (
    *("method", "role", "marked", "seeds", "score", "score_sd", "difference", "low", "high"),
    *("bwt", "just_learnt", "time_seconds", "paper", "paper_setting"),
)


def _role(panel: Panel, label: str) -> str:
    if label in panel.upper_bounds:
        return "upper bound"
    if panel.is_untrained(label):
        return UNTRAINED
    if label == panel.reference:
        return "reference"
    added = panel.specs[label]["method"]["name"] not in (*METHOD_ORDER, UPPER_BOUND)
    return "added" if added else ""
