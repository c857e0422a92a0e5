"""How well a tree over tasks agrees with the groups in which the tasks were planted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import nan

import numpy as np

from analysis.records.schema import task_groups

PERMUTATIONS = 1000


def ranks(tree: dict) -> Iterator[list[dict]]:
    """For every depth the nodes there and the leaves above: the tree cut at that depth."""
    nodes = [tree]
    while True:
        yield nodes
        if not any(node["children"] for node in nodes):
            return
        nodes = [below for node in nodes for below in node["children"] or [node]]


def cut(tree: dict, n_clusters: int) -> list[int]:
    """The cluster of each task, cut at the depth with a number of clusters closest to n_clusters.

    The shallower of two that are equally close.
    """
    nodes = min(ranks(tree), key=lambda nodes: abs(len(nodes) - n_clusters))
    cluster = {task: i for i, node in enumerate(nodes) for task in node["tasks"]}
    return [cluster[task] for task in sorted(cluster)]


def halves(tasks: Sequence[int]) -> dict:
    """The tree that halves the tasks by their order of arrival."""
    middle = (len(tasks) + 1) // 2
    parts = (tasks[:middle], tasks[middle:]) if len(tasks) > 1 else ()
    return {"tasks": list(tasks), "children": [halves(part) for part in parts]}


def adjusted_rand(one: Sequence, others: Sequence) -> np.ndarray:
    """Hubert and Arabie's adjusted Rand index of two partitions: 1 if equal, 0 by chance.

    NaN where both put all items together or all apart, which leaves nothing to agree on.

    Args:
        one: (n,), the cluster of each item.
        others: (..., n), the other partition, or several.
    """
    _, rows = np.unique(one, return_inverse=True)
    _, columns = np.unique(others, return_inverse=True)
    columns = columns.reshape(np.shape(others))
    table = np.eye(rows.max() + 1)[rows].T @ np.eye(columns.max() + 1)[columns]

    def pairs(counts: np.ndarray) -> np.ndarray:
        return (counts * (counts - 1) / 2).sum(axis=-1)

    both, in_rows, in_columns = pairs(table).sum(-1), pairs(table.sum(-1)), pairs(table.sum(-2))
    expected = in_rows * in_columns / pairs(np.array([len(one)]))
    largest = (in_rows + in_columns) / 2
    with np.errstate(invalid="ignore"):
        return (both - expected) / (largest - expected)


@dataclass(frozen=True)
class Agreement:
    """The agreement of one run's last tree with the planted groups.

    Attributes:
        clusters: into how many the tree was cut, about as many as there are groups.
        index: adjusted Rand index of the cut tree.
        by_order: the same of the tree that halves the tasks by their order of arrival.
        with_order: the index of the tree and that one: how much of it is the order of arrival.
        chance, chance_95: mean and 95th percentile of the same tree with its leaves permuted.
        p: the share of permutations that agree at least as well.
        same_group: the share of pulls that chose a task of the current one's group, where an
            earlier one was there to be chosen.
        same_group_by_chance: the same if all leaves were chosen alike.
    """

    clusters: int
    index: float
    by_order: float
    with_order: float
    chance: float
    chance_95: float
    p: float
    same_group: float
    same_group_by_chance: float


def agreement(record: dict) -> Agreement | None:
    """What the trees and pulls of a run say; None without trees or without groups to find."""
    trees = (record.get("diagnostics") or {}).get("trees")
    groups = task_groups(record)
    if not trees or not 1 < len(set(groups)) < len(groups):
        return None
    clusters = cut(trees[-1], len(set(groups)))
    index = float(adjusted_rand(groups, clusters))
    draws = _by_chance(tuple(groups), tuple(clusters))
    by_order = cut(halves(range(len(groups))), len(set(groups)))
    return Agreement(
        len(set(clusters)),
        index,
        float(adjusted_rand(groups, by_order)),
        float(adjusted_rand(by_order, clusters)),
        float(np.mean(draws)),
        float(np.quantile(draws, 0.95)),
        float(np.mean(draws >= index - 1e-12)),
        *_same_group(record["diagnostics"].get("pulls") or [], trees, groups),
    )


@cache
def _by_chance(groups: tuple[str, ...], clusters: tuple[int, ...]) -> np.ndarray:
    """The index of each permutation; many runs have the same groups and clusters."""
    copies = np.tile(clusters, (PERMUTATIONS, 1))
    return adjusted_rand(groups, np.random.default_rng(0).permuted(copies, axis=1))


def _same_group(pulls: list, trees: list[dict], groups: list[str]) -> tuple[float, float]:
    """What `Agreement` says of the pulls; merged tasks are one arm and share its pulls."""
    hits = chance = total = 0.0
    for task, by_task in enumerate(pulls[1:], 1):
        if len(by_task) < task:  # nothing was searched
            continue
        *_, leaves = ranks(trees[task - 1])
        arms = [leaf["tasks"] for leaf in leaves]
        same = np.array([np.mean([groups[t] == groups[task] for t in arm]) for arm in arms])
        if same.any():
            counts = np.array([sum(by_task[arm[0]]) for arm in arms])
            hits += counts @ same
            chance += counts.sum() * same.mean()
            total += counts.sum()
    return (hits / total, chance / total) if total else (nan, nan)
