"""References of the methods with an adapter that is trained from task to task."""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import functional_call
from torch.utils.data import DataLoader

from tests.references.common import (
    PER_TASK,
    adam,
    cross_entropy,
    flat,
    forward,
    leaf,
    seed,
    train,
    unflat,
)


class Lora:
    """W + alpha / r B A in some matrices, B from 0, and on vision a classifier."""

    def __init__(self, start, adapter="default"):
        self.start = start
        self.scale = start.config.alpha / start.config.rank
        self.head = start.head()
        self.factors = branch(start, rf"\.lora_A\.{adapter}\.weight")

    @property
    def units(self):
        return [part for pair in self.factors.values() for part in pair]

    @property
    def parameters(self):
        return [*self.units, *self.head]

    def changes(self):
        return {n: self.scale * b @ a for n, (a, b) in self.factors.items()}

    def __call__(self, x):
        return forward(self.start, x, self.changes(), self.head)

    def loss(self, x, y):
        return cross_entropy(self(x), y)


def branch(start, ending):
    """A and B of each adapted matrix."""
    rows = {n: start.network.get_submodule(n).out_features for n in start.matrices(ending)}
    return {
        n: (leaf(a), torch.zeros(rows[n], len(a), requires_grad=True))
        for n, a in start.matrices(ending).items()
    }


def renewed(factors):
    """New ones: A as drawn for LoRA, B from 0."""
    made = {}
    for n, (a, b) in factors.items():
        bound = a.shape[1] ** -0.5
        made[n] = leaf(torch.empty_like(a).uniform_(-bound, bound)), leaf(torch.zeros_like(b))
    return made


def masked(start, task, logits, y):
    """Cross-entropy among the classes that the run's mask leaves."""
    if start.setting.mask == "seen":
        logits = logits[:, : PER_TASK * (task.index + 1)]
    current = start.setting.mask in ("current", None)
    return cross_entropy(logits, y) if current else F.cross_entropy(logits, y)


def seqlora(start):
    lora = Lora(start)
    kept = None if start.setting.optimizer_reset else adam(start, (1.0, lora.parameters))
    for task in start.tasks:

        def loss(x, y, task=task):
            return masked(start, task, lora(x), y)

        train(start, task, lora.parameters, loss, kept)
        yield lora


class Whole:
    """All weights of a network."""

    def __init__(self, start):
        self.network = start.network
        self.weights = {n: start.leaf(n) for n, _ in start.network.named_parameters()}
        self.parameters = list(self.weights.values())

    def __call__(self, x):
        return functional_call(self.network, self.weights, (x,))

    loss = Lora.loss


def ewc(start):
    """loss + strength sum_k sum_p F_kp (theta_p - theta*_kp)^2."""
    config = start.config
    learner = Whole(start) if config.trained == "all" else Lora(start)
    finished = []  # F and theta* of each task

    def loss(x, y):
        theta = flat(learner.parameters)
        pull = sum(fisher @ (theta - anchor).square() for fisher, anchor in finished)
        return learner.loss(x, y) + config.strength * pull

    for task in start.tasks:
        seed(task)
        train(start, task, learner.parameters, loss)
        chosen = torch.randperm(len(task.train))[: config.fisher_samples]
        parts = [
            flat(torch.autograd.grad(learner.loss(*task.train.batch(part)), learner.parameters))
            for part in chosen.split(config.fisher_batch_size)
        ]
        fisher = torch.stack(parts).square().mean(dim=0)
        finished.append((fisher, flat(learner.parameters).detach()))
        yield learner


def projected(gradient, memories, margin, ridge=1e-3):
    """g + G'v with the best v >= margin of GEM's quadratic programme, every active set tried."""
    n = len(memories)
    p = memories @ memories.T + ridge * np.eye(n)
    q = memories @ gradient
    best, best_value = None, np.inf
    for size in range(n + 1):
        for active in map(list, itertools.combinations(range(n), size)):
            v = np.full(n, float(margin))
            free = [i for i in range(n) if i not in active]
            if free:
                rest = p[np.ix_(free, active)] @ v[active]
                v[free] = np.linalg.solve(p[np.ix_(free, free)], -q[free] - rest)
            value = 0.5 * v @ p @ v + q @ v
            if (v >= margin - 1e-9).all() and value < best_value:
                best, best_value = v, value
    return gradient + memories.T @ best


