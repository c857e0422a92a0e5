"""GEM on images: which classes its memories compare, and what a violation does under Adam."""

import pytest
import torch

from tests import tiny

RATE = 0.01


def one_step_on_the_second_task(name, seed=0, **shared):
    """The method, and how far each row of its classifier moved (6, 24)."""
    shared = {"batch_size": 12, "clip_norm": None, "learning_rate": RATE} | shared
    method = tiny.method(name, "vision", seed=seed, shared=shared)
    first, second = tiny.tasks("vision", 2, epochs=1)
    tiny.learn(method, first)
    before = method.model.head.weight.detach().clone()
    tiny.learn(method, second)
    return method, (method.model.head.weight.detach() - before).abs()


@pytest.mark.parametrize(("mask", "compared"), [("current", [0, 1]), ("seen", [0, 1, 2, 3])])
def test_a_memory_compares_its_own_classes_or_all_that_were_seen(mask, compared):
    method, _ = one_step_on_the_second_task("gem", mask=mask)
    start, place = 0, None
    for name, parameter in method.loop.model.named_parameters():
        if name.endswith("head.weight"):
            place = slice(start, start + parameter.numel())
        start += parameter.numel()
    gradient = method._gem.G[0, place].view(6, 24)
    assert gradient.any(dim=1).nonzero().flatten().tolist() == compared


def test_a_violation_moves_the_rows_of_earlier_tasks_by_whole_steps():
    def moved(name):
        steps = [one_step_on_the_second_task(name, seed)[1][:2] for seed in range(4)]
        return torch.stack(steps).amax(dim=(1, 2))

    assert not moved("seqlora").any()
    violated = moved("gem")
    assert violated.any()  # not with every seed
    whole = torch.full_like(violated, RATE)
    torch.testing.assert_close(violated, torch.where(violated > 0, whole, 0))
