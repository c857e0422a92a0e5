"""The examples run, and the Trainer callback and the Avalanche plugin do what a plain loop does.

Those of a method, `anchor.py`, and of a stream, `shades.py`, are tested by the contracts, and
`notebook.py` with the workflow.
"""

import contextlib
import functools
import io
import runpy
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
MODULES = ("anchor", "notebook", "shades", "tiny_llama")
SCRIPTS = sorted(p.stem for p in EXAMPLES.glob("*.py") if p.stem not in MODULES)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@functools.cache
def left(name: str) -> dict:
    """What a script leaves behind, with what it printed as `printed`."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
        return runpy.run_path(str(EXAMPLES / f"{name}.py")) | {"printed": out}


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_runs(name):
    made = left(name)
    assert "task 2" in made["printed"].getvalue() or name != "plain_loop"
    tree = made.get("tree") or made.get("callback", made.get("plugin")).regulariser
    assert len(tree.tree.tasks) == len(tree.members) >= 2


@pytest.mark.parametrize(
    ("name", "adapter", "steps"),
    [("hugging_face_trainer", "callback", 2 * 8), ("avalanche_benchmark", "plugin", 2 * 4)],
)
def test_every_training_step_searches_once_in_every_matrix(name, adapter, steps):
    pulls = torch.tensor(left(name)[adapter].regulariser.pulls())  # (finished tasks, matrices)
    assert len(pulls) == 2 and (pulls.sum(dim=0) == steps).all()
