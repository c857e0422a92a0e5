"""Anchor: a method to copy. SeqLoRA, pulled by an L2 term towards the previous task's solution.

Saved as `baselines/anchor.py` it is one that suites can name.
"""

from dataclasses import dataclass

from baselines.common import checks
from baselines.common.lora import LoraMethod, LoraSettings


class Anchor(LoraMethod):
    """One adapter for all tasks, held where the last one left it."""

    @dataclass(frozen=True)
    class Config(LoraSettings):
        strength: float = 1.0  # weight of the squared distance

        def __post_init__(self):
            super().__post_init__()
            checks.not_negative(self, "strength")

    anchor = None
    copies = 1  # of the adapter that it keeps, for estimates of memory

    def penalty(self, loss):  # added to the loss of each step
        if self.anchor is None:
            return 0.0
        pairs = zip(self.loop.model.parameters(), self.anchor, strict=True)
        return self.config.strength * sum((p - a).square().sum() for p, a in pairs)

    def end(self, task):  # called when a task is learnt
        self.anchor = [p.detach().clone() for p in self.loop.model.parameters()]

    def state_dict(self):  # what a run that goes on after a stop needs
        return super().state_dict() | {"anchor": self.anchor}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.anchor = state["anchor"]
