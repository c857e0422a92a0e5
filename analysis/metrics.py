"""Every derived number: scores from R, costs from the raw timings, and their spread over seeds.

R is (task learnt, task tested), scores in [0, 1], NaN where not measured. A metric whose entries
were not measured is None, never 0: a run that learns all tasks at once has only its last row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from analysis.records import Run


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def acc(R: np.ndarray) -> float | None:
    """Mean score over all tasks after the last one (ACC on vision, OP on language)."""
    return _defined(R[-1].mean())


def bwt_paper(R: np.ndarray) -> float | None:
    """The paper's BWT: (1/N) sum_j R[j, j] - R[N-1, j]. Positive is forgetting."""
    return _defined((R.diagonal() - R[-1]).mean())


def bwt_released(R: np.ndarray) -> float | None:
    """The released code's BWT: (1/N) sum_j min(R[N-1, j] - R[j, j], 0). Gains do not count."""
    return _defined(np.minimum(R[-1] - R.diagonal(), 0).mean())


def bwt_standard(R: np.ndarray) -> float | None:
    """Lopez-Paz and Ranzato's BWT: 1/(N-1) sum_{j<N-1} R[N-1, j] - R[j, j]. Negative is forgetting.

    None for a single task.
    """
    return _defined((R[-1] - R.diagonal())[:-1].mean()) if len(R) > 1 else None


def forgetting(R: np.ndarray) -> float | None:
    """Chaudhry et al.: 1/(N-1) sum_{j<N-1} max_{i<N-1} R[i, j] - R[N-1, j]. None for one task."""
    if len(R) < 2:
        return None
    earlier = R[:-1, :-1]
    best = np.where(np.isnan(earlier), -np.inf, earlier).max(axis=0)
    best[np.isinf(best)] = np.nan
    return _defined((best - R[-1, :-1]).mean())


def learning_accuracy(R: np.ndarray) -> float | None:
    """Mean score of each task right after it was learnt."""
    return _defined(R.diagonal().mean())


def running_accuracy(R: np.ndarray) -> list[float | None]:
    """After each task, the mean score over the tasks seen so far."""
    return [_defined(row[: i + 1].mean()) for i, row in enumerate(R)]


SCORES = (acc, bwt_paper, bwt_released, bwt_standard, forgetting, learning_accuracy)


def _total(tasks: list[dict], key: str) -> float | None:
    values = [task[key] for task in tasks]
    return None if None in values else sum(values)


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def measure(run: Run) -> dict[str, float | None]:
    """All metrics of one run by name; all None unless it is done."""
    if not run.done:
        return dict.fromkeys(METRICS)
    tasks = run.record["tasks"]
    parts = ("train_seconds", "consolidate_seconds", "eval_seconds", "steps", "samples")
    values = {score.__name__: score(run.R) for score in SCORES}
    values |= {part: _total(tasks, part) for part in parts}
    train, consolidate = values["train_seconds"], values["consolidate_seconds"]
    values["time_seconds"] = None if None in (train, consolidate) else train + consolidate
    per_step = _ratio(train, values["steps"])
    values["ms_per_step"] = None if per_step is None else 1000 * per_step
    values["samples_per_second"] = _ratio(values["samples"], values["time_seconds"])
    peaks = [task["peak_bytes"] for task in tasks if task["peak_bytes"] is not None]
    values["peak_bytes"] = max(peaks, default=None)
    footprint = run.record["footprint"] or {}
    return {name: values.get(name, footprint.get(name)) for name in METRICS}


