"""Every derived number: scores from R, costs from the raw timings, and their spread over seeds.

R is (task learnt, task tested), scores in [0, 1], NaN where not measured. A metric whose entries
were not measured is NaN, never 0: a run that learns all tasks at once has only its last row, one
with `evaluate: final` that and its diagonal.
"""

from __future__ import annotations

from math import nan
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from analysis.records.schema import complete, scores


def acc(R: np.ndarray) -> float:
    """Mean score over all tasks after the last one (ACC on vision, OP on language)."""
    return R[-1].mean()


def bwt_paper(R: np.ndarray) -> float:
    """The paper's BWT: (1/N) sum_j R[j, j] - R[N-1, j]. Positive is forgetting."""
    return (R.diagonal() - R[-1]).mean()


def bwt_released(R: np.ndarray) -> float:
    """The released code's BWT: (1/N) sum_j min(R[N-1, j] - R[j, j], 0). Gains do not count."""
    return np.minimum(R[-1] - R.diagonal(), 0).mean()


def bwt_standard(R: np.ndarray) -> float:
    """Lopez-Paz and Ranzato's BWT: 1/(N-1) sum_{j<N-1} R[N-1, j] - R[j, j]. Negative is forgetting.

    NaN for a single task.
    """
    return (R[-1] - R.diagonal())[:-1].mean() if len(R) > 1 else nan


def forgetting(R: np.ndarray) -> float:
    """Chaudhry et al.: 1/(N-1) sum_{j<N-1} max_{i<N-1} R[i, j] - R[N-1, j].

    NaN for one task, and where a best score may be missing: unless R is complete.
    """
    if len(R) == 1 or not complete(R):
        return nan
    return (np.fmax.reduce(R[:-1, :-1]) - R[-1, :-1]).mean()  # fmax: nothing above the diagonal


def learning_accuracy(R: np.ndarray) -> float:
    """Mean score of each task right after it was learnt."""
    return R.diagonal().mean()


def running_accuracy(R: np.ndarray, sizes: list[int] | None = None) -> list[float]:
    """After each task, the mean score over the tasks seen so far, weighted by `sizes` (tasks,)."""
    return [np.average(row[:n], weights=sizes and sizes[:n]) for n, row in enumerate(R, start=1)]


def incremental_accuracy(R: np.ndarray, sizes: list[int] | None = None) -> float:
    """Average incremental accuracy (iCaRL): the mean over tasks of `running_accuracy`."""
    return float(np.mean(running_accuracy(R, sizes)))


SCORES = (acc, incremental_accuracy)
SCORES += (bwt_paper, bwt_released, bwt_standard, forgetting, learning_accuracy)


def measure(record: dict) -> dict[str, float]:
    """All metrics of one run by name; all NaN unless it is done."""
    if record["status"] != "done":
        return dict.fromkeys(METRICS, nan)

    def entries(key: str) -> list[float]:
        return [nan if task[key] is None else task[key] for task in record["tasks"]]

    R = scores(record)
    values, last = {score.__name__: score(R) for score in SCORES}, record["tasks"][-1]
    uneven = record["spec"]["stream"].get("first_task_classes")
    if uneven and len(record["tasks"]) == len(R):  # else learnt at once
        values["incremental_accuracy"] = incremental_accuracy(R, entries("n_test"))
    for key in ("train_seconds", "consolidate_seconds", "eval_seconds", "steps", "samples"):
        values[key] = sum(entries(key))
    for key in ("task_accuracy", "legal_share"):
        values[key] = np.mean([s for s in last.get(key) or () if s is not None] or nan)
    values["time_seconds"] = values["train_seconds"] + values["consolidate_seconds"]
    values["ms_per_step"] = 1000 * _ratio(values["train_seconds"], values["steps"])
    values["samples_per_second"] = _ratio(values["samples"], values["time_seconds"])
    values["peak_bytes"] = np.fmax.reduce(entries("peak_bytes"))
    values |= record["footprint"] or {}
    return {name: values.get(name, nan) for name in METRICS}


def _ratio(above: float, below: float) -> float:
    return above / below if below else nan


# How each metric is called, in the order of summary.csv; report.html.j2 defines them.
METRICS = {
    "acc": "ACC, OP",
    "incremental_accuracy": "Average incremental accuracy",
    "bwt_paper": "BWT (paper)",
    "bwt_released": "BWT (released)",
    "bwt_standard": "BWT (standard)",
    "forgetting": "Forgetting",
    "learning_accuracy": "Learning accuracy",
    "task_accuracy": "Acc@task",
    "legal_share": "Legal answers",
    "time_seconds": "TIME s",
    "train_seconds": "train s",
    "consolidate_seconds": "consolidate s",
    "eval_seconds": "evaluate s",
    "steps": "Steps",
    "ms_per_step": "ms/step",
    "samples": "Samples",
    "samples_per_second": "samples/s",
    "peak_bytes": "Peak MiB",
    "trainable_parameters": "Trainable",
    "stored_parameters": "Stored",
    "state_bytes": "State MiB",
}
# Those that another machine changes.
OF_THE_MACHINE = (
    *("time_seconds", "train_seconds", "consolidate_seconds", "eval_seconds"),
    *("ms_per_step", "samples_per_second", "peak_bytes"),
)
# The whole numbers among them.
COUNTS = (
    *("steps", "samples", "peak_bytes"),
    *("trainable_parameters", "stored_parameters", "state_bytes"),
)


class Estimate(NamedTuple):
    """A mean, its sample standard deviation and its 95 % t interval; NaN where not defined."""

    mean: float
    sd: float = nan
    low: float = nan
    high: float = nan


def estimate(values: pd.DataFrame, by: str | list[str]) -> dict[object, dict[str, Estimate]]:
    """For every group of rows the estimate of every column, over its defined rows."""
    groups = values.groupby(by, sort=False)
    means = groups.mean()
    cells = _cells(*(part.to_numpy(float) for part in (means, groups.std(), groups.count())))
    return {
        group: {column: Estimate(*cell) for column, cell in zip(means.columns, row, strict=True)}
        for group, row in zip(means.index, cells, strict=True)
    }


def interval(values: pd.Series) -> Estimate:
    """The same of these alone: mean, sample standard deviation and 95 % t interval.

    No values, as where no seed finished with both labels, are no estimate.
    """
    if values.empty:
        return Estimate(nan)
    all_in_one = values.groupby(np.zeros(len(values), dtype=int))
    return Estimate(*_cells(all_in_one.mean()[0], all_in_one.std()[0], values.count()))


def _cells(mean: np.ndarray, sd: np.ndarray, n: np.ndarray) -> list:
    """The four numbers of an estimate in the last axis."""
    half = stdtrit(n - 1, 0.975) * sd / np.sqrt(n)
    return np.stack([mean, sd, mean - half, mean + half], axis=-1).tolist()
