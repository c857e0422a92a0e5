"""Reference of the methods that are tested with a merge of what they were after each task."""

from __future__ import annotations

import torch

from tests.references.adapters import Lora, branch
from tests.references.common import adam, cross_entropy, forward, train


def magmax(start):
    """W + scale * merge of all alpha / r B_t A_t, entry by entry."""
    config, lora = start.config, Lora(start)
    lora.factors = branch(start, r"\.adapted\.lora_A\.default\.weight")
    scale = config.scale or {"magmax": 0.5, "mean": 1.0, "ties": 0.55}[config.merge]
    kept = None if start.setting.optimizer_reset else adam(start, (1.0, lora.parameters))
    history = []

    def trimmed(vector):
        """Only the share of entries with the largest magnitude is left."""
        n = max(1, round(config.density * vector.numel()))
        kept = torch.zeros_like(vector).flatten()
        order = vector.flatten().abs().argsort(descending=True)[:n]
        kept[order] = vector.flatten()[order]
        return kept.view_as(vector)

    def merge(entries):
        """The values of one entry of a matrix -> the merged one."""
        if config.merge == "magmax":
            return max(entries, key=abs)
        if config.merge == "ties":
            total = sum(entries)
            entries = [value for value in entries if value * total > 0] or [0.0]
        return sum(entries) / len(entries)

    for task in start.tasks:
        train(start, task, lora.parameters, lambda x, y: cross_entropy(lora(x), y), kept)
        history.append({n: change.detach() for n, change in lora.changes().items()})
        changes = {}
        for n in lora.factors:
            vectors = [vector[n] for vector in history]
            if config.merge == "ties":
                vectors = [trimmed(vector) for vector in vectors]
            columns = zip(*(vector.flatten().tolist() for vector in vectors), strict=True)
            flat = torch.tensor([scale * merge(entries) for entries in columns])
            changes[n] = flat.view_as(vectors[0])
        yield lambda x, changes=changes: forward(start, x, changes, lora.head)
