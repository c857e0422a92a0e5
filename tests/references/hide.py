"""References of hierarchical decomposition: HiDeLoRA and HiDePrompt, TreeLoRA inside the former."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from tests.references.adapters import Lora
from tests.references.common import (
    N_TASKS,
    PER_TASK,
    adam,
    classify,
    cross_entropy,
    encode,
    everything,
    features,
    leaf,
    seed,
    train,
)
from tests.references.mixtures import contrast, mix
from tests.references.trees import Guide


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
                covariance = part.T.cov(correction=int(not clustered))
                covariance = covariance + 1e-4 * torch.eye(len(covariance))
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

    @property
    def pulls_shared(self):
        return self.guide is not None and self.config.pulled == "shared"

    def first_loss(self, x, y):
        own = super().first_loss(x, y)
        return own + self.guide.pull(self.shared, own) if self.pulls_shared else own

    def first_optimizer(self):
        if self.pulls_shared:
            self.guide.begin()
        slow = self.config.slow if self.task else 1.0
        return adam(self.start, (slow, self.shared.units), (1.0, self.identity))

    def second_optimizer(self):
        return adam(self.start, (1.0, [*self.own[self.task].units, *self.head]))

    def begin(self):
        if self.pulls_shared:
            self.guide.end(self.shared)
        elif self.guide:
            self.guide.begin()

    def pull(self, loss):
        own = self.guide and not self.pulls_shared
        return self.guide.pull(self.own[self.task], loss) if own else 0.0

    def end(self):
        if self.task:
            mix([lora.units for lora in self.own[: self.task + 1]], self.config.momentum)
        if self.guide and not self.pulls_shared:
            self.guide.end(self.own[self.task])


def hidelora(start):
    return HiDeLora(start).learn()


def hidetreelora(start):
    method = HiDeLora(start)
    method.guide = Guide(start.config)
    return method.learn()


def aligned(reference):
    """A method of one adapter, its classifier aligned after each task where that is asked for."""

    def learn(start):
        released = {"statistics": "multi-centroid", "centroids": 10, "alignment_epochs": 30}
        stored = Gaussians(SimpleNamespace(**released))
        for task, lora in zip(start.tasks, reference(start), strict=True):
            if start.config.align:
                seed(task)
                x, y = everything(task)
                stored.add(features(start, x, lora.changes()).detach(), y)
                if task.index:
                    logits = partial(classify, lora.head)
                    stored.align(lora.head, logits, task.index, rate=0.005, n_samples=120)
            yield lora

    return learn


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
        return adam(self.start, (self.config.identity_rate, self.identity))

    def second_optimizer(self):
        return adam(
            self.start, (1.0, [self.prompts[self.task]]), (self.config.head_rate, self.head)
        )

    training = False

    def begin(self):
        self.training = True

    def end(self):
        self.training = False
        if self.task:
            mix([[prompt] for prompt in self.prompts[: self.task + 1]], self.config.momentum)


def hideprompt(start):
    return HiDePrompt(start).learn()
