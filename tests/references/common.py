"""What references share: the start, the training loop, and the two backbones written out."""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F

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
    optimizer = optimizer or adam(start, (1.0, parameters))
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


def adam(start, *parts):
    """Adam with the run's rate times a factor for each part, (factor, parameters)."""
    rate = start.setting.learning_rate
    return torch.optim.Adam([{"params": part, "lr": factor * rate} for factor, part in parts])


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
