"""The examples run, and the Trainer callback and the Avalanche plugin do what a plain loop does."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(p.stem for p in EXAMPLES.glob("*.py") if p.stem != "tiny_llama")


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    return lambda name: runpy.run_path(str(EXAMPLES / f"{name}.py"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_runs(run, capsys, name):
    left = run(name)
    assert "task 2" in capsys.readouterr().out or name != "plain_loop"
    tree = left.get("tree") or left.get("callback", left.get("plugin")).regulariser
    assert len(tree.tree.tasks) == len(tree.members) >= 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "adapter", "steps"),
    [("hugging_face_trainer", "callback", 2 * 8), ("avalanche_benchmark", "plugin", 2 * 4)],
)
def test_every_training_step_searches_once_in_every_matrix(run, name, adapter, steps):
    tree = run(name)[adapter].regulariser
    pulls = torch.tensor(tree.pulls())  # (finished tasks, matrices) of the last task
    assert len(pulls) == 2 and (pulls.sum(dim=0) == steps).all()
