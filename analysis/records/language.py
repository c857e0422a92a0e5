"""What records say of the tasks of a text stream: metrics, noise, floors, defects, router.

Records that are older than one of these lack it: the answer is then empty.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from analysis.records.metrics import Estimate, interval
from analysis.records.runs import Panel
from analysis.records.schema import task_names

# Metrics that score an item 0 or 1. Others lie between, where the variance is p (1 - p) at most.
ALL_OR_NOTHING = {"exact", "first_line", "normalised", "prefix", "letter", "first_character"}


def tested(panel: Panel) -> dict[str, dict]:
    """By task the entry of a run that learnt it: `metric`, `n_train`, `n_test` and others."""
    return {
        entry["name"]: entry
        for record in panel.done["record"]
        for entry in record["tasks"]
        if entry["name"] in task_names(record)  # an offline method has one entry for all tasks
    }


def standard_error(panel: Panel) -> tuple[float, float] | None:
    """Between which values the binomial standard error of the mean final score lies.

    sqrt(sum_j p_j (1 - p_j) / n_j) / T for scores p_j on n_j test items of T tasks, mean over runs.
    The higher value counts all tasks, the lower only those whose items score 0 or 1.
    """
    known, errors = tested(panel), []
    for run in panel.done.itertuples():
        tasks = [known.get(name) for name in task_names(run.record)]
        if run.upper_bound or not all(task and task.get("n_test") for task in tasks):
            continue
        p, n = run.R[-1], np.array([task["n_test"] for task in tasks])
        certain = np.array([task.get("metric") in ALL_OR_NOTHING for task in tasks])
        variance = p * (1 - p) / n
        errors.append([np.sqrt((variance * part).sum()) / len(n) for part in (certain, True)])
    return tuple(np.mean(errors, axis=0).tolist()) if errors else None


def floors(panel: Panel) -> dict[str, dict]:
    """By task what outputs without any model score: `rule` and `score`."""
    entries = [record["stream"].get("floor") or [] for record in panel.done["record"]]
    return {entry["task"]: entry for own in entries for entry in own}


def floor_curve(panel: Panel) -> np.ndarray | None:
    """The floors of the tasks in the order in which they are learnt, mean over seeds (tasks,)."""
    curves = list(_floors_by_seed(panel).values())
    return np.mean(curves, axis=0) if curves else None


def mean_floor(panel: Panel) -> Estimate | None:
    """The mean floor of the run's tasks, over seeds; None where records have none."""
    means = {seed: np.mean(own) for seed, own in _floors_by_seed(panel).items()}
    return interval(pd.Series(means)) if means else None


def blind_floor(panel: Panel) -> tuple[set[str], Estimate] | None:
    """Of one rule for all tasks: the rules of the seeds, and their mean scores over seeds.

    None where records have none.
    """
    own = {
        seed: found
        for seed, record in zip(panel.done["seed"], panel.done["record"], strict=True)
        if (found := record["stream"].get("blind_floor"))
    }
    means = pd.Series({seed: np.mean(found["scores"]) for seed, found in own.items()})
    return ({found["rule"] for found in own.values()}, interval(means)) if own else None


@cache
def _floors_by_seed(panel: Panel) -> dict[int, list[float]]:
    known = floors(panel)
    runs = zip(panel.done["seed"], map(task_names, panel.done["record"]), strict=True)
    return {
        seed: [known[name]["score"] for name in names]
        for seed, names in runs
        if known.keys() >= set(names)
    }


def defects(panel: Panel) -> list[dict]:
    """The known defects of the data: `task`, `kind`, `count` and `note`, each once."""
    entries = [record["stream"].get("defects") or [] for record in panel.done["record"]]
    unique = {tuple(entry.values()): entry for own in entries for entry in own}
    return list(unique.values())


def general(panel: Panel) -> pd.DataFrame:
    """Runs that measured general ability: by method and seed, `before` and `after` the stream, the
    loss in nats per token of a text apart from it."""
    rows = {
        (run.method, run.seed): {key: run.record["general"][key] for key in ("before", "after")}
        for run in panel.done.itertuples()
        if run.record.get("general")
    }
    index = pd.MultiIndex.from_tuples(rows, names=["method", "seed"])
    return pd.DataFrame(list(rows.values()), index=index if rows else None)


def routed(panel: Panel) -> pd.DataFrame:
    """Runs that say how often a nearest-mean router on word counts finds a test prompt's task.

    Returns:
        By method and seed, after the last task, the mean over tasks: `router_accuracy`, and
        `task_accuracy` of the method itself, NaN if it infers none.
    """
    rows = {
        (run.method, run.seed): {
            "task_accuracy": run.task_accuracy,
            "router_accuracy": np.mean(run.record["tasks"][-1]["router_accuracy"]),
        }
        for run in panel.done.itertuples()
        if run.record["tasks"][-1].get("router_accuracy")
    }
    index = pd.MultiIndex.from_tuples(rows, names=["method", "seed"])
    return pd.DataFrame(list(rows.values()), index=index if rows else None)
