"""TaSL: after each task the adapter is merged, matrix by matrix, with that before the task.

Feng et al., "TaSL: Continual Dialog State Tracking via Task Skill Localization and Consolidation"
(ACL 2024). A skill unit is one matrix A or B of the adapter. While task t trains the adapter that
it takes over, the sensitivity I = |theta * gradient| of each entry is smoothed after each step,

    mean <- beta1 mean + (1 - beta1) I,   spread <- beta2 spread + (1 - beta2) |I - mean|

from 0, mean being the new one. The importance of a unit is the average of mean * spread over its
entries, scaled over all units to [0, 1]: c for this task, and h for the earlier ones, which is the
first task's c and then, scaled likewise, history_weight h + (1 - history_weight) c. Units whose
importance exceeds the (1 - important_share) quantile are important. A unit that is important

    to the earlier tasks alone    is taken from the adapter before the task,
    to this task alone            from that trained,
    to both                       previous_weight before + (1 - previous_weight) trained,
    to none                       is the mean of the two;

h is the one before this task. The merged adapter is used at test and by the next task.

As in the authors' code the gradient of I is the step's, clipped, theta is the value after the step,
and the first step of a task does not count. The code released with TreeLoRA has no TaSL.

Departures:
1. on vision the classifier is no unit and stays as trained; the paper has none;
2. adapters on the projections `targets`; the paper's are on query, key, value and output, with
   dropout 0.05, trained at 3e-4 after a warm-up;
3. units that are all of one importance, as after a single step, are 0: important to none.

Checked against an independent reference over three tasks (`tests/references`); no public code was
run beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.common import checks
from baselines.common.base import Needs
from baselines.common.lora import LoraMethod, LoraSettings
from baselines.common.task import Task


class Importance:
    """Smoothed sensitivity of the entries of some units, and its spread."""

    def __init__(self, units: Sequence[nn.Parameter], beta1: float, beta2: float):
        self._units = units
        self._beta1, self._beta2 = beta1, beta2
        self.mean = [torch.zeros_like(unit) for unit in units]
        self.spread = [torch.zeros_like(unit) for unit in units]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the units' present values and gradients."""
        for unit, mean, spread in zip(self._units, self.mean, self.spread, strict=True):
            sensitivity = (unit * unit.grad).abs()
            mean.mul_(self._beta1).add_(sensitivity, alpha=1 - self._beta1)
            spread.mul_(self._beta2).add_((sensitivity - mean).abs(), alpha=1 - self._beta2)

    def scores(self) -> Tensor:
        """(n_units,) float64."""
        pairs = zip(self.mean, self.spread, strict=True)
        return torch.stack([(mean * spread).double().mean() for mean, spread in pairs])


def scaled(scores: Tensor) -> Tensor:
    """Scores (n_units,) moved to [0, 1]; 0 where all are equal."""
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else torch.zeros_like(scores)


def weights_of_previous(
    current: Tensor, history: Tensor, important_share: float, previous_weight: float
) -> Tensor:
    """How much of each unit comes from before the task, from c and h; all (n_units,)."""
    now, before = (x > x.quantile(1 - important_share) for x in (current, history))
    either = torch.where(now & before, previous_weight, before.to(current.dtype))
    return torch.where(now | before, either, 0.5)


class TaSL(LoraMethod):
    """Task skill localisation and consolidation on a sequentially trained adapter."""

    @dataclass(frozen=True)
    class Config(LoraSettings):
        """Settings of importance and merging; defaults are the authors'.

        Attributes:
            beta1, beta2: how slowly sensitivity and its spread follow the steps.
            important_share: the share of units that are important to a task.
            previous_weight: of the adapter before the task in units important to both.
            history_weight: of the earlier tasks' importance when a task's joins it.
        """

        beta1: float = 0.85
        beta2: float = 0.85
        important_share: float = 0.2
        previous_weight: float = 0.7
        history_weight: float = 0.7

        def __post_init__(self):
            super().__post_init__()
            checks.below_1(self, "beta1", "beta2")
            checks.shares(self, "important_share", "previous_weight", "history_weight")

    @classmethod
    def needs(cls, config, needs: Needs) -> Needs:
        """Mean, spread and the adapter before the task."""
        needs = super().needs(config, needs)
        return dataclasses.replace(needs, kept_bytes=3 * 4 * needs.trained)

    def plugins(self) -> list:
        from avalanche.core import SupervisedPlugin

        method = self

        class AfterStep(SupervisedPlugin):
            def after_update(self, strategy, **kwargs):
                if strategy.clock.train_exp_iterations > 0:
                    method.importance.update()

        self._units = {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad and ".lora_" in name
        }
        self._history: Tensor | None = None
        return [AfterStep()]

    def begin(self, task: Task) -> None:
        units = list(self._units.values())
        self.importance = Importance(units, self.config.beta1, self.config.beta2)
        self._previous = [unit.detach().clone() for unit in units]

    @torch.no_grad()
    def end(self, task: Task) -> None:
        config, current = self.config, scaled(self.importance.scores()).cpu()
        if self._history is None:
            self._history = current
            return
        weights = weights_of_previous(
            current, self._history, config.important_share, config.previous_weight
        )
        for unit, previous, weight in zip(
            self._units.values(), self._previous, weights.tolist(), strict=True
        ):
            unit.copy_(weight * previous + (1 - weight) * unit)
        share = config.history_weight
        self._history = scaled(share * self._history + (1 - share) * current)

    def state_dict(self) -> dict:
        return super().state_dict() | {"history": self._history}

    def load_state_dict(self, state: Mapping) -> None:
        super().load_state_dict(state)
        self._history = None if state["history"] is None else state["history"].cpu()

    def diagnostics(self) -> dict:
        """The importance h of each unit."""
        values = [] if self._history is None else self._history.tolist()
        return {"importance": dict(zip(self._units, values, strict=False))}
