"""References of InfLoRA and SD-LoRA."""

from __future__ import annotations

import numpy as np
import torch

from tests.references.adapters import branch, renewed
from tests.references.common import (
    N_TASKS,
    cross_entropy,
    everything,
    features,
    forward,
    leaf,
    seed,
    train,
)


class DualGPM:
    """InfLoRA's memory by singular value decompositions, both modes spelled out."""

    def __init__(self):
        self.M, self.mode = None, "remove"

    def design(self, C, rank):
        R = C
        if self.M is not None:
            inside = self.M @ self.M.T @ C
            R = C - inside if self.mode == "remove" else inside
        return np.linalg.svd(R)[0][:, :rank].T / np.sqrt(3)

    def grow(self, C, threshold):
        d = len(C)
        values = np.linalg.svd(C)[1] ** 2
        total = values.sum()
        if self.M is None:
            n = int((np.cumsum(values) / total < threshold).sum())
            self.M = np.linalg.svd(C)[0][:, : max(n, 1)]
        elif self.mode == "remove":
            U, S, _ = np.linalg.svd(C - self.M @ self.M.T @ C)
            held, n = 1 - (S**2).sum() / total, 0
            while held < threshold:
                held += S[n] ** 2 / total
                n += 1
            self.M = np.hstack([self.M, U[:, :n]])
        else:
            U, S, _ = np.linalg.svd(self.M @ self.M.T @ C)
            left, n = (S**2).sum() / total, 0
            while left >= 1 - threshold:
                left -= S[n] ** 2 / total
                n += 1
            rest = self.M - U[:, :n] @ U[:, :n].T @ self.M
            self.M = np.linalg.svd(rest)[0][:, : self.M.shape[1] - n]
        if self.mode == "remove" and self.M.shape[1] > d / 2:
            self.M, self.mode = np.linalg.svd(self.M)[0][:, self.M.shape[1] :], "retain"


def inflora(start):
    """(W + sum_s B_s A_s) x for keys and values, A_t set before the task."""
    config, head, blocks = start.config, start.head(), start.network.network.blocks
    names = [[f"network.blocks.{i}.attn.qkv.{p}_proj" for p in "kv"] for i in range(len(blocks))]
    memories = [DualGPM() for _ in blocks]
    merged = {name: torch.zeros(start.width, start.width) for pair in names for name in pair}

    @torch.no_grad()
    def moments(task):
        """The mean of x x' over the tokens that keys and values read, for each block."""
        read = []
        for block in blocks:
            block.norm1.register_forward_hook(lambda _, __, x: read.append(x.flatten(0, 1)))
        features(start, everything(task)[0], merged)
        for block in blocks:
            block.norm1._forward_hooks.clear()
        return [(x.T @ x / len(x)).numpy() for x in read]

    for task in start.tasks:
        A, B = {}, {}
        for pair, memory, C in zip(names, memories, moments(task), strict=True):
            for name in pair:
                A[name] = torch.from_numpy(memory.design(C, config.rank))
                B[name] = torch.zeros(start.width, config.rank, requires_grad=True)

        def loss(x, y, A=A, B=B, merged=merged):
            changes = {name: merged[name] + B[name] @ A[name] for name in A}
            return cross_entropy(forward(start, x, changes, head), y)

        train(start, task, [*B.values(), *head], loss)
        merged = {name: merged[name] + (B[name] @ A[name]).detach() for name in A}
        threshold = config.lamb + (config.lame - config.lamb) * task.index / N_TASKS
        for memory, C in zip(memories, moments(task), strict=True):
            memory.grow(C, threshold)
        yield lambda x, merged=merged: forward(start, x, merged, head)


def sdlora(start):
    """a_t B_t A_t + sum_i a_i B_i / ||B_i|| A_i / ||A_i||, the a shared by all matrices."""
    config, head = start.config, start.head()
    factors, earlier = branch(start, r"\.A"), []
    for task in start.tasks:
        seed(task)
        if task.index:
            earlier.append(
                {n: (b / b.norm() @ a / a.norm()).detach() for n, (a, b) in factors.items()}
            )
            factors = renewed(factors)
        a_old = [leaf(torch.tensor(config.magnitude)) for _ in earlier]
        a_new = leaf(torch.tensor(config.magnitude))

        def logits(x, factors=factors, a_old=a_old, a_new=a_new):
            changes = {n: a_new * B @ A for n, (A, B) in factors.items()}
            for a, old in zip(a_old, earlier, strict=False):
                changes = {n: change + a * old[n] for n, change in changes.items()}
            return forward(start, x, changes, head)

        parameters = [*a_old, a_new, *(p for pair in factors.values() for p in pair), *head]
        optimizer = None
        if config.optimizer == "sgd":
            optimizer = torch.optim.SGD(parameters, start.setting.learning_rate, momentum=0.9)

        def loss(x, y, logits=logits):
            return cross_entropy(logits(x), y)

        train(start, task, parameters, loss, optimizer)
        yield logits
