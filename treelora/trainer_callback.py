"""TreeLoRA in Hugging Face's Trainer: one `train()` is one task."""

from __future__ import annotations

from torch import nn
from transformers import TrainerCallback
from transformers.trainer_utils import has_length

from treelora.regulariser import TreeRegulariser


class TreeLoRACallback(TrainerCallback):
    """Adds the penalty to the loss that the model returns, and keeps the finished tasks.

    Hand the same callback to a new Trainer for every task. The model must compute its loss itself
    (it is given labels), and each micro-batch of an accumulated step is a step of the search. Where
    the Trainer has losses divided by the items of the whole step, a penalty that does not follow
    the loss (`penalty_scale` mean or sum) is divided among its micro-batches and, where their
    losses are added up, processes; so it falls short in an epoch's last step if that has fewer. A
    `train()` that goes on inside a task starts the task's search anew.

    Args:
        regulariser: over the model with its LoRA adapters.
    """

    def __init__(self, regulariser: TreeRegulariser):
        self.regulariser = regulariser
        self._handle = None
        self._parts = 1

    def on_train_begin(self, args, state, control, model: nn.Module, train_dataloader, **kwargs):
        steps = len(train_dataloader) if has_length(train_dataloader) else None
        self.regulariser.start_task(steps)
        self._parts = args.gradient_accumulation_steps
        if args.average_tokens_across_devices:
            self._parts *= args.world_size
        if self._handle:  # of a training that was interrupted
            self._handle.remove()
        self._handle = model.register_forward_hook(self._add_penalty, with_kwargs=True)

    def _add_penalty(self, model: nn.Module, inputs: tuple, named: dict, output):
        if model.training:
            penalty = self.regulariser.penalty(output["loss"])
            fixed = self.regulariser.options.penalty_scale in ("mean", "sum")
            if fixed and named.get("num_items_in_batch") is not None:
                penalty = penalty / self._parts
            output["loss"] = output["loss"] + penalty
        return output

    def on_train_end(self, args, state, control, **kwargs):
        self._handle.remove()
        self.regulariser.end_task()
