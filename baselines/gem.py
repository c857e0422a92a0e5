"""GEM: gradients are projected so that the loss on stored samples of no earlier task rises.

Lopez-Paz & Ranzato, "Gradient Episodic Memory for Continual Learning" (NeurIPS 2017), by
Avalanche's GEMPlugin on the adapter and classifier. With reference gradients G, one per earlier
task from its whole memory, a step whose gradient g violates any <g, g_k> >= 0 uses g + G'v, where v
solves min 1/2 v'(GG' + 1e-3 I)v + (Gg)'v subject to v >= memory_strength.

Departures from the paper:
1. the optimiser is the run's Adam, for which the projected direction is no guarantee;
2. the memory holds random training samples rather than the last ones seen (Avalanche);
3. memory losses compete over the same classes as training. With `mask: current` those of a memory
   are its own task's, so that no memory sees how tasks compare and GEM cannot calibrate their
   classifiers against each other; `mask: seen` has all classes learnt so far compete, for the batch
   and for the memories (the rows `gem-seen`);
4. memory losses are taken as training is, with dropout where there is any (Avalanche);
5. once a constraint is violated every stored task's gradient is added at least memory_strength
   times. The step's loss has no gradient for the classifier's rows of earlier tasks under `mask:
   current`, so these then have that of the memories alone, and Adam, which divides by its size,
   makes full steps of it.
The TreeLoRA paper: 100 samples, strength 0.05 (A.3), without saying whether 100 is per task. Its
released code keeps one gradient per task, of its last batch, instead of samples, projects tensor by
tensor, and solves the dual with the signs of its linear terms reversed.

Checked against an independent reference over three tasks (`tests/references`); memory and
projection are Avalanche's own code. No other was run beside it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from baselines.common import checks
from baselines.common.base import Needs
from baselines.common.lora import LoraMethod, LoraSettings
from baselines.common.text import trim_left


class GEM(LoraMethod):
    """Gradient episodic memory on a sequentially trained adapter."""

    small = {"memory_per_task": 5}

    @dataclass(frozen=True)
    class Config(LoraSettings):
        """Settings of the memory.

        Attributes:
            memory_per_task: samples kept of each task; at each step they pass through the network
                as one batch.
            memory_strength: lower bound of the dual variables once a constraint is violated.
        """

        memory_per_task: int = 100
        memory_strength: float = 0.05

        def __post_init__(self):
            super().__post_init__()
            checks.at_least_1(self, "memory_per_task")
            checks.not_negative(self, "memory_strength")

    @classmethod
    def passes(cls, config, task: int, n: int, epochs: int, batch_size: int) -> tuple:
        """The loop's, and at each step the memories of all earlier tasks."""
        forward, backward = super().passes(config, task, n, epochs, batch_size)
        remembered = epochs * math.ceil(n / batch_size) * task * config.memory_per_task
        return forward + remembered, backward + remembered

    @classmethod
    def needs(cls, config, needs: Needs) -> Needs:
        """Token ids, masks and labels, and the memories' gradients; these in a step also as a list
        and anew, and the projected one."""
        needs = super().needs(config, needs)
        ids = config.memory_per_task * (needs.prompt_tokens + needs.answer_tokens)
        gradients = 4 * (needs.n_tasks - 1) * needs.trained
        return dataclasses.replace(
            needs,
            samples=max(needs.samples, config.memory_per_task),
            kept_bytes=gradients + 3 * 8 * needs.n_tasks * ids,
            made_bytes=2 * gradients + 4 * needs.trained,
        )

    def plugins(self) -> list:
        from avalanche.training.plugins import GEMPlugin

        class Plugin(GEMPlugin):
            def update_memory(self, dataset, t, batch_size):
                super().update_memory(dataset, t, batch_size)
                if self.memory_y[t].dim() == 2:  # text, as long as the task's longest so far
                    self.memory_x[t], self.memory_y[t] = (
                        part.clone() for part in trim_left(self.memory_x[t], self.memory_y[t])
                    )

        self._gem = Plugin(self.config.memory_per_task, self.config.memory_strength)
        return [self._gem]

    def state_dict(self) -> dict:
        return super().state_dict() | {
            "memory_x": dict(self._gem.memory_x),
            "memory_y": dict(self._gem.memory_y),
            "memory_tid": dict(self._gem.memory_tid),
        }

    def load_state_dict(self, state: Mapping) -> None:
        super().load_state_dict(state)
        self._gem.memory_x = dict(state["memory_x"])
        self._gem.memory_y = dict(state["memory_y"])
        self._gem.memory_tid = dict(state["memory_tid"])