# name: (how it is called, what it is); the order of summary.csv and of the report's definitions.
METRICS = {
    "acc": (
        "ACC, OP",
        "Mean score over all tasks after the last one: mean_j R[N, j]. Called ACC on vision and "
        "OP on language.",
    ),
    "bwt_paper": (
        "BWT (paper)",
        "(1/N) sum_j (R[j, j] - R[N, j]), as the paper defines it: positive is forgetting, "
        "smaller is better.",
    ),
    "bwt_released": (
        "BWT (released)",
        "(1/N) sum_j min(R[N, j] - R[j, j], 0), as the authors' code computes it: never positive, "
        "so a task that improved later counts as zero; larger is better.",
    ),
    "bwt_standard": (
        "BWT (standard)",
        "1/(N-1) sum_{j<N} (R[N, j] - R[j, j]), as most of the literature defines it: negative is "
        "forgetting, larger is better.",
    ),
    "forgetting": (
        "Forgetting",
        "1/(N-1) sum_{j<N} (max_{i<N} R[i, j] - R[N, j]): the fall from the best score a task "
        "ever had; smaller is better.",
    ),
    "learning_accuracy": (
        "Learning accuracy",
        "(1/N) sum_j R[j, j]: the mean score of each task right after it was learnt.",
    ),
    "time_seconds": (
        "TIME s",
        "Seconds of learning for the whole stream: optimisation steps plus consolidation, "
        "without evaluation.",
    ),
    "train_seconds": ("train s", "The part of TIME spent in optimisation steps."),
    "consolidate_seconds": (
        "consolidate s",
        "The part of TIME spent between tasks: Fisher information, memories, signatures.",
    ),
    "eval_seconds": ("evaluate s", "Seconds of testing; not part of TIME."),
    "steps": ("Steps", "Optimisation steps over the whole stream."),
    "ms_per_step": ("ms/step", "Seconds in optimisation steps per step, in milliseconds."),
    "samples": ("Samples", "Training samples seen over the whole stream, repeats included."),
    "samples_per_second": ("samples/s", "Training samples seen per second of TIME."),
    "peak_bytes": ("Peak MiB", "The largest memory use of any task while it was learnt."),
    "trainable_parameters": ("Trainable", "Parameters that the optimiser changes."),
    "stored_parameters": ("Stored", "Parameters kept for later tasks or for inference."),
    "state_bytes": ("State MiB", "Saved after a task: what learning changed, nothing frozen."),
}


class Estimate(NamedTuple):
    """A mean over n seeds, its sample standard deviation, and for a difference its interval."""

    mean: float
    sd: float | None
    n: int
    low: float | None = None
    high: float | None = None


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """Mean and sample standard deviation (ddof=1) of the defined values; None if there are none."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    sd = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return Estimate(float(np.mean(known)), sd, len(known))


def paired_difference(
    ours: Mapping[int, float | None], reference: Mapping[int, float | None], level: float = 0.95
) -> Estimate | None:
    """Mean of ours - reference over the seeds that both have, with its paired t interval.

    Both map a seed to a value. The interval needs two seeds; without a common seed: None.
    """
    common = sorted(
        seed for seed in ours if ours[seed] is not None and reference.get(seed) is not None
    )
    result = estimate(ours[seed] - reference[seed] for seed in common)
    if result is None or result.sd is None:
        return result
    half = t_quantile((1 + level) / 2, result.n - 1) * result.sd / math.sqrt(result.n)
    return result._replace(low=result.mean - half, high=result.mean + half)


def t_quantile(p: float, df: int) -> float:
    """The p-quantile (p > 0.5) of Student's t with integer df, by bisection.

    For an integer df the probability of |T| < sqrt(df) tan(angle) is a finite trigonometric sum
    (Abramowitz and Stegun 26.7.3 and 26.7.4).
    """

    def within(angle: float) -> float:
        cos, term, total = math.cos(angle), 1.0, 0.0
        if df % 2 == 0:
            for k in range(2, df + 1, 2):
                total += term
                term *= cos * cos * (k - 1) / k
            return math.sin(angle) * total
        term = cos
        for k in range(3, df + 1, 2):
            total += term
            term *= cos * cos * (k - 1) / k
        return 2 / math.pi * (angle + math.sin(angle) * total)

    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < 2 * p - 1 else (low, middle)
    return math.sqrt(df) * math.tan(low)
