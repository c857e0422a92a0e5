"""O-LoRA: a new adapter per task, kept orthogonal to all earlier ones.

Wang et al., "Orthogonal Subspace Learning for Language Model Continual Learning" (Findings of EMNLP
2023). Earlier adapters are frozen and stay active; task t minimises

    loss + orthogonality * sum_matrices sum_{i<t} ||A_i A_t'||_1 + size * sum (||A_t|| + ||B_t||)

with an entrywise L1 norm and Frobenius norms (`size`, lambda2, is in the authors' code only). Only
A is constrained. At inference all adapters add up. The code released with TreeLoRA never stores the
earlier adapters, so that its O-LoRA equals SeqLoRA; here the penalty is active.

Departures:
1. on vision the classifier is shared by all tasks and trained throughout; the paper has none;
2. a new adapter starts with a fresh optimiser whatever the run's `optimizer_reset` says.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.base import Task
from baselines.lora import LoraMethod, LoraSettings, add_lora


class OLoRA(LoraMethod):
    """A frozen adapter per finished task, an orthogonal new one for the current."""

    @dataclass(frozen=True)
    class Config(LoraSettings):
        """`orthogonality` and `size`: the authors' lambda1 and lambda2."""

        orthogonality: float = 0.5
        size: float = 0.0

    def adapt(self, backbone: nn.Module) -> nn.Module:
        self._n_adapters = 1
        return add_lora(backbone, self.config, adapter="task0")

    def _grow(self) -> None:
        """Add an adapter; all are active, only the new one is trained."""
        from peft.tuners.lora import LoraLayer

        adapter = f"task{self._n_adapters}"
        self._n_adapters += 1
        with warnings.catch_warnings():  # PEFT asks whether a second adapter is meant; it is
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            add_lora(self.model, self.config, adapter)
        active = [f"task{i}" for i in range(self._n_adapters)]
        for module in self.model.modules():
            if isinstance(module, LoraLayer):
                module.set_adapter(active)
        for name, parameter in self.model.named_parameters():
            if ".lora_" in name:
                parameter.requires_grad_(f".{adapter}." in name)
        self.model.to(self.setting.device)
        self.loop.optimizer = None  # the old one does not know the new adapter

    def begin(self, task: Task) -> None:
        if task.index > 0:
            self._grow()
        self._new, self._old = [], []
        for module in self.model.modules():
            if hasattr(module, "lora_A"):
                *old, new = (module.lora_A[name].weight for name in module.lora_A)
                self._new.append((new, module.lora_B[f"task{self._n_adapters - 1}"].weight))
                if old:
                    self._old.append(torch.cat([a.detach() for a in old]))  # (t*r, width)

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
        return state | {"parameters": state["parameters"] | lora, "adapters": self._n_adapters}

    def load_state_dict(self, state: Mapping) -> None:
        while self._n_adapters < state["adapters"]:
            self._grow()
        super().load_state_dict(state)
