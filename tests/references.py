"""Each method once more, written down from its paper: equations and loops on the plain backbone.

Nothing here comes from baselines/ or treelora/. A reference is a generator that learns the tasks of
its `Start` one after the other and yields, after each, the function from x to logits. Batches and
random draws are those of the seed that `tiny.learn` sets, in the order in which the method under
test draws them. Attention is written out; images and texts pass through it one by one or in a
batch as is plainer, and texts never padded, which those of the method under test are.
"""

from __future__ import annotations

import itertools
import math
import random
import re
import zlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import functional_call
from torch.utils.data import DataLoader

from tests import tiny

N_TASKS, PER_TASK = tiny.N_TASKS, tiny.PER_TASK


class Start:
    """What a reference and the method under test share before the first task.

    Attributes:
        network: the frozen backbone.
        values: the method's initial values, by the names they have in its model.
        config, setting: the method's.
        tasks: those to learn.
    """

    def __init__(self, method, tasks):
        self.network = tiny.network(method.setting.modality).requires_grad_(False)
        values = method.model.state_dict()
        self.values = {n.removeprefix("backbone."): v.clone() for n, v in values.items()}
        self.config, self.setting, self.tasks = method.config, method.setting, tasks
        self.width = self.network.width

    def leaf(self, name):
        """What is trained from the method's initial value of that name."""
        return leaf(self.values[name])

    def matrices(self, ending):
        """Initial values of the names with that ending, by the adapted matrix before it."""
        found = ((re.fullmatch(f"(.*_proj){ending}", n), v) for n, v in self.values.items())
        return {match[1]: v for match, v in found if match}

    def head(self):
        """Weight and bias of the classifier; nothing on text."""
        return [self.leaf(n) for n in ("head.weight", "head.bias") if n in self.values]


def leaf(value):
    return value.detach().clone().requires_grad_()


def seed(task):
    torch.manual_seed(1000 + task.index)


def train(start, task, parameters, loss, optimizer=None, change=None, after=None):
    """Adam on gradients that `change` may change and that are then clipped; `after` each step."""
    optimizer = optimizer or torch.optim.Adam(parameters, lr=start.setting.learning_rate)
    generator = torch.Generator().manual_seed(1000 + task.index)
    for _ in range(task.epochs):
        order = torch.randperm(len(task.train), generator=generator)
        for chosen in order.split(start.setting.batch_size):
            value = loss(*task.train.batch(chosen))
            gradients = torch.autograd.grad(value, parameters, materialize_grads=True)
            for p, g in zip(parameters, change(gradients) if change else gradients, strict=True):
                p.grad = g.clone()
            torch.nn.utils.clip_grad_norm_(parameters, start.setting.clip_norm)
            optimizer.step()
            if after:
                after()


