"""TreeLoRA as an Avalanche plugin: one experience is one task."""

from __future__ import annotations

from avalanche.core import SupervisedPlugin

from treelora.regulariser import TreeRegulariser


class TreeLoRAPlugin(SupervisedPlugin):
    """Adds the penalty before each backward pass, and keeps the finished experiences.

    Args:
        regulariser: over the model with its LoRA adapters.
    """

    def __init__(self, regulariser: TreeRegulariser):
        super().__init__()
        self.regulariser = regulariser

    def before_training_exp(self, strategy, **kwargs):
        self.regulariser.start_task(len(strategy.dataloader))

    def before_backward(self, strategy, **kwargs):
        strategy.loss = strategy.loss + self.regulariser.penalty(strategy.loss)

    def after_training_exp(self, strategy, **kwargs):
        self.regulariser.end_task()
