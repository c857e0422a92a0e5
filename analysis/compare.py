"""Published counterparts: the paper's and independent numbers, where the setting is the same.

A counterpart is shown only if every fact of its setting holds for the run. So numbers of another
stream, another backbone or a reduced data set never stand beside published ones.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

from analysis.metrics import Estimate
from analysis.records import task_names

VALUES = Path(__file__).parent / "values"
# Independent values state no schedule, so only data and backbone (by name) must be the same.
CIFAR100 = {"stream": "cifar100", "all_data": True, "n_tasks": 10, "image_size": 224}
# Appendix A.3 of the paper, without what belongs to a single method.
PAPER = CIFAR100 | {
    "backbone": "vit-b16-ibot21k",
    **{"batch_size": 192, "epochs": 20, "optimizer": "adam", "learning_rate": 0.005},
}
# How the paper's metrics are called here, and what makes fractions of percent.
PAPER_METRICS = {"acc": ("acc", 0.01), "bwt": ("bwt_paper", 0.01), "time": ("time_seconds", 1.0)}

Found = tuple[dict[str, Estimate], str]


def facts(record: dict) -> dict[str, object]:
    """What must agree with a published setting, read from the run's spec."""
    stream, backbone, train = (record["spec"][part] for part in ("stream", "backbone", "train"))
    epochs = set(train["epochs"])
    return {
        "stream": stream["name"],
        "all_data": all(stream[key] is None for key in stream if "_per_" in key),
        "n_tasks": len(task_names(record)),
        "backbone": backbone["name"],
        "image_size": backbone.get("image_size"),
        "batch_size": train["batch_size"],
        "epochs": epochs.pop() if len(epochs) == 1 else None,
        "optimizer": str(train.get("optimizer")).lower(),
        "learning_rate": train.get("learning_rate"),
    }


@cache
def table(name: str) -> pd.DataFrame:
    """A file of published values."""
    return pd.read_csv(VALUES / name)


def published(record: dict) -> dict[str, Found]:
    """The counterparts of a run, `paper` and `independent`: values by metric, and their source."""
    found = {"paper": _paper(record), "independent": _independent(record)}
    return {who: values for who, values in found.items() if values}


def _paper(record: dict) -> Found | None:
    method = record["spec"]["method"]
    if method["label"] != method["name"] or not facts(record).items() >= PAPER.items():
        return None
    rows = table("reported_values.csv").dropna(subset="value")
    rows = rows[(rows["exhibit"] == "table1") & (rows["block"] == "split-cifar100")]
    rows = rows[rows["column"] == method["label"]]
    values = {}
    for row in rows.itertuples():
        metric, scale = PAPER_METRICS[row.metric]
        values[metric] = Estimate(row.value * scale, row.std * scale)
    return (values, "the paper's table1, split-cifar100") if values else None


def _independent(record: dict) -> Found | None:
    if not facts(record).items() >= CIFAR100.items():
        return None
    spec, rows = record["spec"], table("external_values.csv")
    rows = rows[(rows["dataset"] == "split-cifar100") & (rows["method"] == spec["method"]["label"])]
    rows = rows[rows["backbone"] == spec["backbone"]["name"]]
    if rows.empty:
        return None
    row = rows.iloc[0]
    metrics = [metric for metric in ("acc", "forgetting") if pd.notna(row[metric])]
    return {m: Estimate(row[m] * 0.01, row[f"{m}_std"] * 0.01) for m in metrics}, row["source"]