def cross_entropy(logits, y):
    """Mean over a batch: an image's classes compete within its task, a text has two tokens."""
    if y.dim() == 2:
        return -logits.log_softmax(dim=2).gather(2, y[:, -2:, None]).mean()
    rows = torch.arange(len(y))
    own = logits.unflatten(1, (N_TASKS, PER_TASK))[rows, y // PER_TASK]
    return -own.log_softmax(dim=1)[rows, y % PER_TASK].mean()


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def unflat(vector, like):
    parts = vector.split([t.numel() for t in like])
    return [part.view_as(t) for part, t in zip(parts, like, strict=True)]


def everything(task):
    return task.train.batch(torch.arange(len(task.train)))


# The two backbones. `changes` has what is added to the weights of some matrices, by their names;
# `prefixes` the keys and values in front of those of some blocks, by the blocks' numbers.


def encode(network, tokens, changes=None, prefixes=None):
    """Tokens of images (B, n, width) -> (B, n, width); prefixes (B, length, width)."""
    for i, block in enumerate(network.network.blocks):
        x, attention = block.norm1(tokens), block.attn
        q, k, v = (
            changed(getattr(attention.qkv, p), x, changes, f"network.blocks.{i}.attn.qkv.{p}")
            for p in ("q_proj", "k_proj", "v_proj")
        )
        if prefixes and i in prefixes:
            k, v = (torch.cat([p, own], dim=1) for p, own in zip(prefixes[i], (k, v), strict=True))
        q, k, v = (p.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for p in (q, k, v))
        weights = (q @ k.mT / q.shape[3] ** 0.5).softmax(dim=3)
        tokens = tokens + attention.proj((weights @ v).transpose(1, 2).flatten(2))
        tokens = tokens + block.mlp(block.norm2(tokens))
    return network.network.norm(tokens)


def read(network, embedded, changes=None, prefixes=None):
    """One text (L, width) -> its hidden states (L, width); prefixes (key heads, length, size)."""
    model, h, n = network.network.model, embedded, len(embedded)
    cos, sin = (part[0] for part in model.rotary_emb(h[None], torch.arange(n)[None]))

    def rotated(x):
        half = x.shape[2] // 2
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=2) * sin

    for i, block in enumerate(model.layers):
        attention, x = block.self_attn, block.input_layernorm(h)
        q, k, v = (
            changed(getattr(attention, p), x, changes, f"network.model.layers.{i}.self_attn.{p}")
            for p in ("q_proj", "k_proj", "v_proj")
        )
        size = attention.head_dim
        q, k, v = (part.unflatten(1, (-1, size)).transpose(0, 1) for part in (q, k, v))
        q, k = rotated(q), rotated(k)
        future = torch.ones(n, n).triu(1).bool()
        if prefixes and i in prefixes:
            k, v = (torch.cat([p, own], dim=1) for p, own in zip(prefixes[i], (k, v), strict=True))
            future = F.pad(future, (k.shape[1] - n, 0))
        k, v = (part.repeat_interleave(len(q) // len(k), dim=0) for part in (k, v))
        weights = (q @ k.mT / size**0.5).masked_fill(future, -torch.inf).softmax(dim=2)
        h = h + attention.o_proj((weights @ v).transpose(0, 1).flatten(1))
        h = h + block.mlp(block.post_attention_layernorm(h))
    return model.norm(h)


def changed(projection, x, changes, name):
    y = projection(x)
    return y + x @ changes[name].T if changes and name in changes else y


def texts(x):
    """Of each text its ids, and how many of them are the prompt's."""
    return [(ids[mask > 0], int((mask == 1).sum())) for ids, mask in x]


def answer(network, hidden):
    """Logits (2, V) of the two tokens of an answer, from a text's hidden states (L, width)."""
    return network.network.lm_head(hidden[-3:-1])


def classify(head, feature):
    weight, bias = head
    return feature @ weight.T + bias


def features(start, x, changes=None):
    """The class token's (B, width)."""
    return encode(start.network, start.network.embed(x), changes)[:, 0]


def forward(start, x, changes, head):
    """Logits of images or texts."""
    if x.dim() == 4:
        return classify(head, features(start, x, changes))
    network = start.network
    rows = [read(network, network.embed(ids), changes) for ids, _ in texts(x)]
    return torch.stack([answer(network, row) for row in rows])


def query(network, ids, n_prompt):
    """The mean of the frozen model's hidden states over a prompt, (width,)."""
    return read(network, network.embed(ids[:n_prompt])).mean(dim=0)


# One adapter


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


def seqlora(start):
    lora = Lora(start)
    for task in start.tasks:

        def loss(x, y, n_seen=PER_TASK * (task.index + 1)):
            logits = lora(x)
            match start.setting.mask:
                case "all":
                    return F.cross_entropy(logits, y)
                case "seen":
                    return F.cross_entropy(logits[:, :n_seen], y)
            return cross_entropy(logits, y)

        train(start, task, lora.parameters, loss)
        yield lora


joint = seqlora  # whose only task is the union


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

    def change(gradients):
        g = flat(gradients)
        past = [flat(torch.autograd.grad(lora.loss(*m), lora.parameters)) for m in memories]
        if all(g @ k >= 0 for k in past):
            return gradients
        G = torch.stack(past).numpy()
        found = projected(g.numpy(), G, start.config.memory_strength)
        return unflat(torch.from_numpy(found), gradients)

    for task in start.tasks:
        seed(task)
        train(start, task, lora.parameters, lora.loss, change=change)
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


# TreeLoRA


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


def lower_bound(node, observed, step):
    """Equation 2: the bound of a node, and the task at which a descent from it ends.

    `observed` has (task, residual) of each earlier step; the largest residual is the unit.
    """
    unit = max((residual for _, residual in observed), default=0.0) or 1.0
    values = [residual / unit for task, residual in observed if task in node.tasks]
    own = -math.inf
    if values:
        own = sum(values) / len(values) - 2 * math.sqrt(math.log(step) / len(values))
    if not node.children:
        return own, node.tasks[0]
    below = [lower_bound(child, observed, step) for child in node.children]
    smallest = min(below, key=lambda pair: pair[0])  # the first of equals
    return max(own - node.threshold / unit, smallest[0]), smallest[1]


class Guide:
    """The pull of an adapter towards that of a similar finished task, equation 3."""

    def __init__(self, strength):
        self.strength, self.signatures = strength, []

    def begin(self):
        self.step = 0
        if self.signatures:
            self.root = tree(self.signatures, list(range(len(self.signatures))))
            self.observed = [[] for _ in self.signatures[0]]

    def pull(self, lora, loss):
        if not self.signatures:
            return 0.0
        self.step += 1
        total = 0.0
        for level, pair in enumerate(lora.factors.values()):
            _, chosen = lower_bound(self.root, self.observed[level], self.step)
            distance = (flat(pair) - self.signatures[chosen][level]).abs().mean()
            self.observed[level].append((chosen, distance.item()))
            total = total + distance
        return self.strength * total / (total.detach() + 1e-5) * loss.detach()

    def end(self, lora):
        self.signatures.append([flat(pair).detach() for pair in lora.factors.values()])


def treelora(start):
    lora, guide = Lora(start), Guide(start.config.strength)

    def loss(x, y):
        own = lora.loss(x, y)
        return own + guide.pull(lora, own)

    for task in start.tasks:
        guide.begin()
        train(start, task, lora.parameters, loss)
        guide.end(lora)
        yield lora


# Branches outside a memory, and directions with magnitudes


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


# Without gradient steps


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


# Prompts


def cosine(a, b):
    return (a * b).sum(dim=-1) / (a.norm(dim=-1) * b.norm(dim=-1))


def l2p(start):
    """loss + pull sum_k (1 - cos(q, key)) of the k nearest keys, whose prompts stand in front."""
    config, network, head = start.config, start.network, start.head()
    prompts, keys = start.leaf("pool.prompts"), start.leaf("pool.keys")

    def pick(q):
        """Prompts (k * length, width) for one query, and how far their keys are from it."""
        cosines = torch.stack([cosine(q, key) for key in keys])
        best = sorted(range(len(keys)), key=lambda i: -cosines[i].item())[: config.top_k]
        return torch.cat([prompts[i] for i in best]), sum(1 - cosines[i] for i in best)

    def image(x):
        front, mismatch = pick(features(start, x[None])[0])
        tokens = torch.cat([front, network.embed(x[None])[0]])
        hidden, n = encode(network, tokens[None])[0], len(front)
        used = hidden[:n].mean(dim=0) if config.head_input == "prompts" else hidden[n]
        return classify(head, used), mismatch

    def text(ids, n_prompt):
        front, mismatch = pick(query(network, ids, n_prompt))
        return answer(network, read(network, torch.cat([front, network.embed(ids)]))), mismatch

    def both(x):
        rows = [text(*row) for row in texts(x)] if x.dim() == 3 else [image(one) for one in x]
        return [torch.stack(parts) for parts in zip(*rows, strict=True)]

    def loss(x, y):
        logits, mismatch = both(x)
        return cross_entropy(logits, y) + config.pull * mismatch.mean()

    for task in start.tasks:
        train(start, task, [prompts, keys, *head], loss)
        yield lambda x: both(x)[0]


def dualprompt(start):
    """loss + pull mean (1 - cos(q, key_t)); prefixes shared, and of the task of the nearest key."""
    config, network, head = start.config, start.network, start.head()
    shared = start.leaf("shared")  # (keys and values, blocks, ...), as those of the tasks
    prompts, keys = ([start.leaf(f"{n}.{t}") for t in range(N_TASKS)] for n in ("prompts", "keys"))

    def prefixes(task):
        return dict(enumerate([*shared.unbind(dim=1), *prompts[task].unbind(dim=1)]))

    def image(x, choose):
        q = features(start, x[None])[0]
        task = choose(q)
        own = {i: part[:, None] for i, part in prefixes(task).items()}
        hidden = encode(network, network.embed(x[None]), prefixes=own)
        return classify(head, hidden[0, 0]), 1 - cosine(q, keys[task])

    def text(row, choose):
        q = query(network, *row)
        task = choose(q)
        hidden = read(network, network.embed(row[0]), prefixes=prefixes(task))
        return answer(network, hidden), 1 - cosine(q, keys[task])

    def both(x, choose):
        one, rows = (text, texts(x)) if x.dim() == 3 else (image, x)
        parts = zip(*(one(row, choose) for row in rows), strict=True)
        return [torch.stack(part) for part in parts]

    for task in start.tasks:
        t = task.index
        if config.inherit and t:
            prompts[t] = leaf(prompts[t - 1])

        def loss(x, y, t=t):
            logits, mismatch = both(x, lambda q: t)
            return cross_entropy(logits, y) + config.pull * mismatch.mean()

        def logits(x, t=t):
            return both(x, lambda q: max(range(t + 1), key=lambda i: cosine(q, keys[i])))[0]

        train(start, task, [shared, prompts[t], keys[t], *head], loss)
        yield logits


def codaprompt(start):
    """prompt = sum_m cos(q * A_m, K_m) P_m in each of the first blocks: half keys, half values."""
    config, network, head = start.config, start.network, start.head()
    kinds = [[[] for _ in range(config.layers)] for _ in "PKA"]  # components of each block
    shapes = (config.prompt_length, start.width), (start.width,), (start.width,)

    def logits(x):
        q, prefixes = features(start, x), {}
        for block, (P, K, A) in enumerate(zip(*kinds, strict=True)):
            parts = zip(P, K, A, strict=True)
            prompt = sum(cosine(q * a, k)[:, None, None] * p for p, k, a in parts)
            prefixes[block] = prompt.chunk(2, dim=1)
        return classify(head, encode(network, network.embed(x), prefixes=prefixes)[:, 0])

    def loss(x, y):
        term = 0.0
        for components in itertools.chain(*kinds):
            rows = torch.stack(components).flatten(1)
            term = term + (rows @ rows.T - torch.eye(len(rows))).square().mean()
        return cross_entropy(logits(x), y) + config.orthogonality * term

    def orthogonal(row, before):
        """A unit vector outside the span of the vectors before it."""
        if before:
            basis = torch.linalg.qr(torch.stack(before).T).Q
            row = row - basis @ (basis.T @ row)
        return row / row.norm()

    for task in start.tasks:
        seed(task)
        own = []
        for kind, shape in zip(kinds, shapes, strict=True):
            for components in kind:
                span = [row.detach().flatten() for row in components]
                for draw in torch.randn(config.components, *shape):
                    span.append(orthogonal(draw.flatten(), span))
                new = [leaf(row.view(shape)) for row in span[len(components) :]]
                components += new
                own += new
        train(start, task, [*own, *head], loss)
        yield logits


# Branches of each task


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

        train(start, task, [*branches.units(task.index), keys[task.index], *Q], loss)
        inputs = [largest(*row) for row in texts(everything(task)[0])]
        means.append(torch.stack([attention(x, n_tasks) for x in inputs]).mean(dim=0).detach())
        order = torch.randperm(len(inputs))[: round(config.replay_share * len(inputs))]
        kept.append([inputs[i] for i in order])
        yield logits


def hidelora_language(start):
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


# Hierarchical decomposition


class Gaussians:
    """What is stored of the features of the classes seen."""

    def __init__(self, config):
        self.config, self.labels, self.means, self.factors = config, [], [], []

    def add(self, features, y):
        from sklearn.cluster import KMeans

        clustered = self.config.statistics == "multi-centroid"
        for label in y.unique():
            own = features[y == label]
            parts = [own]
            if clustered:
                n_clusters = min(self.config.centroids, len(own) // 2)
                cluster = KMeans(n_clusters, n_init=1, random_state=0).fit_predict(own.numpy())
                parts = [own[cluster == c] for c in range(n_clusters)]
            for part in parts:
                if clustered and len(part) == 1:  # an outlier
                    continue
                covariance = part.T.cov(correction=int(not clustered)) + 1e-4 * torch.eye(
                    len(part.T)
                )
                if self.config.statistics != "covariance":
                    covariance = covariance.diagonal().diag()
                self.labels.append(label)
                self.means.append(part.mean(dim=0))
                self.factors.append(torch.linalg.cholesky(covariance))

    def align(self, parameters, logits, task, rate, n_samples):
        """SGD on draws of the classes seen, an epoch with as many batches as there are old ones."""
        n_old, n_seen = PER_TASK * task, PER_TASK * (task + 1)
        labels, means, factors = map(torch.stack, (self.labels, self.means, self.factors))
        optimizer = torch.optim.SGD(parameters, rate, momentum=0.9)
        for epoch in range(self.config.alignment_epochs):
            cosine = math.cos(math.pi * epoch / self.config.alignment_epochs)
            optimizer.param_groups[0]["lr"] = rate * (1 + cosine) / 2
            chosen = torch.randperm(n_samples * len(labels))[: n_samples * n_old] % len(labels)
            noise = torch.randn(len(chosen), means.shape[1])
            x = means[chosen] + (factors[chosen] @ noise[:, :, None])[:, :, 0]
            for batch, y in zip(x.split(n_samples), labels[chosen].split(n_samples), strict=True):
                optimizer.zero_grad()
                F.cross_entropy(logits(batch)[:, :n_seen], y).backward(inputs=parameters)
                optimizer.step()


class HiDe:
    """A first model infers the task, that task's parameters classify; a subclass has both.

    Attributes:
        identity: parameters of the first model's classifier, trained and aligned.
        alignment: rate and samples of its alignment.
    """

    def __init__(self, start):
        self.start, self.config = start, start.config
        self.head = start.head()
        self.identity = [start.leaf(n) for n in start.values if n.startswith("identity.")]
        self.alignment = self.config.alignment_rate, self.config.alignment_samples

    def rates(self, *parts):
        """Adam with the run's rate times a factor for each part, (factor, parameters)."""
        rate = self.start.setting.learning_rate
        return torch.optim.Adam([{"params": part, "lr": factor * rate} for factor, part in parts])

    def first_loss(self, x, y):
        return cross_entropy(self.infer(self.uninstructed(x)), y)

    def second_loss(self, x, y):
        f = self.instructed(x, self.task)
        own = cross_entropy(classify(self.head, f), y)
        means = [mean[None] for mean in self.stored[1].means]
        return own + self.config.contrast * contrast(f, means) + self.pull(own)

    def pull(self, loss):
        return 0.0

    def logits(self, x, task):
        best = self.infer(self.uninstructed(x))[:, : PER_TASK * (task + 1)].argmax(dim=1)
        rows = [
            self.instructed(one[None], found)
            for one, found in zip(x, (best // PER_TASK).tolist(), strict=True)
        ]
        return classify(self.head, torch.cat(rows))

    def learn(self):
        config = self.config
        self.stored = Gaussians(config), Gaussians(config)
        for task in self.start.tasks:
            seed(task)
            self.task = t = task.index
            x, y = everything(task)
            if t:
                self.inherit()
            optimizer = self.first_optimizer()
            train(self.start, task, parameters(optimizer), self.first_loss, optimizer)
            self.stored[0].add(self.uninstructed(x).detach(), y)
            if t:
                self.stored[0].align(self.identity, self.infer, t, *self.alignment)
            self.begin()
            optimizer = self.second_optimizer()
            train(self.start, task, parameters(optimizer), self.second_loss, optimizer)
            self.end()
            self.stored[1].add(self.instructed(x, t).detach(), y)
            if t:
                how = config.alignment_rate, config.alignment_samples
                self.stored[1].align(self.head, lambda f: classify(self.head, f), t, *how)
            yield lambda x, t=t: self.logits(x, t)


def parameters(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


class HiDeLora(HiDe):
    guide = None

    def __init__(self, start):
        super().__init__(start)
        self.shared = Lora(start, "shared")
        self.own = [Lora(start, f"task{t}") for t in range(N_TASKS)]

    def uninstructed(self, x):
        return features(self.start, x, self.shared.changes())

    def infer(self, f):
        return classify(self.identity, f)

    def instructed(self, x, task):
        return features(self.start, x, self.own[task].changes())

    def inherit(self):
        new, old = self.own[self.task], self.own[self.task - 1]
        for unit, value in zip(new.units, old.units, strict=True):
            unit.data = value.data.clone()

    def first_optimizer(self):
        slow = self.config.slow if self.task else 1.0
        return self.rates((slow, self.shared.units), (1.0, self.identity))

    def second_optimizer(self):
        return self.rates((1.0, [*self.own[self.task].units, *self.head]))

    def begin(self):
        if self.guide:
            self.guide.begin()

    def pull(self, loss):
        return self.guide.pull(self.own[self.task], loss) if self.guide else 0.0

    def end(self):
        if self.task:
            mix([lora.units for lora in self.own[: self.task + 1]], self.config.momentum)
        if self.guide:
            self.guide.end(self.own[self.task])


def hidelora(start):
    return HiDeLora(start).learn()


def hidetreelora(start):
    method = HiDeLora(start)
    method.guide = Guide(start.config.strength)
    return method.learn()


class HiDePrompt(HiDe):
    def __init__(self, start):
        super().__init__(start)
        self.prompts = [start.leaf(f"prompts.{t}") for t in range(N_TASKS)]
        self.alignment = (
            self.config.identity_alignment_rate,
            self.config.identity_alignment_samples,
        )
        self.acting = {}

    def uninstructed(self, x):
        return features(self.start, x)

    def infer(self, f):
        """Of LayerNorm(f + W_2 GELU(W_1 f))."""
        *mlp, gain, shift, weight, bias = self.identity
        g = f + classify(mlp[2:], F.gelu(classify(mlp[:2], f)))
        g = (g - g.mean(dim=1, keepdim=True)) / (
            g.var(dim=1, correction=0, keepdim=True) + 1e-5
        ).sqrt()
        return classify((weight, bias), g * gain + shift)

    def instructed(self, x, task):
        own = self.prompts[task]  # (blocks, keys and values, length, width)
        if self.training and task:
            earlier = sum(self.prompts[:task]).detach() / task
            own = (1 - self.config.momentum) * own + self.config.momentum * earlier
        prefixes = {i: part[:, None].expand(-1, len(x), -1, -1) for i, part in enumerate(own)}
        return encode(self.start.network, self.start.network.embed(x), prefixes=prefixes)[:, 0]

    def inherit(self):
        self.prompts[self.task] = leaf(self.prompts[self.task - 1])

    def first_optimizer(self):
        return self.rates((self.config.identity_rate, self.identity))

    def second_optimizer(self):
        return self.rates((1.0, [self.prompts[self.task]]), (self.config.head_rate, self.head))

    training = False

    def begin(self):
        self.training = True

    def end(self):
        self.training = False
        if self.task:
            mix([[prompt] for prompt in self.prompts[: self.task + 1]], self.config.momentum)


def hideprompt(start):
    return HiDePrompt(start).learn()
