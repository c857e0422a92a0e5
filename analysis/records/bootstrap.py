"""The difference between two methods, resampled over seeds and test items.

A draw weighs all test items of a panel, by the exponential weights of Rubin's Bayesian bootstrap,
and takes S - 1 of the S seeds with replacement, which makes the variance over few seeds unbiased
(Rao and Wu). Both methods have the same weights and seeds, so that what is hard for both cancels.
Items and seeds cross, as in Owen's pigeonhole bootstrap, whose intervals are rather too wide.
"""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import NamedTuple

import numpy as np

from analysis.records import predictions
from analysis.records.metrics import Estimate
from analysis.records.predictions import Predictions
from analysis.records.runs import Panel

N_DRAWS = 1000


class Difference(NamedTuple):
    """Mean difference in the mean final score, with its 95 % interval, and a two-sided p."""

    value: Estimate
    p: Estimate


@cache
def differences(panel: Panel) -> dict[str, Difference]:
    """Each method minus the panel's reference, over the seeds in which both kept their answers."""
    runs: dict[int, dict[str, Predictions]] = {}
    for run in panel.done.itertuples():
        if found := predictions.of_record(panel.suite.predictions, run.record):
            runs.setdefault(run.seed, {})[run.method] = found
    runs = {seed: own for seed, own in runs.items() if panel.reference in own}
    if not runs:
        return {}
    ids = np.unique([i for own in runs.values() for i in chain(*own[panel.reference].items)])
    weights = _weights(len(ids))
    drawn: dict[str, list[np.ndarray]] = {}
    for own in runs.values():
        base = own.pop(panel.reference)
        alike = {label: run for label, run in own.items() if run.items == base.items}
        places = [np.searchsorted(ids, items) for items in base.items]
        values = _mean_differences([base, *alike.values()], places, weights)
        for label, value in zip(alike, values, strict=True):
            drawn.setdefault(label, []).append(value)
    return {label: _difference(np.stack(values)) for label, values in drawn.items()}


def _weights(n_items: int) -> np.ndarray:
    """The weight of each item in each draw, (1 + draws, items); 1 in the first."""
    drawn = np.random.default_rng(0).standard_exponential((N_DRAWS, n_items), dtype=np.float32)
    return np.concatenate([np.ones_like(drawn[:1]), drawn])


def _mean_differences(
    runs: list[Predictions], places: list[np.ndarray], weights: np.ndarray
) -> np.ndarray:
    """Runs minus the first in the mean over tasks of the final score, (runs - 1, 1 + draws).

    `places` has the columns of each task's items in `weights`.
    """
    means = np.zeros((len(runs) - 1, len(weights)))
    last = len(places) - 1
    for task, own in enumerate(places):
        scores = np.array([run.cells[last, task].scores for run in runs], np.float32)
        drawn = weights[:, own]
        means += (scores[1:] - scores[0]) @ drawn.T / drawn.sum(axis=1)
    return means / len(places)


def _difference(values: np.ndarray) -> Difference:
    """Of the differences (seeds, 1 + draws)."""
    n = len(values)
    mean, *_ = values.mean(axis=0)
    chosen = np.random.default_rng(1).integers(n, size=(max(n - 1, 1), N_DRAWS))
    drawn = np.take_along_axis(values[:, 1:], chosen, axis=0).mean(axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    p = min(1, 2 * (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / (1 + N_DRAWS))
    return Difference(Estimate(mean, low=low, high=high), Estimate(p))
