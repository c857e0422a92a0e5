"""OGD: updates that leave the outputs on stored samples of earlier tasks as they are.

Farajtabar et al., "Orthogonal Gradient Descent for Continual Learning" (AISTATS 2020), on the
adapter and classifier. When a task is learnt, the gradients of a model output on some of its
training samples join V, whose columns are orthonormal; an update d is replaced by

    d - V V' d,

so that to first order none of those outputs changes. The output is the logit of the gold class
(the paper's OGD-GTL) and on language the mean logit of the gold answer tokens, given those before
them; all trained parameters are one vector. Gradients of logits are stored and not of the loss,
which vanish where the samples are fitted. The code released with TreeLoRA stores gradients of the
loss, in columns that are all one buffer.

Departures from the paper:
1. the optimiser is the run's Adam, and it is its step that is projected: Adam's step for an
   orthogonal gradient is not orthogonal. `project: gradient` with `optimizer: sgd` is the paper's;
2. 64 samples of a task; the paper stores 200. V has that many values for each trained parameter
   and finished task, all of them in memory at each step;
3. only gradients that are independent of those stored join V: what is left of them must be more
   than 1e-6 of their length.

Checked against an independent reference over three tasks (`tests/references`); no public code was
run beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.common import checks
from baselines.common.base import Needs
from baselines.common.lora import LoraMethod, LoraSettings
from baselines.common.task import Task

PROJECT = ("step", "gradient")
OPTIMIZERS = ("adam", "sgd")
INDEPENDENT = 1e-6  # of a gradient's length must be left for it to be a new direction


def extended(basis: Tensor, gradients: Tensor) -> Tensor:
    """Orthonormal rows with the span of `basis` (K, P), itself orthonormal, and `gradients` (n, P).

    Gram-Schmidt, twice for each gradient, as rounding would otherwise leave what is not orthogonal.
    """
    rows, n = torch.cat([basis, gradients]), len(basis)
    for gradient in gradients:
        residual = gradient
        for _ in range(2):
            residual = project(residual, rows[:n])
        if residual.norm() > INDEPENDENT * gradient.norm():
            rows[n] = residual / residual.norm()
            n += 1
    return rows[:n].clone()


def project(vector: Tensor, basis: Tensor) -> Tensor:
    """The part of `vector` (P,) that is orthogonal to the orthonormal rows of `basis` (K, P)."""
    return vector - basis.T @ (basis @ vector)


def gold_logit(logits: Tensor, y: Tensor) -> Tensor:
    """The mean logit of what is asked for, a scalar; logits and y as in `common.task`."""
    if y.dim() == 2:
        y = y[:, -logits.shape[1] :]
    asked = y != -100
    return logits[asked].gather(1, y[asked][:, None]).float().mean()


def _flat(tensors) -> Tensor:
    return torch.cat([tensor.flatten().float() for tensor in tensors])


class OGD(LoraMethod):
    """Orthogonal gradient descent on a sequentially trained adapter."""

    @dataclass(frozen=True)
    class Config(LoraSettings):
        """Settings of the projection.

        Attributes:
            directions: random samples of a task whose gradients are stored, at most.
            project: what is projected, the optimiser's "step" or the "gradient".
            optimizer: "adam", the run's, or "sgd" without momentum.
        """

        directions: int = 64
        project: str = "step"
        optimizer: str = "adam"

        def __post_init__(self):
            super().__post_init__()
            checks.at_least_1(self, "directions")
            checks.one_of(self, project=PROJECT, optimizer=OPTIMIZERS)

    @classmethod
    def passes(cls, config, task: int, n: int, epochs: int, batch_size: int) -> tuple:
        """The loop's, and one of each sample whose gradient is stored."""
        forward, backward = super().passes(config, task, n, epochs, batch_size)
        stored = min(n, config.directions)
        return forward + stored, backward + stored

    @classmethod
    def needs(cls, config, needs: Needs) -> Needs:
        """V, and the parameters before a step; while V grows, the rows that join it, and both again
        before and after."""
        needs = super().needs(config, needs)
        basis = 4 * config.directions * needs.n_tasks * needs.trained
        kept_bytes = basis + 4 * needs.trained
        return dataclasses.replace(needs, kept_bytes=kept_bytes, made_bytes=2 * basis)

    def plugins(self) -> list:
        from avalanche.core import SupervisedPlugin

        method = self

        class OfGradient(SupervisedPlugin):
            def after_backward(self, strategy, **kwargs):
                method.project_gradient()

        class OfStep(SupervisedPlugin):
            def before_update(self, strategy, **kwargs):
                method.keep()

            def after_update(self, strategy, **kwargs):
                method.project_step()

        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        n_values = sum(p.numel() for p in self._parameters)
        self._basis = torch.empty(0, n_values, device=self.setting.device)
        return [OfStep() if self.config.project == "step" else OfGradient()]

    def optimizer(self, parameters: list) -> torch.optim.Optimizer:
        if self.config.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=self.setting.learning_rate)
        return super().optimizer(parameters)

    @torch.no_grad()
    def project_gradient(self) -> None:
        """Project the gradient of the trained parameters; before it is clipped."""
        if len(self._basis):
            gradients = [
                torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters
            ]
            projected = self._split(project(_flat(gradients), self._basis))
            for parameter, value in zip(self._parameters, projected, strict=True):
                parameter.grad = value.to(parameter.dtype)

    @torch.no_grad()
    def keep(self) -> None:
        """Keep the parameters as they are before a step."""
        if len(self._basis):
            self._before = _flat(self._parameters)

    @torch.no_grad()
    def project_step(self) -> None:
        """Project the step that was taken since `keep`."""
        if len(self._basis):
            step = project(_flat(self._parameters) - self._before, self._basis)
            values = self._split(self._before + step)
            for parameter, value in zip(self._parameters, values, strict=True):
                parameter.copy_(value)

    def _split(self, vector: Tensor) -> list[Tensor]:
        """A vector (P,) in the shapes of the trained parameters."""
        parts = vector.split([p.numel() for p in self._parameters])
        return [part.view_as(p) for part, p in zip(parts, self._parameters, strict=True)]

    def _gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """(P,): the gradient of a training sample's gold logit."""
        output = gold_logit(self.loop.model(x), y)
        return _flat(torch.autograd.grad(output, self._parameters, materialize_grads=True))

    def end(self, task: Task) -> None:
        self.model.eval()
        chosen = torch.randperm(len(task.train))[: self.config.directions]
        gradients = [self._gradient(x, y) for x, y, _ in self.batches(task, 1, chosen)]
        self._basis = extended(self._basis, torch.stack(gradients))

    def state_dict(self) -> dict:
        return super().state_dict() | {"directions": self._basis}

    def load_state_dict(self, state: Mapping) -> None:
        super().load_state_dict(state)
        self._basis = state["directions"].to(self.setting.device)

    def diagnostics(self) -> dict:
        """How many directions are stored."""
        return {"directions": len(self._basis)}
