"""Options of the shared loop: micro-batches, compilation, augmentation, mixed precision."""

import pytest
import torch
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as tvf

from baselines import augment, compiler
from baselines.augment import CropFlip
from tests import tiny


def trained(name, modality, n_tasks=2, **shared):
    """A method's trained parameters and the reports of its tasks."""
    config = {"signature": "gradient"} if name == "treelora-gradient" else {}
    shared = {"batch_size": 6} | shared
    method = tiny.method(name.partition("-")[0], modality, shared=shared, **config)
    reports = [tiny.learn(method, task) for task in tiny.tasks(modality, n_tasks, epochs=3)]
    parameters = {n: p for n, p in method.model.named_parameters() if p.requires_grad}
    return method, parameters, reports


METHODS = ("seqlora", "ewc", "gem", "l2p", "olora", "treelora", "treelora-gradient")


def ragged(monkeypatch):
    """Answers of different length, so that the mean over tokens is not the mean over parts."""
    whole = tiny.samples

    def samples(modality, task, n=12):
        made = whole(modality, task, n)
        if modality == "language":
            longer = torch.arange(n) % 3 == 0
            made.x[longer, 1, -4:] = 2
            made.y[longer, -4:] = made.x[longer, 0, -4:]
        return made

    monkeypatch.setattr(tiny, "samples", samples)


@pytest.mark.parametrize("modality", tiny.MODALITIES)
@pytest.mark.parametrize("name", METHODS)
def test_micro_batches_make_the_same_steps(name, modality, monkeypatch):
    """Parts of 4 and 2; every hook of every method meets one gradient a step."""
    ragged(monkeypatch)
    # Not Adam: it divides by a gradient's size, and makes steps of what is zero but for rounding.
    sgd = {"precision": "float32", "learning_rate": 0.05}
    monkeypatch.setattr(
        "baselines.base.Method.optimizer",
        lambda self, parameters: torch.optim.SGD(parameters, lr=self.setting.learning_rate),
    )
    _, whole, before = trained(name, modality, **sgd)
    _, parts, after = trained(name, modality, micro_batch_size=4, **sgd)
    assert whole.keys() == parts.keys()
    for n, value in whole.items():
        torch.testing.assert_close(parts[n], value, atol=2e-5, rtol=1e-3, msg=n)
    assert [r["steps"] for r in before] == [r["steps"] for r in after] == [6, 6]
    for one, other in zip(before, after, strict=True):
        assert other["last_loss"] == pytest.approx(one["last_loss"], rel=1e-3)
        assert other["samples"] == one["samples"]
