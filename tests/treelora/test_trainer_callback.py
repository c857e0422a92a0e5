"""The penalty in Hugging Face's Trainer, whose loss may be normalised over several batches."""

from types import SimpleNamespace

import pytest
import torch

from tests import tiny
from treelora import Options, TreeRegulariser
from treelora.trainer_callback import TreeLoRACallback


class Model(tiny.Adapters):
    """Adapters with a loss of their own."""

    def forward(self, share, num_items_in_batch=None):
        return {"loss": share * self.own_loss()}

    def own_loss(self):
        return sum(parameter.square().sum() for parameter in self.parameters())


def arguments(parts, processes=1):
    return SimpleNamespace(
        gradient_accumulation_steps=parts,
        world_size=processes,
        average_tokens_across_devices=True,
    )


def penalty_of(scale, parts, processes=1, **named):
    """What all micro-batches of one step, in one of the processes, add to their losses."""
    model = Model(2, 3)
    tree = TreeRegulariser(model, Options(penalty_scale=scale))
    args = arguments(parts, processes)
    for task in range(2):
        model.fill(torch.arange(6.0).reshape(2, 3) + task)
        callback = TreeLoRACallback(tree)
        callback.on_train_begin(args, None, None, model=model, train_dataloader=range(parts))
        losses = [model(1 / parts, **named)["loss"] for _ in range(parts)]
        callback.on_train_end(args, None, None)
    return (sum(losses) - model.own_loss()).item()


@pytest.mark.parametrize("scale", ["sum", "mean", "loss", "constant"])
def test_a_step_has_one_penalty_in_however_many_batches(scale):
    """Where the Trainer has each loss divided by the items of the whole step."""
    whole = penalty_of(scale, 1, num_items_in_batch=8)
    assert whole > 0
    assert penalty_of(scale, 4, num_items_in_batch=8) == pytest.approx(whole, rel=1e-3)


def test_where_the_trainer_divides_the_loss_it_divides_the_penalty_too():
    assert penalty_of("sum", 4) == pytest.approx(4 * penalty_of("sum", 1), rel=1e-3)


@pytest.mark.parametrize("scale", ["sum", "mean"])
def test_a_penalty_that_the_trainer_multiplies_by_its_processes_was_divided_by_them(scale):
    one, each = (penalty_of(scale, 2, n, num_items_in_batch=8) for n in (1, 4))
    assert 4 * each == pytest.approx(one, rel=1e-3)


def test_a_training_that_was_interrupted_leaves_no_penalty_behind():
    model = Model(2, 3)
    callback = TreeLoRACallback(TreeRegulariser(model, Options(penalty_scale="mean")))
    losses = []
    for fill, interrupted in ((0.0, False), (1.0, True), (1.0, False)):
        model.fill(torch.full((2, 3), fill))
        endless = iter(())  # a dataset that is streamed has no length
        callback.on_train_begin(arguments(1), None, None, model=model, train_dataloader=endless)
        losses.append(model(1.0)["loss"].item())
        if not interrupted:
            callback.on_train_end(arguments(1), None, None)
    assert losses[1] == losses[2] > model(1.0)["loss"].item()
