"""DER++: stored samples are replayed with their labels and with the logits that they once had.

Buzzega et al., "Dark Experience for General Continual Learning: a Strong, Simple Baseline" (NeurIPS
2020), on the adapter and classifier. After each step its samples and their logits z, from before
the step, enter a buffer by reservoir sampling, which needs no borders of tasks. Each step draws
from it twice, as many samples as it has itself or all, and minimises

    loss + logit_weight mean (f(x') - z')^2 + label_weight loss(f(x''), y'')

with the mean over samples and logits: the authors' alpha and beta, here with those of their
configuration for CIFAR-100 with a buffer of 500. With `logit_weight: 0` this is experience replay,
ER, for which `preset: er` weighs replayed samples like new ones. In each epoch a task's samples are
offered to the buffer anew, so that one may be in it twice, as in the authors' code.

The logits that are matched are those of all classes, those still to come too, as in the authors'
code; what the run's `mask` says concerns the losses. With `mask: current` replayed labels compete
within their own task only, so that tasks are told apart by the replayed logits alone.

Departures:
1. the optimiser is the run's Adam; the authors' is SGD;
2. on language, where there are no classes, the logits of a sample are those over the vocabulary
   that predict its answer's tokens, and the mean is over tokens too. All of them are kept, 4 bytes
   for each token of the answer and of the vocabulary;
3. samples are replayed augmented anew where the run augments, as the authors', but their logits are
   those of the view that was trained on.

Checked against an independent reference over three tasks (`tests/references`), and against mammoth
e75a491, the authors', on one network, batch and buffer: the loss of a step is equal, its gradient
to 6e-8. No score of theirs on the same work.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from baselines.common import checks
from baselines.common.base import Needs
from baselines.common.lora import LoraMethod, LoraSettings
from baselines.common.replay import ReplayBuffer


class DERpp(LoraMethod):
    """Replay of samples, labels and logits on a sequentially trained adapter."""

    title = "DER++"
    small = {"buffer": 10}
    presets = {"er": {"logit_weight": 0.0, "label_weight": 1.0}}

    @dataclass(frozen=True)
    class Config(LoraSettings):
        """Settings of the replay.

        Attributes:
            buffer: samples kept, of all tasks together.
            logit_weight: of the distance to the kept logits, alpha in the paper.
            label_weight: of the loss of replayed samples, beta in the paper.
        """

        buffer: int = 500
        logit_weight: float = 0.3
        label_weight: float = 0.5

        def __post_init__(self):
            super().__post_init__()
            checks.at_least_1(self, "buffer")
            checks.not_negative(self, "logit_weight", "label_weight")

        @property
        def draws(self) -> int:
            """How often a step draws from the buffer."""
            return (self.logit_weight > 0) + (self.label_weight > 0)

    @classmethod
    def passes(cls, config, task: int, n: int, epochs: int, batch_size: int) -> tuple:
        """The loop's, and those of what each step draws from a full buffer."""
        forward, backward = super().passes(config, task, n, epochs, batch_size)
        drawn = epochs * min(n, math.ceil(n / batch_size) * config.buffer) * config.draws
        return forward + drawn, backward + drawn

    @classmethod
    def needs(cls, config, needs: Needs) -> Needs:
        """Token ids, masks, labels and logits; a step's own passes and those of its draws."""
        needs = super().needs(config, needs)
        sample = 3 * 8 * (needs.prompt_tokens + needs.answer_tokens)
        if config.logit_weight:
            sample += 4 * needs.answer_tokens * needs.backbone.vocabulary
        return dataclasses.replace(
            needs,
            samples=needs.samples * (1 + config.draws),
            kept_bytes=config.buffer * sample,
            made_bytes=needs.samples * sample * config.draws,
        )

    def adapt(self, backbone: nn.Module) -> nn.Module:
        self._buffer = ReplayBuffer(self.config.buffer, self.setting.seed)
        return super().adapt(backbone)

    def _replayed(self, n: int) -> tuple[Tensor, ...]:
        """Present logits, labels and kept logits, if there are any, of n samples or all."""
        x, y, *kept = self._buffer.draw(n)
        return self.loop.model(self.loop.augment(x)), y, *kept

    def batch_loss(self, x, y, logits, positions) -> Tensor | float:
        config, total = self.config, 0.0
        if not len(self._buffer):
            return total
        if config.logit_weight:
            now, labels, kept = self._replayed(len(y))
            if labels.dim() == 2:  # of texts, whose answers differ in length
                asked = labels[:, -now.shape[1] :] != -100
                now, kept = now[asked], kept[asked]
            total = config.logit_weight * F.mse_loss(now.float(), kept)
        if config.label_weight:
            now, labels, *_ = self._replayed(len(y))
            total = total + config.label_weight * self.criterion(now, labels)
        return total

    def after_step(self, x, y, logits, positions) -> None:
        if self.setting.augment:
            x = self.loop.experience.dataset.batch(positions.cpu())[0].to(x.device)
        self._buffer.add(x, y, *([logits.float()] if self.config.logit_weight else []))

    def state_dict(self) -> dict:
        return super().state_dict() | {"buffer": self._buffer.state_dict()}

    def load_state_dict(self, state: Mapping) -> None:
        super().load_state_dict(state)
        self._buffer.load_state_dict(state["buffer"], self.setting.device)
