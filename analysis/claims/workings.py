"""Claims on how it works: the tree, the search's regret, the cost as tasks add up, adaptation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import inf, log, nan

import numpy as np
import pandas as pd

from analysis.claims import claimed
from analysis.claims.pairs import present
from analysis.claims.verdict import Effect, Effects, Reported, claim, span
from analysis.records.metrics import Estimate, interval
from analysis.records.regret import SMOOTH
from analysis.records.runs import Panel
from analysis.records.variants import sweep
from analysis.tables.table import two_digits


@claim(
    "tree",
    "The tree puts similar tasks together",
    "Figures 5, 8",
    lambda _: Reported("seen in the figures"),
    "the trees of a stream with planted groups of tasks",
    data="trees",
)
def tree(found: Mapping[str, Mapping[int, float]]) -> dict[str, Effects]:
    """Agreement of the last tree with the planted groups, 0 by chance: by place, then by seed."""
    return {
        place: [
            Effect("adjusted Rand index", interval(pd.Series(by_seed)), len(by_seed), unit="index")
        ]
        for place, by_seed in found.items()
    }


def _of_records(panel: Panel, measure: Callable[[dict], float], *pair: str) -> pd.Series:
    """A number of each run's record, the first label's minus the second's, paired by seed."""
    if not present(panel, *pair):
        return pd.Series(dtype=float)
    records = panel.done.set_index(["method", "seed"])["record"]
    first, second = (records.xs(label).map(measure) for label in pair)
    return first.sub(second).dropna()


def _growth(record: dict, key: str) -> float:
    """The logarithm of the last task's cost over the second's, by a line through those between."""
    tasks = record["tasks"][1:]
    if len(tasks) < 2 or any(task[key] is None for task in tasks):
        return nan
    costs = [task[key] / (task["steps"] if key == "train_seconds" else 1) for task in tasks]
    slope, _ = np.polyfit(range(len(costs)), np.log(costs), 1)
    return slope * (len(costs) - 1)


def _growths(panel: Panel, key: str, *pair: str) -> pd.Series:
    """How much more a cost of the first grows than one of the second, by seed of one device."""
    values = _of_records(panel, partial(_growth, key=key), *pair)
    return values[values.index.isin(panel.comparable(*pair))]


def _constant(panel: Panel, estimate: Estimate, n: int) -> Effects:
    """Growth from the first task with an old one to the last, over SeqLoRA's."""
    region = (-inf, log(1 + claimed.time_spread(panel.modality)))
    return [Effect("growth, treelora / seqlora", estimate, n, region, "times")]


@claim(
    "constant-time",
    "A step takes no longer when more tasks were learnt",
    "Section 3.2",
    lambda _: Reported("no number"),
    "treelora and seqlora on at least three tasks",
)
def constant_time(panel: Panel) -> Effects:
    """Growth of the time of a step."""
    values = _growths(panel, "train_seconds", "treelora", "seqlora")
    return [] if values.empty else _constant(panel, interval(values), len(values))


@claim(
    "constant-memory",
    "Training takes no more memory when more tasks were learnt",
    "Appendix A.3",
    lambda _: Reported("no number by task"),
    "treelora and seqlora on at least three tasks, on a GPU",
)
def constant_memory(panel: Panel) -> Effects:
    """Growth of the peak of a GPU's memory, which is counted: from the least seed to the most.

    On a CPU the peak is that of the whole process, beside which the tree's state is nothing.
    """
    pair = ("treelora", "seqlora")
    values = _growths(panel, "peak_bytes", *pair)
    on_gpu = (not _is_cpu(panel.clocks[pair[0]][seed]) for seed in values.index)
    if values.empty or not all(on_gpu):
        return []
    return _constant(panel, Estimate(values.mean(), nan, values.min(), values.max()), 0)


def _is_cpu(clock: tuple) -> bool:
    devices, *_ = clock
    return any(device.partition(",")[0].upper() == "CPU" for device in devices)


