"""Scripts that measure time, names that do not exist, and promises of a GPU, without one."""

import argparse
import ast
import importlib
import subprocess
import sys
import types
from pathlib import Path
from unittest.mock import Mock

import pytest
import timm
import torch

from benchmarks.common import devices
from benchmarks.common.files import DataError
from benchmarks.experiments import schedule_time, speed, step_speed
from benchmarks.runs import gpus, run

ROOT = Path(__file__).parents[2]
FILES = [p for room in ("treelora", "baselines", "benchmarks") for p in (ROOT / room).rglob("*.py")]


def chain(node):
    """The names of a.b.c, or none if it does not start with a name."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else []


def imported(tree):
    """What the imports of a file bind to names."""
    bound = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                module = importlib.import_module(name.name)
                first = name.name.partition(".")[0]
                bound[name.asname or first] = module if name.asname else sys.modules[first]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            module = importlib.import_module(node.module)
            for name in node.names:
                if not hasattr(module, name.name):
                    importlib.import_module(f"{node.module}.{name.name}")
                bound[name.asname or name.name] = getattr(module, name.name)
    return bound


def test_every_attribute_of_a_module_exists():
    """Also in lines that no test on a CPU executes: torch.cuda has no getdevice_name."""
    missing = []
    for file in FILES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        bound = imported(tree)
        for node in ast.walk(tree):
            names = chain(node)
            found = bound.get(names[0]) if names else None
            for name in names[1:]:
                if isinstance(found, types.ModuleType) and not hasattr(found, name):
                    missing.append(f"{file.name}, line {node.lineno}: {ast.unparse(node)}")
                found = getattr(found, name, None)
    assert FILES and missing == []


def test_what_only_a_gpu_executes_is_executed():
    """In a process of its own: what stands for the GPU is there for good."""
    one = "tests/test_gpu.py::test_every_call_of_cuda_is_made_by_a_run"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pretend-gpu", one]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout


def shown(module, arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments.split()])
    module.main()
    out = capsys.readouterr().out
    assert devices.name(devices.find()) in out
    return [line for line in out.splitlines() if line.startswith("| ")]


def test_the_loop_is_timed(monkeypatch, capsys):
    few = "--batch-size 2 --steps 1 --rounds 1 --finished-tasks 1 --backbones micro-vit micro-llama"
    _, *rows = shown(speed, few, monkeypatch, capsys)
    names, times = zip(*(row.split(" | ")[:2] for row in rows), strict=True)
    assert names == ("| micro-vit", "| micro-llama")
    assert all(float(time.split()[0]) > 0 for time in times)


def test_a_step_is_timed(monkeypatch, capsys):
    build = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda model_name, **how: build("vit_tiny_patch16_224", **how)
    )
    monkeypatch.setattr(step_speed, "SHAPES", {"ViT, small": (4, 32), "other": (6, 64)})
    few = "--tasks 3 5 --rounds 1 --steps 1 --batch-size 1"
    _, *rows = shown(step_speed, few, monkeypatch, capsys)
    assert [row.split(" | ")[1] for row in rows] == ["3", "5"] * 2
    assert rows[0].endswith("% |") and rows[-1].endswith("– |")


def test_schedules_are_timed_with_their_peak_memory_on_a_gpu():
    options = {"backbone": "micro-llama", "weights": None, "checkpointing": False}
    options |= {"batch_size": 2, "steps": 1, "scale": 0.02}
    device = devices.find()
    seconds, peak = schedule_time.measure("seqlora", argparse.Namespace(**options), device)
    assert min(seconds) > 0 and (peak > 0) == (device == "cuda")


@pytest.mark.parametrize("promise", ["--own-gpu", "--gpus 1"])
def test_a_run_that_was_promised_a_gpu_does_not_train_on_the_cpu(promise, tmp_path, monkeypatch):
    """The driver may list a GPU that torch cannot use. No record says failed; state is kept."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(gpus, "claim", lambda: True)
    monkeypatch.setattr(run, "run", lambda *_: pytest.fail("trained"))
    (tmp_path / "state.pt").write_text("state")
    arguments = ["run", "spec.json", "--out", str(tmp_path), *promise.split()]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match="promised a GPU, but torch cannot use one [(]") as stopped:
        run.main()
    assert "\n" not in str(stopped.value)  # a sentence on stderr; then the status is 1
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_run_without_a_promise_takes_what_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "run", lambda *paths: made.append(paths))
    made = []
    for promise in ([], ["--gpus", "0"]):
        monkeypatch.setattr(sys, "argv", ["run", "spec.json", "--out", str(tmp_path), *promise])
        run.main()
    assert len(made) == 2


def test_a_gpu_that_torch_can_use_keeps_the_promise(monkeypatch):
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda n, device: ones(n))
    devices.require_gpu()
    for error in (RuntimeError("CUDA error: out of order\nat a place"), AssertionError()):
        monkeypatch.setattr(torch, "ones", Mock(side_effect=error))
        with pytest.raises(DataError, match="(out of order|AssertionError)[)]"):
            devices.require_gpu()
