"""References of the methods on text with branches of each task."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.references.adapters import branch
from tests.references.common import (
    N_TASKS,
    adam,
    answer,
    cross_entropy,
    everything,
    query,
    read,
    seed,
    texts,
    train,
)


def mix(tasks, momentum):
    """(1 - m) of the last task's and m of the earlier ones' mean, factor by factor."""
    for *earlier, own in zip(*tasks, strict=True):
        mean = sum(e.data for e in earlier) / len(earlier)
        own.data = (1 - momentum) * own.data + momentum * mean


def contrast(batch, means):
    """mean_i -log softmax(Z Z' / 0.8)_ii with Z = [means; batch]."""
    z = torch.cat([*means, batch])
    return -(z @ z.T / 0.8).log_softmax(dim=1).diagonal().mean()


class Branches:
    """B_i A_i of each task; a text is read with weights of its own for them."""

    def __init__(self, start):
        self.network = start.network
        self.scale = start.config.alpha / start.config.rank
        self.factors = [branch(start, rf"\.lora_A\.{t}") for t in range(N_TASKS)]

    def units(self, task):
        return [part for pair in self.factors[task].values() for part in pair]

    def read(self, ids, weights):
        """Hidden states (L, width); `weights` has those of some tasks."""
        changes = {
            n: self.scale
            * sum(w * self.factors[i][n][1] @ self.factors[i][n][0] for i, w in weights.items())
            for n in self.factors[0]
        }
        return read(self.network, self.network.embed(ids), changes)


def sapt(start):
    """a = softmax_i <k_i, Q(x)> / sqrt(width) weighs branches; + kappa sum_i KL(abar_i || a)."""
    config, network, branches = start.config, start.network, Branches(start)
    keys = [start.leaf(f"keys.{t}") for t in range(N_TASKS)]
    Q = [start.leaf(f"query.{n}") for n in ("0.weight", "1.weight", "3.weight", "3.bias")]
    kept, means = [], []  # of each task x of some prompts, and abar

    def attention(x, n_tasks):
        down, up, gain, shift = Q
        z = F.silu(up @ down @ x)
        z = (z - z.mean()) / (z.var(correction=0) + 1e-5).sqrt() * gain + shift
        scores = torch.stack([key @ z for key in keys[:n_tasks]])
        return (scores / math.sqrt(len(x))).softmax(dim=0)

    def largest(ids, n_prompt):
        return network.embed(ids[:n_prompt]).amax(dim=0)

    for task in start.tasks:
        seed(task)
        n_tasks = task.index + 1

        def logits(x, n_tasks=n_tasks):
            rows = []
            for ids, n_prompt in texts(x):
                weights = dict(enumerate(attention(largest(ids, n_prompt), n_tasks)))
                rows.append(answer(network, branches.read(ids, weights)))
            return torch.stack(rows)

        def loss(x, y, n_tasks=n_tasks, logits=logits):
            drift = 0.0
            for own, mean in zip(kept, means, strict=True):
                chosen = torch.randperm(len(own))[: start.setting.batch_size]
                for i in chosen:
                    a = attention(own[i], n_tasks)[: len(mean)]
                    drift = drift + (mean * (mean / a).log()).sum() / len(chosen)
            return cross_entropy(logits(x), y) + config.kappa * drift

        own, attends = branches.units(task.index), [keys[task.index], *Q]
        rate = start.setting.learning_rate
        slow = (config.attention_rate or rate) / rate
        train(start, task, [*own, *attends], loss, adam(start, (1.0, own), (slow, attends)))
        inputs = [largest(*row) for row in texts(everything(task)[0])]
        if config.replay == "features":
            means.append(torch.stack([attention(x, n_tasks) for x in inputs]).mean(dim=0).detach())
            order = torch.randperm(len(inputs))[: round(config.replay_share * len(inputs))]
            kept.append([inputs[i] for i in order])
        yield logits


def hidelora(start):
    """The branches of the task that discriminant analysis of frozen features finds."""
    from sklearn.covariance import ledoit_wolf

    config, network, branches = start.config, start.network, Branches(start)
    frozen, own = [], []  # of each task: phi of its prompts, and the mean under its branches

    def instructed(ids, n_prompt, task):
        hidden = branches.read(ids, {task: 1.0})
        return hidden, hidden[:n_prompt].mean(dim=0)

    def discriminant():
        """Means of the tasks, and the inverse of their common covariance."""
        centred = torch.cat([phi - phi.mean(dim=0) for phi in frozen])
        shrunk, _ = ledoit_wolf(centred.numpy(), assume_centered=True)
        unbiased = torch.from_numpy(shrunk) * len(centred) / (len(centred) - len(frozen))
        means = [phi.mean(dim=0) for phi in frozen]
        return means, (unbiased + config.ridge * torch.eye(start.width)).inverse()

    for task in start.tasks:
        t = task.index
        if t:
            for new, old in zip(branches.units(t), branches.units(t - 1), strict=True):
                new.data = old.data.clone()

        def loss(x, y, t=t):
            hidden, means = zip(*(instructed(*row, t) for row in texts(x)), strict=True)
            logits = torch.stack([answer(network, h) for h in hidden])
            return cross_entropy(logits, y) + config.contrast * contrast(torch.stack(means), own)

        train(start, task, branches.units(t), loss)
        if t:
            mix([branches.units(i) for i in range(t + 1)], config.momentum)
        rows = texts(everything(task)[0])
        frozen.append(torch.stack([query(network, *row) for row in rows]))
        means = torch.stack([instructed(*row, t)[1].detach() for row in rows])
        own.append(means.mean(dim=0, keepdim=True))
        means, inverse = discriminant()

        def logits(x, means=means, inverse=inverse):
            answers = []
            for ids, n_prompt in texts(x):
                phi = query(network, ids, n_prompt)
                scores = torch.stack([m @ inverse @ phi - m @ inverse @ m / 2 for m in means])
                found = scores.argmax().item()
                answers.append(answer(network, branches.read(ids, {found: 1.0})))
            return torch.stack(answers)

        yield logits
