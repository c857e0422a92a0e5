"""TreeLoRA in Hugging Face's Trainer: one `train()` is one task."""

from __future__ import annotations

from torch import nn
from transformers import TrainerCallback

from treelora.regulariser import TreeRegulariser


class TreeLoRACallback(TrainerCallback):
    """Adds the penalty to the loss that the model returns, and keeps the finished tasks.

    Hand the same callback to a new Trainer for every task. The model must compute its loss itself
    (it is given labels), and each micro-batch of an accumulated step is a step of the search.

    Args:
        regulariser: over the model with its LoRA adapters.
    """

    def __init__(self, regulariser: TreeRegulariser):
        self.regulariser = regulariser
        self._handle = None

    def on_train_begin(self, args, state, control, model: nn.Module, train_dataloader, **kwargs):
        self.regulariser.start_task(len(train_dataloader))
        self._handle = model.register_forward_hook(self._add_penalty)

    def _add_penalty(self, model: nn.Module, inputs: tuple, output):
        if model.training:
            output["loss"] = output["loss"] + self.regulariser.penalty(output["loss"])
        return output

    def on_train_end(self, args, state, control, **kwargs):
        self._handle.remove()
        self.regulariser.end_task()
