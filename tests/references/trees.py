"""References of TreeLoRA's tree, search and pull."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tests.references.adapters import Lora
from tests.references.common import flat, train


@dataclass
class Node:
    tasks: list[int]
    threshold: float = 0.0
    children: tuple = ()


def tree(signatures, tasks, level=0):
    """Equation 1; `signatures` has of each task the vector g of each matrix."""
    n_levels = len(signatures[0])
    if len(tasks) == 1:
        return Node(tasks)
    g = torch.stack([signatures[task][min(level, n_levels - 1)] for task in tasks])
    distance = (g - g.mean(dim=0)).abs().mean(dim=1)
    if level == n_levels or len(tasks) == 2:
        return Node(tasks, distance.max().item(), tuple(Node([task]) for task in tasks))
    delta = distance.median()
    near = [task for task, d in zip(tasks, distance, strict=True) if d <= delta]
    far = [task for task in tasks if task not in near]
    if not far:
        return tree(signatures, tasks, level + 1)
    children = tuple(tree(signatures, part, level + 1) for part in (near, far))
    return Node(tasks, delta.item(), children)


def lower_bound(node, observed, step, entries=None):
    """Equation 2: the bound of a node, and the task at which a descent from it ends.

    `observed` has (task, residual) of each earlier step: means over entries, of which the largest
    is the unit, or sums over so many entries.
    """
    unit = max((residual for _, residual in observed), default=0.0) or 1.0
    threshold = node.threshold / unit
    if entries:
        unit, threshold = 1.0, node.threshold * entries
    values = [residual / unit for task, residual in observed if task in node.tasks]
    own = -math.inf
    if values:
        own = sum(values) / len(values) - 2 * math.sqrt(math.log(step) / len(values))
    if not node.children:
        return own, node.tasks[0]
    below = [lower_bound(child, observed, step, entries) for child in node.children]
    smallest = min(below, key=lambda pair: pair[0])  # the first of equals
    return max(own - threshold, smallest[0]), smallest[1]


class Guide:
    """The pull of an adapter towards that of a similar finished task, equation 3."""

    def __init__(self, options):
        self.options, self.signatures = options, []

    def begin(self):
        self.step, self.factors = 0, None
        if self.signatures:
            self.root = tree(self.signatures, list(range(len(self.signatures))))
            self.observed = [[] for _ in self.signatures[0]]

    def pull(self, lora, loss):
        if not self.signatures:
            return 0.0
        self.step += 1
        distances = []
        for level, pair in enumerate(lora.factors.values()):
            g, literal = flat(pair), self.options.residual_scale == "sum"
            entries = len(g) if literal else None
            _, chosen = lower_bound(self.root, self.observed[level], self.step, entries)
            distance = (g - self.signatures[chosen][level]).abs()
            residual = distance.sum() if literal else distance.mean()
            self.observed[level].append((chosen, residual.item()))
            distances.append(distance)
        strength, loss = self.options.strength, loss.detach()
        if self.options.penalty_scale == "sum":
            return strength * sum(distance.sum() for distance in distances)
        means = [distance.mean() for distance in distances]
        if self.options.penalty_scale == "constant":  # and layer by layer
            sizes = torch.stack([torch.stack(task).abs().mean(dim=1) for task in self.signatures])
            if self.factors is None:
                self.factors = loss / (sizes.mean(dim=0) + 1e-5)
            return strength * (self.factors * torch.stack(means)).sum()
        return strength * sum(means) / (sum(means).detach() + 1e-5) * loss

    def end(self, lora):
        self.signatures.append([flat(pair).detach() for pair in lora.factors.values()])


def treelora(start):
    lora, guide = Lora(start), Guide(start.config)

    def loss(x, y):
        own = lora.loss(x, y)
        return own + guide.pull(lora, own)

    for task in start.tasks:
        guide.begin()
        train(start, task, lora.parameters, loss)
        guide.end(lora)
        yield lora
