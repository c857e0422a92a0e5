"""Each method against a reference written down from its paper, on a stream of three tasks.

Both start from the same values and see the same batches, so that in float64 their logits on samples
of all tasks agree to rounding after each task. `tests.references` has the references.
"""

import inspect
import subprocess
from pathlib import Path

import pytest
import torch

import baselines
from baselines.common.task import Task
from benchmarks.streams.common.tasks import Samples
from tests import tiny
from tests.references import REFERENCES, Start
from treelora import PRESETS

KEPT = {"optimizer_reset": False}  # most methods start a task with a fresh optimiser even so
PAPER = PRESETS["paper"]
# Of each method and modality the settings that are compared, `train` for those of the run.
CASES = {
    ("codaprompt", "vision"): [{"orthogonality": 0.1, "train": KEPT}],
    ("derpp", "vision"): [
        {"buffer": 7, "train": KEPT | {"mask": "seen"}},
        {"buffer": 3, "logit_weight": 0.0},
    ],
    ("derpp", "language"): [{"buffer": 7}],
    ("dualprompt", "vision"): [{}, {"inherit": False, "pull": 0.3, "train": KEPT}],
    ("dualprompt", "language"): [{"train": KEPT}],
    ("ease", "vision"): [{"train": KEPT}, {"donors": "new", "reweight": 0.7}],
    ("ewc", "vision"): [{"fisher_samples": 8}],
    ("ewc", "language"): [{"fisher_samples": 8, "fisher_batch_size": 4}, {"trained": "all"}],
    ("fix", "language"): [{}],
    ("gem", "vision"): [{}, {"train": {"mask": "seen"}}],
    ("gem", "language"): [{}],
    ("hidelora", "vision"): [
        {"alignment_epochs": 3, "train": {"head_init": "linear"}},
        {"alignment_epochs": 3, "statistics": "covariance", "slow": 0.5, "train": KEPT},
    ],
    ("hidelora", "language"): [{"contrast": 0.1, "train": KEPT}],
    ("hideprompt", "vision"): [
        {"alignment_epochs": 3},
        {"alignment_epochs": 3, "statistics": "variance", "momentum": 0.3, "identity_rate": 0.2},
    ],
    ("hidetreelora", "vision"): [
        {"alignment_epochs": 3},
        {"alignment_epochs": 3, "pulled": "shared", **PAPER},
    ],
    ("inflora", "vision"): [{"rank": 3}, {"rank": 3, "lamb": 0.9, "train": KEPT}],
    ("joint", "vision"): [{"train": {"mask": "all"}}],
    ("joint", "language"): [{}],
    ("l2p", "vision"): [{}, {"positions": "none", "head_input": "cls"}],
    ("l2p", "language"): [{}],
    ("magmax", "vision"): [{"train": KEPT}, {"merge": "mean"}, {"merge": "ties", "density": 0.4}],
    ("magmax", "language"): [{"scale": 1.2}, {"merge": "ties"}],
    ("ogd", "vision"): [
        {"directions": 8},
        {"directions": 8, "project": "gradient", "optimizer": "sgd"},
    ],
    ("ogd", "language"): [{"directions": 8}],
    ("olora", "vision"): [{"size": 0.01, "train": KEPT}],
    ("olora", "language"): [{"size": 0.01}],
    ("ranpac", "vision"): [
        {"projections": 8},
        {"projections": 0, "ridge": 0.1},
        {"head": "mean"},
    ],
    ("sapt", "language"): [
        {"replay_share": 0.5, "bottleneck": 5, "train": KEPT},
        {"replay": "none", "attention_rate": 0.001},
    ],
    ("sdlora", "vision"): [{"train": KEPT}, {"optimizer": "sgd"}],
    ("seqlora", "vision"): [
        {"train": KEPT},
        *({"train": {"mask": m}} for m in ("seen", "all")),
        {"align": True},
    ],
    ("seqlora", "language"): [{}],
    ("tasl", "vision"): [{"important_share": 0.4}],
    ("tasl", "language"): [{"important_share": 0.4, "n_tasks": 6}],
    ("treelora", "vision"): [{}, PAPER, {"align": True}],
    ("treelora", "language"): [
        {"strength": 0.5, "n_tasks": 6},
        {"strength": 1e-4, "penalty_scale": "sum", "residual_scale": "sum", "n_tasks": 6},
    ],
}


@pytest.fixture
def double(monkeypatch):
    """Double precision throughout, also where single is asked for."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    yield
    torch.set_default_dtype(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "modality", "config"),
    [(*pair, config) for pair, configs in CASES.items() for config in configs],
)
def test_logits_are_those_of_the_papers_equations(name, modality, config, double):
    config = dict(config)
    shared, n_tasks = config.pop("train", None), config.pop("n_tasks", tiny.N_TASKS)
    method = tiny.method(name, modality, shared=shared, **config)
    tasks = tiny.tasks(modality, n_tasks)
    if method.offline:
        x, y = (torch.cat([getattr(task.train, part) for task in tasks]) for part in "xy")
        tasks = [Task(0, "union", Samples(x, y), epochs=2)]
    reference = REFERENCES.get(f"{name} {modality}") or REFERENCES[name]
    x = torch.cat([tiny.samples(modality, t).batch(torch.arange(12))[0] for t in range(3)])
    before = tiny.outputs(method, modality)
    for task, logits in zip(tasks, reference(Start(method, tasks)), strict=True):
        tiny.learn(method, task)
        found = tiny.outputs(method, modality)
        torch.testing.assert_close(found, logits(x).detach(), atol=1e-9, rtol=0)
        assert (found - before).abs().max() > 1e-3
        before = found


@pytest.mark.parametrize("pair", tiny.pairs(), ids="-".join)
def test_each_method_has_a_reference(pair):
    """A method that is kept under version control; a file of the user's own needs none."""
    if pair not in CASES:
        file = Path(inspect.getfile(baselines.load(*pair)))
        listing = ["git", "ls-files", "--error-unmatch", file.name]
        tracked = subprocess.run(listing, cwd=file.parent, capture_output=True).returncode == 0
        assert not tracked, f"write a reference for {pair} in tests/references and name it in CASES"
        pytest.skip(f"{file.name} has no reference; it is not under version control")
