"""No method assumes that every task brings as many classes as the others."""

import pytest
import torch

from baselines.common.task import Task
from benchmarks.streams.common.tasks import Samples
from tests import tiny

SIZES = [3, 1, 2]


@pytest.mark.parametrize("name", [name for name, modality in tiny.pairs() if modality == "vision"])
def test_a_method_learns_tasks_of_different_sizes(name):
    shared = {"task_of_class": torch.arange(3).repeat_interleave(torch.tensor(SIZES))}
    method = tiny.method(name, "vision", shared=shared | {"mask": "seen"})
    for t, size in enumerate(SIZES):
        data = tiny.samples("vision", t, n=6)
        labels = torch.arange(6) % size + sum(SIZES[:t])
        tiny.learn(method, Task(t, f"task{t}", Samples(data.x, labels), epochs=1))
        found = tiny.outputs(method, "vision")
        assert found.shape == (36, sum(SIZES))
        assert found[:, : sum(SIZES[: t + 1])].isfinite().all()
