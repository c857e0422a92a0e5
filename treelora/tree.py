"""The K-D tree over task signatures (paper, section 3.3 and equation 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Node:
    """A node of the tree: a set of tasks that resemble each other up to its level.

    Attributes:
        tasks: indices of the tasks below, ascending.
        threshold: the median distance delta to the node's mean, per entry; 0 in a leaf.
        children: the tasks near the mean, then those further away; none in a leaf, which holds one
            task.
    """

    tasks: tuple[int, ...]
    threshold: float = 0.0
    children: tuple[Node, ...] = ()

    def walk(self) -> Iterator[Node]:
        """All nodes, parents before their children."""
        yield self
        for child in self.children:
            yield from child.walk()

    def to_dict(self, members: Sequence[Sequence[int]] | None = None) -> dict:
        """A JSON-ready form; `from_dict` reads it back.

        Args:
            members: what each index stands for, where adapters of several tasks were merged.
        """
        tasks = self.tasks if members is None else sorted(t for i in self.tasks for t in members[i])
        return {
            "tasks": list(tasks),
            "threshold": self.threshold,
            "children": [child.to_dict(members) for child in self.children],
        }

    @staticmethod
    def from_dict(data: dict) -> Node:
        return Node(
            tuple(data["tasks"]),
            data["threshold"],
            tuple(Node.from_dict(child) for child in data["children"]),
        )


def build_tree(signatures: Tensor, lengths: Tensor | None = None, similarity: str = "l1") -> Node:
    """Split the tasks by their likeness to the mean, level l looking at adapted matrix l.

    At a node with task set I: mean m = mean_i g_i[l].

    `l1` (equation 1): distance d_i = ||g_i[l] - m||_1 / D_l, threshold delta = (lower) median of
    d_i, tasks with d_i <= delta to the left, the others to the right. Where no task is further
    away, the next level is asked. Two tasks are always equally far from their mean, so they are
    parted at once.

    `inner` (the authors' code): s_i = <g_i[l], m>, threshold = (lower) median of s_i, tasks with
    s_i >= threshold to the left. Where that is all of them, they are halved by position.

    Tasks that no level can part become leaves of one node, so duplicates terminate. The threshold
    of a node whose children are leaves is with `l1` its largest distance.

    Args:
        signatures: (N, L, D), one stack of L vectors per task, padded with zeros.
        lengths: (L,), entries of each matrix that count; None if all D do.
        similarity: `l1` or `inner`.

    Returns:
        The root. No leaf is deeper than L + 1.

    Raises:
        ValueError: there are no tasks, or the similarity is unknown.
    """
    if similarity not in ("l1", "inner"):
        raise ValueError(f"similarity must be l1 or inner, but is {similarity!r}")
    if not len(signatures):
        raise ValueError("a tree needs at least one task's signature, but there is none")
    n_tasks, n_levels, width = signatures.shape
    sizes = [width] * n_levels if lengths is None else lengths.tolist()

    def grow(tasks: tuple[int, ...], level: int) -> Node:
        if len(tasks) == 1:
            return Node(tasks)
        parted = (by_product if similarity == "inner" else by_distance)(tasks, level)
        if parted is None:  # the next level may part them
            return grow(tasks, level + 1)
        near, threshold = parted
        left = tuple(task for task, is_near in zip(tasks, near, strict=True) if is_near)
        right = tuple(task for task, is_near in zip(tasks, near, strict=True) if not is_near)
        if level == n_levels or len(tasks) == 2:
            return Node(tasks, threshold, tuple(Node((task,)) for task in left + right))
        return Node(tasks, threshold, (grow(left, level + 1), grow(right, level + 1)))

    def by_distance(tasks: tuple[int, ...], level: int) -> tuple[list[bool], float] | None:
        column = min(level, n_levels - 1)
        rows = signatures[list(tasks), column]
        distances = (rows - rows.mean(dim=0)).abs().sum(dim=1) / sizes[column]
        if len(tasks) == 2 or level == n_levels:
            return [True] * len(tasks), float(distances.max())
        threshold = distances.median()
        near = (distances <= threshold).tolist()
        return None if all(near) else (near, float(threshold))

    def by_product(tasks: tuple[int, ...], level: int) -> tuple[list[bool], float]:
        if level == n_levels:
            return [True] * len(tasks), 0.0
        rows = signatures[list(tasks), level]
        products = rows @ rows.mean(dim=0)
        threshold = products.median()
        near = (products >= threshold).tolist()
        if all(near):
            near = [place < len(tasks) // 2 for place in range(len(tasks))]
        return near, float(threshold)

    with torch.no_grad():
        return grow(tuple(range(n_tasks)), 0)