def gem(start):
    """Gradients against which no memory's loss rises."""
    lora, memories = Lora(start), []
    for task in start.tasks:
        seed(task)

        def loss(x, y, task=task):
            return masked(start, task, lora(x), y)

        def change(gradients, loss=loss):
            g = flat(gradients)
            past = [flat(torch.autograd.grad(loss(*m), lora.parameters)) for m in memories]
            if all(g @ k >= 0 for k in past):
                return gradients
            G = torch.stack(past).numpy()
            found = projected(g.numpy(), G, start.config.memory_strength)
            return unflat(torch.from_numpy(found), gradients)

        train(start, task, lora.parameters, loss, change=change)
        order = torch.cat(list(DataLoader(range(len(task.train)), shuffle=True)))
        memories.append(task.train.batch(order[: start.config.memory_per_task]))
        yield lora


def ogd(start):
    """d - V V' d with V from the gradients of gold logits, d Adam's step or the gradient."""
    lora, config = Lora(start), start.config
    stored = []

    def orthogonal(vector):
        if not stored:
            return vector
        V = torch.linalg.qr(torch.stack(stored).T).Q
        return vector - V @ (V.T @ vector)

    class Projected(getattr(torch.optim, {"adam": "Adam", "sgd": "SGD"}[config.optimizer])):
        @torch.no_grad()
        def step(self):
            before = flat(lora.parameters)
            super().step()
            if config.project == "step":
                kept = before + orthogonal(flat(lora.parameters) - before)
                for p, value in zip(lora.parameters, unflat(kept, lora.parameters), strict=True):
                    p.copy_(value)

    def change(gradients):
        if config.project == "step":
            return gradients
        return unflat(orthogonal(flat(gradients)), gradients)

    for task in start.tasks:
        seed(task)
        optimizer = Projected(lora.parameters, lr=start.setting.learning_rate)
        train(start, task, lora.parameters, lora.loss, optimizer, change)
        for one in torch.randperm(len(task.train))[: config.directions].split(1):
            x, y = task.train.batch(one)
            logits = lora(x)[0]
            gold = logits[y[0]] if y.dim() == 1 else logits.gather(1, y[0, -2:, None]).mean()
            stored.append(flat(torch.autograd.grad(gold, lora.parameters)))
        yield lora


def olora(start):
    """loss + lambda1 sum_i |A_i A_t'| + lambda2 (||A_t|| + ||B_t||); all adapters add up."""
    lora, config = Lora(start, "current"), start.config
    earlier = []

    def logits(x):
        changes = lora.changes()
        for old in earlier:
            changes = {n: c + lora.scale * old[n][1] @ old[n][0] for n, c in changes.items()}
        return forward(start, x, changes, lora.head)

    def loss(x, y):
        pairs = [(old[n][0], a) for old in earlier for n, (a, _) in lora.factors.items()]
        overlap = sum((old @ new.T).abs().sum() for old, new in pairs)
        size = sum(unit.norm() for unit in lora.units)
        return cross_entropy(logits(x), y) + config.orthogonality * overlap + config.size * size

    for task in start.tasks:
        seed(task)
        if task.index:
            earlier.append({n: (a.detach(), b.detach()) for n, (a, b) in lora.factors.items()})
            lora.factors = renewed(lora.factors)
        train(start, task, lora.parameters, loss)
        yield logits


def tasl(start):
    """After a task each matrix is merged with that before it, by whom it matters to."""
    lora, config = Lora(start), start.config
    history = None

    def scaled(scores):
        return (scores - scores.min()) / (scores.max() - scores.min())

    def important(scores):
        return scores > np.percentile(scores, 100 * (1 - config.important_share))

    for task in start.tasks:
        before = [unit.detach().clone() for unit in lora.units]
        seen = []  # the sensitivities of each step

        def after(seen=seen):
            seen.append([(unit.detach() * unit.grad).abs() for unit in lora.units])

        train(start, task, lora.parameters, lora.loss, after=after)
        scores = []
        for of_unit in zip(*seen[1:], strict=True):
            mean = spread = 0.0
            for sensitivity in of_unit:
                mean = config.beta1 * mean + (1 - config.beta1) * sensitivity
                away = (sensitivity - mean).abs()
                spread = config.beta2 * spread + (1 - config.beta2) * away
            scores.append((mean * spread).mean().item())
        current = scaled(np.array(scores))
        if history is None:
            history = current
        else:
            weights = {
                (True, True): config.previous_weight,
                (False, True): 1.0,
                (True, False): 0.0,
                (False, False): 0.5,
            }
            kinds = zip(important(current).tolist(), important(history).tolist(), strict=True)
            for unit, old, kind in zip(lora.units, before, kinds, strict=True):
                unit.data = weights[kind] * old + (1 - weights[kind]) * unit.data
            share = config.history_weight
            history = scaled(share * history + (1 - share) * current)
        yield lora
