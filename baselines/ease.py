"""EASE: an adapter for each task, and class prototypes in the feature spaces of all of them.

Zhou et al., "Expandable Subspace Ensemble for Pre-Trained Model-Based Class-Incremental Learning"
(CVPR 2024). Task j trains an adapter of its own with a cosine classifier, which is dropped; the
adapter is then frozen and f_j(x) is the class token's feature with it. P[j, c] is the mean of f_j
over the images of class c. Images of tasks before j are gone when f_j is there, so that for a class
c of task i < j it is put together from later classes, as much alike as they are in f_i:

    P[j, c] = sum_k s_k P[j, k],   s = softmax_k cos(P[i, c], P[i, k]),   k of tasks j, ..., t.

After task t, with all t + 1 adapters and no task told, a class c of task i has the logit

    cos(f_i(x), P[i, c]) + alpha / t * sum_{j != i} cos(f_j(x), P[j, c]).

As in the authors' code alpha is shared among the other spaces, and prototypes are put together anew
after each task from all later classes; the paper has them from those of task j alone
(`donors: new`).

Departures:
1. adapters are those of the other contenders, B A on the attention's projections `targets`; the
   paper's are bottlenecks of 64 units beside each MLP, their output scaled by 0.1;
2. the cosine classifier has rows for all classes, drawn as in all methods; with `mask: current` a
   task trains its own only, which is the paper's;
3. the run's Adam at a constant rate; the authors' code has SGD with momentum 0.9 at 0.025, weight
   decay 5e-4 and a cosine, for 20 epochs;
4. a task starts with a fresh optimiser whatever the run's `optimizer_reset` says.

Checked against an independent reference over three tasks (`tests/references`). PILOT 5240714, which
has the authors' code, on features of three tasks: prototypes, of size 2.9, and logits, of size 1.1,
differ by at most 3e-7, for both `donors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.common import checks
from baselines.common.base import TaskParts
from baselines.common.lora import LoraSettings
from baselines.common.mixture import MixedLinear, add_branches
from baselines.common.prototypes import class_means
from baselines.common.task import Setting, Task

DONORS = ("later", "new")


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """(..., n, width), (..., m, width) -> (..., n, m)."""
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).mT


def complete(prototypes: Tensor, task_of_class: Tensor, task: int, donors: str) -> None:
    """Put together, in place, the prototypes of classes older than a space.

    prototypes (T, C, width) has in [j, c] the mean of class c with the adapter of task j, where the
    class is of task j or a later one up to `task`.
    """
    for j in range(1, task + 1):
        newer = (task_of_class >= j) & (task_of_class <= (task if donors == "later" else j))
        for i in range(j):
            older = task_of_class == i
            likeness = cosines(prototypes[i, older], prototypes[i, newer]).softmax(dim=1)
            prototypes[j, older] = likeness @ prototypes[j, newer]


class Spaces(nn.Module):
    """A backbone with an adapter for each task, trained with the head's rows as prototypes.

    Attributes:
        task: the task learnt last, -1 before the first.
        scale: of the cosines in training.
        prototypes: P (T, C, width).
    """

    def __init__(self, backbone: nn.Module, config: EASE.Config, setting: Setting):
        super().__init__()
        self.backbone = backbone
        self.alpha = config.reweight
        self._adapters = add_branches(backbone, config, setting.n_tasks)
        self._adapted = [module for module in backbone.modules() if isinstance(module, MixedLinear)]
        backbone.head.weight.requires_grad_(True)
        self.scale = nn.Parameter(torch.ones(()))
        self.task = -1
        shape = setting.n_tasks, *backbone.head.weight.shape
        self.register_buffer("prototypes", torch.zeros(shape))
        self.register_buffer("task_of_class", setting.task_of_class.clone(), persistent=False)

    def parts(self, task: int) -> list[nn.Parameter]:
        """What only that task trains."""
        return [part[task] for module in self._adapted for part in (module.lora_A, module.lora_B)]

    def feature(self, x: Tensor, task: int) -> Tensor:
        """Images (B, 3, H, W) -> features (B, width) with the adapter of a task."""
        self._adapters.use([task])
        return self.backbone.encode(self.backbone.embed(x))[:, 0]

    def features(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> features (B, t + 1, width) in all spaces so far."""
        return torch.stack([self.feature(x, j) for j in range(max(self.task, 0) + 1)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.scale * cosines(self.feature(x, self.task), self.backbone.head.weight)
        f = self.features(x).transpose(0, 1)  # (t + 1, B, width)
        own = self.task_of_class == torch.arange(len(f), device=x.device)[:, None]  # (t + 1, C)
        weights = torch.where(own, 1.0, self.alpha / max(self.task, 1))
        return (weights[:, None] * cosines(f, self.prototypes[: len(f)])).sum(dim=0)


class EASE(TaskParts):
    """An ensemble of the tasks' feature spaces with class prototypes."""

    title = "EASE"
    skips = {"language": "EASE classifies by prototypes of classes, and text has none"}

    @dataclass(frozen=True)
    class Config(LoraSettings):
        """Settings of the ensemble.

        Attributes:
            reweight: the alpha above, what all other tasks' spaces count beside a class's own.
            donors: of which classes old prototypes are made in a space: those of its task and all
                "later" ones, or of its task alone, "new" when it was made.
        """

        reweight: float = 0.1
        donors: str = "later"

        def __post_init__(self):
            super().__post_init__()
            checks.not_negative(self, "reweight")
            checks.one_of(self, donors=DONORS)

    @classmethod
    def passes(cls, config, task: int, n: int, epochs: int, batch_size: int) -> tuple:
        """The loop's, and the task's samples once through each adapter so far."""
        forward, backward = super().passes(config, task, n, epochs, batch_size)
        return forward + (task + 1) * n, backward

    def adapt(self, backbone: nn.Module) -> nn.Module:
        self._task: Task | None = None  # the one begun last
        return Spaces(backbone, self.config, self.setting)

    def begin(self, task: Task) -> None:
        super().begin(task)
        self._task = task
        nn.init.ones_(self.model.scale)

    def features(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> features of all spaces side by side (B, (t + 1) width)."""
        return self.model.features(x).flatten(1)

    @torch.no_grad()
    def ready_to_test(self) -> None:
        if self._task is None:  # none is being learnt
            return
        model, training = self.model, self.model.training
        model.eval()
        parts = [(self.features(x), y) for x, y, _ in self.batches(self._task)]
        features, y = (torch.cat(part) for part in zip(*parts, strict=True))
        means = class_means(features, y, len(model.task_of_class))
        means, new = means.unflatten(1, (model.task + 1, -1)), y.unique()
        model.prototypes[: model.task + 1, new] = means[new].transpose(0, 1)
        complete(model.prototypes, model.task_of_class, model.task, self.config.donors)
        model.train(training)

    def state_dict(self) -> dict:
        return super().state_dict() | {"prototypes": self.model.prototypes}

    def load_state_dict(self, state: Mapping) -> None:
        super().load_state_dict(state)
        self.model.prototypes.copy_(state["prototypes"])
