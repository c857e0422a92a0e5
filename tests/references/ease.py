"""Reference of EASE: one adapter and one feature space for each task."""

from __future__ import annotations

import torch

from tests.references.adapters import branch
from tests.references.common import (
    N_TASKS,
    PER_TASK,
    adam,
    cross_entropy,
    everything,
    features,
    leaf,
    train,
)


def cos(a, b):
    return (a * b).sum(dim=-1) / (a.norm(dim=-1) * b.norm(dim=-1))


def ease(start):
    """Cosines to class means in every space, those of old classes put together from newer ones."""
    config, n_classes = start.config, N_TASKS * PER_TASK
    rows, spaces, seen = start.leaf("head.weight"), [], {}  # seen[j, c]: a mean of real features

    def feature(x, factors):
        scale = config.alpha / config.rank
        return features(start, x, {n: scale * b @ a for n, (a, b) in factors.items()})

    def prototype(j, c, t):
        """Of class c in the space of task j, after task t."""
        if (j, c) in seen:
            return seen[j, c]
        last = t if config.donors == "later" else j
        own = seen[c // PER_TASK, c]
        donors = range(PER_TASK * j, PER_TASK * (last + 1))
        likeness = torch.stack([cos(own, seen[c // PER_TASK, k]) for k in donors]).exp()
        parts = [w * seen[j, k] for w, k in zip(likeness, donors, strict=True)]
        return sum(parts) / likeness.sum()

    for task in start.tasks:
        t, factors, scale = (
            task.index,
            branch(start, rf"\.lora_A\.{task.index}"),
            leaf(torch.ones(())),
        )

        def loss(x, y, factors=factors, scale=scale):
            f = feature(x, factors)
            return cross_entropy(scale * cos(f[:, None], rows), y)

        parameters = [rows, scale, *(part for pair in factors.values() for part in pair)]
        train(start, task, parameters, loss, adam(start, (1.0, parameters)))
        spaces.append(factors)
        x, y = everything(task)
        for j, space in enumerate(spaces):
            f = feature(x, space).detach()
            seen |= {(j, c): f[y == c].mean(dim=0) for c in y.unique().tolist()}

        def logits(x, t=t):
            scores = torch.zeros(len(x), n_classes)
            for c in range(PER_TASK * (t + 1)):
                for j, space in enumerate(spaces):
                    weight = 1.0 if c // PER_TASK == j else config.reweight / t
                    scores[:, c] += weight * cos(feature(x, space), prototype(j, c, t))
            return scores

        yield logits
