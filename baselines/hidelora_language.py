"""HiDeLoRA for causal language models: infer the task of a prompt, answer with its adapter.

Wang et al., "HiDe-PET: Continual Learning via Hierarchical Decomposition of Parameter-Efficient
Tuning" (arXiv 2407.05229), which is about image classes; `baselines.hidelora` is that. For text:

1. Task identity: phi(x) is the frozen model's last hidden state averaged over the prompt's tokens,
   adapters off. Linear discriminant analysis in closed form, with the mean mu_i of each task and
   one covariance S of all, answers argmax_i mu_i' S^-1 phi - mu_i' S^-1 mu_i / 2. S is shrunk to
   a multiple of the identity (Ledoit & Wolf, 2004): a model of a few billion parameters has as
   many features as a stream has samples, just where the plain S errs most.
2. Within-task prediction: task t trains low-rank branches (A_t, B_t) that start as the previous
   task's; afterwards A_t <- (1 - m) A_t + m mean_{i<t} A_i, and B_t likewise.
3. The contrastive term of `common.hide` on the hidden state under the task's own branches,
   averaged over the prompt, with one stored mean for each earlier task.

A prompt is answered in two passes: phi, then generation with the branches of the task inferred.

Departures:
1. there is no classifier: the tasks share a frozen output layer, so that task-adaptive prediction,
   which aligns a classifier on pseudo-features, drops out, and with it the first of two stages;
2. discriminant analysis in place of a classifier trained on draws from the stored statistics, and
   on frozen features in place of those of a shared, slowly tuned adapter;
3. branches are on query and value, as those of the other methods on text, and their scale and A's
   start are theirs; the authors' are on key and value;
4. a task starts with a fresh optimiser whatever the run's `optimizer_reset` says.

The authors of TreeLoRA ran something else under this name: one adapter trained through the stream
with a term that decorrelates the rows of its own A, without task identity, branches of tasks or any
information about earlier tasks. That is not offered.

Checked against an independent reference over three tasks (`tests/references`); no public code was
run beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.common import checks
from baselines.common.base import Needs
from baselines.common.hide import READ_SIZE, contrast
from baselines.common.lora import LoraSettings
from baselines.common.mixture import MixedModel, MixtureMethod
from baselines.common.prompts import prompt_mean
from baselines.common.task import Task

COVARIANCES = ("ledoit-wolf", "sample")


class Discriminant:
    """Linear discriminant analysis with equal priors, fed task by task; in double precision.

    Args:
        covariance: "ledoit-wolf" for a shrunk one, or "sample".
        ridge: added to its diagonal.

    Attributes:
        means: (t, d) of the tasks.
        scatter: (d, d) sum over the samples of all tasks of (x - mu)(x - mu)'.
        fourth: sum of ||x - mu||^4.
        count: samples of all tasks.
    """

    def __init__(self, covariance: str, ridge: float):
        self.kind, self.ridge = covariance, ridge
        self.means = self.scatter = None
        self.fourth = 0.0
        self.count = 0

    def add(self, features: Tensor) -> None:
        """Take features (n, d) of a new task."""
        x = features.double()
        mean = x.mean(dim=0, keepdim=True)
        x = x - mean
        scatter = x.T @ x
        first = self.means is None
        self.means = mean if first else torch.cat([self.means, mean])
        self.scatter = scatter if first else self.scatter + scatter
        self.fourth += x.square().sum(dim=1).square().sum().item()
        self.count += len(x)
        self._solve()

    def covariance(self) -> Tensor:
        """S (d, d) without the ridge."""
        sample = self.scatter / max(1, self.count - len(self.means))
        if self.kind == "sample":
            return sample
        biased, identity = self.scatter / self.count, torch.eye(len(sample)).to(sample)
        distance = (biased - biased.trace() / len(biased) * identity).square().sum().item()
        error = (self.fourth / self.count - biased.square().sum().item()) / self.count
        share = min(1.0, error / distance) if distance > 0 else 0.0
        return sample + share * (sample.trace() / len(sample) * identity - sample)

    def _solve(self) -> None:
        covariance = self.covariance()
        covariance.diagonal().add_(self.ridge)
        factor = torch.linalg.cholesky(covariance)
        self._weight = torch.cholesky_solve(self.means.T, factor)  # (d, t)
        self._bias = -(self.means.T * self._weight).sum(dim=0) / 2

    def scores(self, features: Tensor) -> Tensor:
        """Features (B, d) -> discriminant of each task (B, t)."""
        return features.double() @ self._weight + self._bias

    def state_dict(self) -> dict:
        names = ("means", "scatter", "fourth", "count")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping, device: str) -> None:
        self.count, self.fourth = state["count"], state["fourth"]
        if self.count:
            self.means, self.scatter = state["means"].to(device), state["scatter"].to(device)
            self._solve()


class _Routed(MixedModel):
    """Branches of one task for each row.

    Attributes:
        features: (B, width) hidden states of the last pass in training, averaged over the prompt.
    """

    def __init__(self, backbone: nn.Module, config: HiDeLoRALanguage.Config, n_tasks: int):
        super().__init__(backbone, config, n_tasks)
        self.identity = Discriminant(config.covariance, config.ridge)
        self.features = None

    @torch.no_grad()
    def uninstructed(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Embeddings (B, L, width) and mask (B, L) -> phi (B, width)."""
        self.mixture.off()
        return prompt_mean(self.backbone.hidden(embedded, mask), mask)

    def weigh(self, embedded: Tensor, mask: Tensor) -> Tensor:
        scores = self.identity.scores(self.uninstructed(embedded, mask))
        return nn.functional.one_hot(scores.argmax(dim=1), self.task + 1)

    def instructed(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Hidden states (B, L, width) under the branches of the latest task."""
        self.mixture.use([self.task])
        return self.backbone.hidden(embedded, mask)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        hidden = self.instructed(self.backbone.embed(x[:, 0]), x[:, 1])
        self.features = prompt_mean(hidden, x[:, 1])
        return self.backbone.answer_logits(hidden, x[:, 1])


class HiDeLoRALanguage(MixtureMethod):
    """A task's own adapter, found by discriminant analysis of the prompt."""

    reads = 2  # at a task's end, frozen features and those under the task's branches

    @dataclass(frozen=True)
    class Config(LoraSettings):
        """Settings of the branches, see `common.lora.LoraSettings`, and of the decomposition.

        Attributes:
            contrast: weight of the contrastive term; the authors' on ImageNet-R.
            momentum: m, the weight of the earlier tasks' mean in a task's branches.
            covariance: of the features, "ledoit-wolf" for a shrunk one, or "sample".
            ridge: added to its diagonal.
        """

        contrast: float = 0.001
        momentum: float = 0.1
        covariance: str = "ledoit-wolf"
        ridge: float = 1e-4

        def __post_init__(self):
            super().__post_init__()
            checks.not_negative(self, "contrast")
            checks.shares(self, "momentum")
            checks.one_of(self, covariance=COVARIANCES)
            checks.positive(self, "ridge")

    @classmethod
    def needs(cls, config, needs: Needs) -> Needs:
        """Also the scatter, (d, d) in double precision, and means; at a task's end what is made of
        the scatter to solve for a discriminant."""
        needs, width = super().needs(config, needs), needs.backbone.width
        return dataclasses.replace(
            needs,
            kept_bytes=needs.kept_bytes + 8 * (width + 3 * needs.n_tasks) * width,
            made_bytes=5 * 8 * width**2,
        )

    def adapt(self, backbone: nn.Module) -> nn.Module:
        self._means = torch.empty(0, backbone.width, device=self.setting.device)  # instructed
        self._contrast = torch.zeros(())
        self._contrasts: list[float] = []
        self._routed: list[float] = []
        return _Routed(backbone, self.config, self.setting.n_tasks)

    @torch.no_grad()
    def begin(self, task: Task) -> None:
        super().begin(task)
        if task.index > 0:
            factors = (self.model.factors(i) for i in (task.index, task.index - 1))
            for own, previous in zip(*factors, strict=True):
                own.copy_(previous)

    def batch_loss(self, x, y, logits, positions) -> Tensor | float:
        if self.config.contrast == 0:
            return 0.0
        term = contrast(self.model.features, self._means)
        self._contrast = term.detach()
        return self.config.contrast * term

    @torch.no_grad()
    def mix(self) -> None:
        """Mix the latest task's branches with the mean of the earlier ones'."""
        tasks = [self.model.factors(i) for i in range(self.model.task + 1)]
        for *earlier, own in zip(*tasks, strict=True):
            own.lerp_(torch.stack(earlier).mean(dim=0), self.config.momentum)

    @torch.no_grad()
    def end(self, task: Task) -> None:
        model = self.model
        if task.index > 0:
            self.mix()
        model.eval()
        frozen, own = [], []
        for x, _, _ in self.batches(task, READ_SIZE):
            embedded, mask = model.backbone.embed(x[:, 0]), x[:, 1]
            frozen.append(model.uninstructed(embedded, mask))
            own.append(prompt_mean(model.instructed(embedded, mask), mask))
        features = torch.cat(frozen)
        model.identity.add(features)
        found = model.identity.scores(features).argmax(dim=1)
        self._means = torch.cat([self._means, torch.cat(own).mean(dim=0, keepdim=True)])
        self._contrasts.append(self._contrast.item())
        self._routed.append((found == task.index).float().mean().item())

    def state_dict(self) -> dict:
        return super().state_dict() | {
            "identity": self.model.identity.state_dict(),
            "means": self._means,
            "contrasts": self._contrasts,
            "routed": self._routed,
        }

    def load_state_dict(self, state: Mapping) -> None:
        super().load_state_dict(state)
        self.model.identity.load_state_dict(state["identity"], self.setting.device)
        self._means = state["means"].to(self.setting.device)
        self._contrasts, self._routed = list(state["contrasts"]), list(state["routed"])

    def diagnostics(self) -> dict:
        """Per task: the contrastive term at the last step, and the share of the task's training
        prompts whose task was inferred rightly when it was learnt."""
        return {"contrast": self._contrasts, "train_task_accuracy": self._routed}
