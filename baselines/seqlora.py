"""SeqLoRA: one adapter trained on task after task, nothing done against forgetting.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (ICLR 2022), applied sequentially;
the lower reference of Tables 1 and 3. Whether the logits of other tasks' classes are masked in
training changes its accuracy by tens of points: see `mask` in the run's settings.

`align: true` adds HiDe's class statistics and alignment of the classifier and nothing else of it
(see `common.hide`), so that what the frame gives is told from what a method inside it gives.

Checked against an independent reference over three tasks (`tests/references`); no public code was
run beside it.
"""

from dataclasses import dataclass

from baselines.common.hide import Aligned, AlignedSettings
from baselines.common.lora import LoraMethod, LoraSettings


class SeqLoRA(Aligned, LoraMethod):
    """One adapter, trained sequentially."""

    @dataclass(frozen=True)
    class Config(AlignedSettings, LoraSettings):
        """Settings of the adapter, see `common.lora.LoraSettings`."""
