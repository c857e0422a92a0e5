"""SeqLoRA: one adapter trained on task after task, nothing done against forgetting.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (ICLR 2022), applied sequentially;
the lower reference of Tables 1 and 3. Whether the logits of other tasks' classes are masked in
training changes its accuracy by tens of points: see `mask` in the run's settings.

Checked against an independent reference over three tasks (`tests/references`); no public code was
run beside it.
"""

from baselines.common.lora import LoraMethod


class SeqLoRA(LoraMethod):
    """One adapter, trained sequentially."""