def _ratio(what: str, ratio: float | Estimate, region: tuple[float, float]) -> Effect:
    """A ratio that was found elsewhere; exact where it is a number."""
    mean, _, low, high = ratio if isinstance(ratio, tuple) else (ratio, 0, ratio, ratio)
    return Effect(what, Estimate(log(mean), nan, log(low), log(high)), 0, region, "times")


@claim(
    "regret",
    "On smooth trees the search has less regret than a flat one",
    "Theorem 1",
    lambda _: Reported("a bound"),
    "the regret experiment",
    data="regret",
)
def regret(found: Mapping[str, object]) -> dict[str, Effects]:
    """Regret of the tree's search over the flat one's, on smooth trees: by structure and gamma."""
    places: dict[str, Effects] = {}
    size = f"N = {found['n']:,}, T = {found['t']:,}"
    for (structure, gamma), ratio in found["ratios"].items():
        if structure in SMOOTH:
            what = f"regret of tree / flat, gamma {gamma}, {size}"
            effect = _ratio(what, ratio, (-inf, 0.0))
            places.setdefault(f"{structure} trees", []).append(effect)
    return places


def _while_learning(record: dict) -> float:
    """The mean score of all tasks but the first in the tests made while they were learnt."""
    curve = record.get("test_curve") or []
    scores = [point["score"] for point in curve if point["task"] > 0]
    return float(np.mean(scores)) if scores else nan


@claim(
    "adaptation",
    "It learns a new task faster than plain LoRA",
    "Figure 1",
    lambda _: Reported("seen in the figure"),
    "treelora and seqlora tested while they learn (test_curve)",
)
def adaptation(panel: Panel) -> Effects:
    """The mean score while a task is learnt, TreeLoRA minus SeqLoRA."""
    pair = []
    for method in ("treelora", "seqlora"):
        tested = {n or 0: label for n, label in sweep(panel, method, "curve_tests").items()}
        pair.append(tested[max(tested)] if tested else method)
    values = _of_records(panel, _while_learning, *pair)
    if values.empty:
        return []
    what = f"{' − '.join(panel.titles[label] for label in pair)}, mean of the test curve"
    return [Effect(what, interval(values), len(values))]


def _flops_in_paper(_: str) -> Reported:
    ratio = claimed.flops()["treelora"] / claimed.flops()
    each = (f"{two_digits(ratio[other])}× {other}" for other in ("seqlora", "olora"))
    return Reported(" and ".join(each))


@claim(
    "flops",
    "Operations per token are as many as LoRA's and do not grow with the tasks as O-LoRA's",
    "Table 8",
    _flops_in_paper,
    "the accounting of operations",
    data="accounting",
)
def flops(found: Mapping[str, Mapping]) -> dict[str, Effects]:
    """Operations per token at the paper's tenth task, by model and method."""
    paper = claimed.flops()
    half = log(paper["olora"] / paper["seqlora"]) / 2
    return {
        model: [
            _ratio("treelora / seqlora", each["treelora"] / each["seqlora"], (-inf, half)),
            _ratio("olora / treelora", each["olora"] / each["treelora"], (half, inf)),
        ]
        for model, each in found["flops"].items()
    }


@claim(
    "disk",
    "Adapters and tree take no more disk than the paper says",
    "Appendix A.3",
    lambda _: Reported(span(claimed.disk(), " MB", signed=False).text, 0.0, 0.0),  # itself
    "the accounting of bytes",
    data="accounting",
)
def disk(found: Mapping[str, Mapping]) -> dict[str, Effects]:
    """Bytes of the stored adapters and the tree over those that the paper reports, by model."""
    return {
        model: [_ratio("bytes, here / paper", found["disk"][model] / (1e6 * megabytes), (-inf, 0))]
        for model, megabytes in claimed.disk().items()
        if model in found["disk"]
    }
