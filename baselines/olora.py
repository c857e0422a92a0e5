"""O-LoRA: a new adapter per task, kept orthogonal to all earlier ones.

Wang et al., "Orthogonal Subspace Learning for Language Model Continual Learning" (Findings of EMNLP
2023). Earlier adapters are frozen and stay active; task t minimises

    loss + orthogonality * sum_matrices sum_{i<t} ||A_i A_t'||_1 + size * sum (||A_t|| + ||B_t||)

with an entrywise L1 norm and Frobenius norms. Only A is constrained. At inference all adapters add
up. The code released with TreeLoRA never stores the earlier adapters, so that its O-LoRA equals
SeqLoRA; here the penalty is active.

Earlier adapters are kept side by side in one of rank t * r, as in the authors' code, so that a step
costs the same two branches whatever their number.

Departures:
1. norm and factor are those of the authors' code: the paper squares the entries of A_i' A_t, and
   its A is the factor that writes the output; the code has absolute values, whose pull does not
   fade near 0, of the factor that reads the input. `size`, lambda2, is in their code only;
2. on vision the classifier is shared by all tasks and trained throughout; the paper has none;
3. a new adapter starts with a fresh optimiser whatever the run's `optimizer_reset` says.

Checked against an independent reference over three tasks (`tests/references`); no public code was
run beside it.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.common import checks
from baselines.common.base import Needs
from baselines.common.lora import LoraMethod, LoraSettings, add_lora
from baselines.common.task import Task


class OLoRA(LoraMethod):
    """A frozen adapter of all finished tasks, an orthogonal new one for the current."""

    version = 2

    @dataclass(frozen=True)
    class Config(LoraSettings):
        """`orthogonality` and `size`: the authors' lambda1 and lambda2."""

        orthogonality: float = 0.5
        size: float = 0.0

        def __post_init__(self):
            super().__post_init__()
            checks.not_negative(self, "orthogonality", "size")

    @classmethod
    def needs(cls, config, needs: Needs) -> Needs:
        """The earlier adapters, twice while they grow."""
        needs = super().needs(config, needs)
        kept_bytes = 4 * (needs.n_tasks - 1) * needs.trained
        return dataclasses.replace(needs, kept_bytes=kept_bytes, made_bytes=kept_bytes)

    def adapt(self, backbone: nn.Module) -> nn.Module:
        self._n_past = 0
        return add_lora(backbone, self.config, adapter="current")

    def _layers(self) -> Iterator[nn.Module]:
        from peft.tuners.lora import LoraLayer

        return (module for module in self.model.modules() if isinstance(module, LoraLayer))

    @torch.no_grad()
    def _grow(self) -> None:
        """Add the current adapter to the past ones and start a new one."""
        rank, alpha, n_past = self.config.rank, self.config.alpha, self._n_past + 1
        past = []
        for layer in self._layers():
            names = [name for name in ("past", "current") if name in layer.lora_A]
            a = torch.cat([layer.lora_A[name].weight for name in names])  # (t * r, in)
            b = torch.cat([layer.lora_B[name].weight for name in names], dim=1)  # (out, t * r)
            past.append((a, b))
            if "past" in names:
                layer.delete_adapter("past")
            layer.reset_lora_parameters("current", init_lora_weights=True)
        larger = dataclasses.replace(self.config, rank=n_past * rank, alpha=n_past * alpha)
        with warnings.catch_warnings():  # PEFT asks whether a second adapter is meant; it is
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            add_lora(self.model, larger, "past")
        for layer, (a, b) in zip(self._layers(), past, strict=True):
            layer.lora_A["past"].weight.copy_(a)
            layer.lora_B["past"].weight.copy_(b)
            layer.set_adapter(["past", "current"])
        for name, parameter in self.model.named_parameters():
            if ".lora_" in name:
                parameter.requires_grad_(".current." in name)
        self.model.to(self.setting.device)
        self._n_past = n_past
        self.loop.optimizer = None  # its moments are the finished adapter's

    def begin(self, task: Task) -> None:
        if task.index > 0:
            self._grow()
        self._new = [
            (layer.lora_A["current"].weight, layer.lora_B["current"].weight)
            for layer in self._layers()
        ]
        self._old = [layer.lora_A["past"].weight for layer in self._layers() if task.index > 0]

    def penalty(self, loss: Tensor) -> Tensor | float:
        total = 0.0
        if self._old:
            total = self.config.orthogonality * sum(
                (old @ a.T).abs().sum() for old, (a, _) in zip(self._old, self._new, strict=True)
            )
        if self.config.size:
            total = total + self.config.size * sum(a.norm() + b.norm() for a, b in self._new)
        return total

    def state_dict(self) -> dict:
        state = super().state_dict()
        lora = {n: p.detach() for n, p in self.model.named_parameters() if ".lora_" in n}
        return state | {"parameters": state["parameters"] | lora, "n_past": self._n_past}

    def load_state_dict(self, state: Mapping) -> None:
        while self._n_past < state["n_past"]:
            self._grow()
        super().load_state_dict(state)
