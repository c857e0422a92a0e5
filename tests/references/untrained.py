"""References of the methods without gradient steps."""

from __future__ import annotations

import random
import zlib
from collections import Counter

import torch
import torch.nn.functional as F

from tests.references.common import N_TASKS, PER_TASK, answer, features, read, seed, texts


def ranpac(start):
    """Ridge regression on relu(f R), or cosines to class means, of all images so far."""
    config, R = start.config, start.values.get("projection")
    h, y = torch.empty(0), torch.empty(0)

    def lifted(x):
        f = features(start, x)
        return f if R is None else (f @ R).relu()

    def fit(h, y, ridge):
        """(H'H + ridge I)^-1 H'Y."""
        u, s, vt = torch.linalg.svd(h, full_matrices=False)
        return vt.T @ ((s / (s**2 + ridge))[:, None] * (u.T @ y))

    def best(h, y):
        """The ridge with which four fifths of the images say most about the others."""
        n = len(h) * 4 // 5

        def error(ridge):
            return (h[n:] @ fit(h[:n], y[:n], ridge) - y[n:]).square().sum().item()

        return min((10.0**exponent for exponent in range(-8, 9)), key=error)

    for task in start.tasks:
        seed(task)
        x, labels = task.train.batch(torch.randperm(len(task.train)))
        own_h, own_y = lifted(x), F.one_hot(labels, N_TASKS * PER_TASK).double()
        h, y = torch.cat([h, own_h]), torch.cat([y, own_y])

        if config.head == "mean":
            means = F.normalize(y.T @ h, dim=1)
            yield lambda x, means=means: F.normalize(lifted(x), dim=1) @ means.T
        else:
            W = fit(h, y, config.ridge or best(own_h, own_y))
            yield lambda x, W=W: lifted(x) @ W


def fix(start):
    """Items of the task whose prompts have the most similar words stand before each prompt."""
    config, network, tokenizer = start.config, start.network, start.setting.tokenizer
    means, shots = [], []

    def words(text):
        counts = torch.zeros(4096)
        for word in text.split():
            counts[zlib.crc32(word.encode()) % 4096] += 1
        return (counts / counts.sum()).sqrt()

    def choose(items):
        """The label used least comes first; then the shortest of items longer than their share."""
        budget = config.shot_tokens or network.network.config.max_position_embeddings * 7 // 16
        share, used, chosen = budget // config.shots, Counter(), []
        while len(chosen) < config.shots and (items := [i for i in items if len(i[0]) <= budget]):
            best = min(
                items, key=lambda i: (len(i[0]) > share, used[i[1]], max(len(i[0]) - share, 0))
            )
            items.remove(best)
            chosen.append(best[0])
            used[best[1]] += 1
            budget -= len(best[0])
        return sum(chosen, [])

    def logits(x):
        rows = []
        for ids, n_prompt in texts(x):
            vector = words(tokenizer.decode(ids[:n_prompt].tolist()))
            task = min(range(len(means)), key=lambda i: (means[i] - vector).norm())
            whole = torch.cat([torch.tensor(shots[task]), ids])
            rows.append(answer(network, read(network, network.embed(whole))))
        return torch.stack(rows)

    for task in start.tasks:
        items = [(tokenizer.encode(prompt + gold), gold) for prompt, gold in task.examples]
        drawn = random.Random(f"{start.setting.seed} {task.index}").sample(items, len(items))
        shots.append(choose(drawn))
        means.append(torch.stack([words(prompt) for prompt, _ in task.examples]).mean(dim=0))
        yield logits
