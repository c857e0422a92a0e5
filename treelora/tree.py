"""The K-D tree over task signatures (paper, section 3.3 and equation 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Node:
    """A node of the tree: a set of tasks that resemble each other up to its level.

    Attributes:
        tasks: indices of the tasks below, ascending.
        threshold: the median distance delta to the node's mean, per entry; 0 in a leaf.
        children: none in a leaf, which holds one task.
    """

    tasks: tuple[int, ...]
    threshold: float = 0.0
    children: tuple[Node, ...] = ()

    def walk(self) -> Iterator[Node]:
        """All nodes, parents before their children."""
        yield self
        for child in self.children:
            yield from child.walk()

    def to_dict(self) -> dict:
        """A JSON-ready form; `from_dict` reads it back."""
        return {
            "tasks": list(self.tasks),
            "threshold": self.threshold,
            "children": [child.to_dict() for child in self.children],
        }

    @staticmethod
    def from_dict(data: dict) -> Node:
        return Node(
            tuple(data["tasks"]),
            data["threshold"],
            tuple(Node.from_dict(child) for child in data["children"]),
        )


def build_tree(signatures: Tensor, lengths: Tensor) -> Node:
    """Split the tasks by their distance to the mean, level l looking at adapted matrix l.

    At a node with task set I: mean m = mean_i g_i[l], distance d_i = ||g_i[l] - m||_1, threshold
    delta = (lower) median of d_i, tasks with d_i <= delta to the left, the others to the right.
    Two tasks are equally far from their mean, so they are parted at once; tasks that no level can
    tell apart become leaves of one node, so duplicates terminate. The threshold of such a node is
    the largest distance.

    Args:
        signatures: (N, P), one row per task.
        lengths: (L,), entries of each adapted matrix; they sum to P.

    Returns:
        The root. Distances are per entry, so that matrices of different size compare.
    """
    levels = signatures.split(lengths.tolist(), dim=1)

    def grow(tasks: tuple[int, ...], level: int) -> Node:
        if len(tasks) == 1:
            return Node(tasks)
        rows = levels[min(level, len(levels) - 1)][list(tasks)]
        distances = (rows - rows.mean(dim=0)).abs().mean(dim=1)
        if len(tasks) == 2 or level == len(levels):
            return Node(tasks, float(distances.max()), tuple(Node((task,)) for task in tasks))
        threshold = distances.median()
        near = (distances <= threshold).tolist()
        left = tuple(task for task, is_near in zip(tasks, near, strict=True) if is_near)
        right = tuple(task for task, is_near in zip(tasks, near, strict=True) if not is_near)
        if not right:  # equal distances: the next level may separate them
            return grow(tasks, level + 1)
        children = (grow(left, level + 1), grow(right, level + 1))
        return Node(tasks, float(threshold), children)

    with torch.no_grad():
        return grow(tuple(range(len(signatures))), 0)
