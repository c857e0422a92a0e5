"""The preset `released` against what the authors' code computed on recorded inputs and draws.

The trace: A (task, epoch, step, L, D) inputs, loss, and after each step the accumulator g, both
probability vectors with the recorded draws, the value of the penalty and its gradient; the tree
after each task. Another trace of this form: `pytest tests/treelora --released-trace FILE.npz`,
with its trees in FILE_trees.json.
"""

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
import torch

from tests.tiny import Adapters
from treelora import PRESETS, Options, TreeRegulariser
from treelora import regulariser as regulariser_module

CLOSE = {"rtol": 1e-4, "atol": 1e-6}


@pytest.fixture(scope="module")
def trace(request):
    path = request.config.getoption("--released-trace")
    arrays = np.load(path, allow_pickle=False)
    trees = json.loads(path.with_name(f"{path.stem}_trees.json").read_text())
    return {name: torch.from_numpy(arrays[name]) for name in arrays} | {"trees": trees}


class Replay:
    """Hands out recorded draws and keeps the probabilities that they were drawn from."""

    def __init__(self):
        self.draws, self.probabilities = [], []

    def __call__(self, probability, generator=None):
        self.probabilities.append(probability)
        return self.draws[len(self.probabilities) - 1]

    def expect(self, *draws):
        self.draws, self.probabilities = list(draws), []


def replay(trace, monkeypatch, **changes):
    """Feed the trace to the preset, with `changes`; yields (task, epoch, step, what was computed).

    After each task it yields (task, None, None, tree).
    """
    draws = Replay()
    monkeypatch.setattr(regulariser_module, "draw", draws)
    n_tasks, n_epochs, n_steps, n_levels, width = trace["A"].shape
    model = Adapters(n_levels, width)
    own = Options(**PRESETS["released"])
    tree = TreeRegulariser(model, dataclasses.replace(own, **changes))
    for task in range(n_tasks):
        tree.start_task(steps_per_epoch=n_steps)
        for epoch in range(n_epochs):
            for step in range(n_steps):
                at = task, epoch, step
                model.fill(trace["A"][at])
                # the first draw is made only if the root has branches, that is from two tasks on
                first, chosen = trace["first"][at], trace["chosen"][at]
                branches = tree.options.branch_weight and task > 1
                draws.expect(*([first, chosen] if branches else [chosen]))
                penalty = tree.penalty(trace["loss"][at])
                found = {"g": tree.estimate}
                if task:
                    penalty.backward()
                    found |= {
                        "reg_value": -penalty.detach(),
                        "reg_grad": model.gradient(),
                        "task_probability": draws.probabilities[-1],
                    }
                if branches:
                    found["branch_probability"] = draws.probabilities[0]
                yield *at, found
        tree.end_task()
        yield task, None, None, released_form(tree.tree, n_levels)


def released_form(node, n_levels, depth=0):
    """The tree as the trace writes it: no node splits at depth L."""
    form = {"tasks": list(node.tasks), "depth": depth, "leaf": True}
    if node.children and depth < n_levels:
        left, right = (released_form(child, n_levels, depth + 1) for child in node.children)
        form |= {"leaf": False, "median": node.threshold, "left": left, "right": right}
    return form


def test_accumulators_probabilities_penalties_and_gradients(trace, monkeypatch):
    compared = Counter()
    for task, epoch, step, found in replay(trace, monkeypatch):
        for name, value in found.items() if epoch is not None else ():
            expected = trace[name][task, epoch, step]
            if "probability" in name:
                expected = expected[..., :task]
            torch.testing.assert_close(value.double(), expected.double(), **CLOSE)
            compared[name] += 1
    n_tasks, n_epochs, n_steps = trace["loss"].shape
    by_task = n_epochs * n_steps
    assert compared == {
        "g": n_tasks * by_task,
        **dict.fromkeys(("reg_value", "reg_grad", "task_probability"), (n_tasks - 1) * by_task),
        "branch_probability": (n_tasks - 2) * by_task,
    }


def test_trees(trace, monkeypatch):
    trees = [found for _, epoch, _, found in replay(trace, monkeypatch) if epoch is None]
    assert len(trees) == len(trace["trees"])
    for found, expected in zip(trees, trace["trees"], strict=True):
        compare_trees(found, expected)


def compare_trees(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name in ("left", "right"):
            compare_trees(found[name], value)
        else:
            assert found[name] == (pytest.approx(value, rel=1e-4) if name == "median" else value)


DEVIATIONS = {
    "distance_sign": ("near", "task_probability"),
    "accumulator_factor": ("one", "g"),
    "branch_weight": (False, "task_probability"),
    "schedule": ("constant", "reg_value"),
}


@pytest.mark.parametrize("option", DEVIATIONS)
def test_the_trace_tells_each_deviation_apart(trace, monkeypatch, option):
    value, name = DEVIATIONS[option]
    different = False
    for task, epoch, step, found in replay(trace, monkeypatch, **{option: value}):
        if epoch is not None and name in found:
            expected = trace[name][task, epoch, step]
            expected = expected[..., :task] if "probability" in name else expected
            different |= not torch.allclose(found[name].double(), expected.double(), **CLOSE)
    assert different
