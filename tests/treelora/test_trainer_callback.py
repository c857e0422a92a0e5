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


def penalty_of(scale, parts, **named):
    """What all micro-batches of one step add to their losses."""
    model = Model(2, 3)
    tree = TreeRegulariser(model, Options(penalty_scale=scale))
    args = SimpleNamespace(gradient_accumulation_steps=parts)
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
