"""References of the methods with prompts."""

from __future__ import annotations

import itertools

import torch

from tests.references.common import (
    N_TASKS,
    answer,
    classify,
    cross_entropy,
    encode,
    features,
    leaf,
    query,
    read,
    seed,
    texts,
    train,
)


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
        if config.positions == "cls":
            front = front + network.network.pos_embed[0, 0]
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
