"""Published counterparts: the paper's and independent numbers, where the setting is the same.

A counterpart is shown only if every fact in `same` holds for the run. So numbers of another
stream, another backbone or a reduced data set never stand beside published ones.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

from analysis.metrics import Estimate
from analysis.records import Run

VALUES = Path(__file__).parent / "values"
# Appendix A.3 of the paper, without what belongs to a single method.
_CIFAR100 = {"stream": "cifar100", "all_data": True, "n_tasks": 10, "image_size": 224}
_TRAINING = {"batch_size": 192, "epochs": 20, "optimizer": "adam", "learning_rate": 0.005}
PAPER = (
    {
        "exhibit": "table1",
        "block": "split-cifar100",
        "same": _CIFAR100 | _TRAINING | {"backbone": "vit-b16-ibot21k"},
    },
)
# Independent values state no schedule, so only data and backbone (by name) must be the same.
INDEPENDENT = ({"dataset": "split-cifar100", "same": _CIFAR100},)
_METRIC = {"acc": "acc", "op": "acc", "bwt": "bwt_paper", "time": "time_seconds"}
_SCALE = {"percent": 0.01, "seconds": 1.0}


def facts(run: Run) -> dict[str, object]:
    """What must agree with a published setting, read from the run's spec."""
    stream, backbone, train = (run.spec[part] for part in ("stream", "backbone", "train"))
    epochs = set(train["epochs"])
    return {
        "stream": stream["name"],
        "all_data": all(stream[key] is None for key in stream if "_per_" in key),
        "n_tasks": len(run.task_names),
        "backbone": backbone["name"],
        "image_size": backbone.get("image_size"),
        "batch_size": train["batch_size"],
        "epochs": epochs.pop() if len(epochs) == 1 else None,
        "optimizer": str(train.get("optimizer")).lower(),
        "learning_rate": train.get("learning_rate"),
    }


def _agrees(run: Run, same: dict) -> bool:
    found = facts(run)
    return all(found[key] == value for key, value in same.items())


@cache
def _rows(name: str) -> list[dict[str, str]]:
    with open(VALUES / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _published(value: str, sd: str, scale: float) -> Estimate | None:
    return Estimate(float(value) * scale, float(sd) * scale if sd else None, 0) if value else None


def paper(run: Run) -> tuple[dict[str, Estimate], str] | None:
    """The paper's values for this run by metric, and their source; None without a counterpart."""
    for rule in PAPER:
        rows = [
            row
            for row in _rows("reported_values.csv")
            if (row["exhibit"], row["block"]) == (rule["exhibit"], rule["block"])
            and row["column"] == run.label == run.spec["method"]["name"]
        ]
        if rows and _agrees(run, rule["same"]):
            values = {
                _METRIC[row["metric"]]: _published(row["value"], row["std"], _SCALE[row["unit"]])
                for row in rows
            }
            return values, f"the paper's {rule['exhibit']}, {rule['block']}"
    return None


def independent(run: Run) -> tuple[dict[str, Estimate | None], str] | None:
    """Independently published values for this run by metric, and their source; or None."""
    for rule in INDEPENDENT:
        for row in _rows("external_values.csv"):
            cell = (row["dataset"], row["backbone"], row["method"])
            asked = (rule["dataset"], run.spec["backbone"]["name"], run.label)
            if cell == asked and _agrees(run, rule["same"]):
                pairs = {"acc": "acc", "forgetting": "forgetting"}
                values = {
                    metric: _published(row[column], row[f"{column}_std"], 0.01)
                    for metric, column in pairs.items()
                }
                return values, row["source"]
    return None
