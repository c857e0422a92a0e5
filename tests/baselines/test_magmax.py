"""Merges against worked examples, and training that does not know of them."""

import pytest
import torch

from baselines.magmax import merged
from tests import tiny

VECTORS = torch.tensor([[[1.0, -4.0], [0.5, 0.0]], [[3.0, 2.0], [-0.6, 8.0]]])


@pytest.mark.parametrize(
    ("merge", "density", "expected"),
    [
        ("magmax", 1.0, [[3.0, -4.0], [-0.6, 8.0]]),
        ("mean", 1.0, [[2.0, -1.0], [-0.05, 4.0]]),
        ("ties", 1.0, [[2.0, -4.0], [-0.6, 8.0]]),  # zeros have no sign and count for nothing
        ("ties", 0.5, [[2.0, -4.0], [0.0, 8.0]]),  # left are 1 and -4, and 3 and 8
        ("ties", 0.01, [[0.0, -4.0], [0.0, 8.0]]),  # but never nothing
    ],
)
def test_entries_are_merged_as_in_the_example(merge, density, expected):
    torch.testing.assert_close(merged(VECTORS, merge, density), torch.tensor(expected))


def test_a_tie_without_a_sign_is_nothing():
    opposed = torch.tensor([[[2.0]], [[-2.0]]])
    assert merged(opposed, "ties", 1.0).item() == 0


def parameters(method) -> list:
    return [p for p in method.model.parameters() if p.requires_grad]


@pytest.mark.parametrize("modality", tiny.MODALITIES)
def test_training_is_seqloras_also_with_tests_in_the_middle(modality):
    merging, plain = (tiny.method(name, modality) for name in ("magmax", "seqlora"))
    torch.manual_seed(0)
    for task in tiny.tasks(modality, epochs=1):
        torch.manual_seed(task.index)
        merging.learn(task, lambda loss, n: merging.ready_to_test())
        torch.manual_seed(task.index)
        plain.learn(task)
        pairs = zip(parameters(merging), parameters(plain), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_a_test_merges_the_task_that_is_being_learnt_too():
    """Of one task the mean is its own vector, that of the model in training."""
    method, seen = tiny.method("magmax", "vision", merge="mean"), []
    x, _ = tiny.samples("vision", 0).batch(torch.arange(12))

    @torch.no_grad()
    def compare(loss, n):
        method.ready_to_test()
        training = method.model(x)
        tested = method.model.eval()(x)
        method.model.train()
        torch.testing.assert_close(tested, training, atol=1e-5, rtol=1e-4)
        seen.append(tested)

    method.learn(tiny.tasks("vision")[0], compare)
    assert not torch.equal(seen[0], seen[-1])
