"""What only a GPU shows of runs; `make test` rehearses it without one."""

import ast
import os
import select
import signal
import time
from pathlib import Path

import processes
import pytest
import torch

from benchmarks.common import devices
from benchmarks.common.errors import Postponed
from benchmarks.common.files import read_json
from benchmarks.costs import memory
from benchmarks.runs import gpus
from benchmarks.runs import run as runner
from benchmarks.runs.deadline import Deadline
from tests.outside import made, save, suite
from tests.repository.test_names import FILES, ROOT, chain
from tests.runs.test_machines import claiming
from tests.small_runs import N_TASKS, make, plan_of

pytestmark = pytest.mark.gpu


@pytest.fixture
def start(gpu, monkeypatch):
    """Starts a run in a process of its own."""
    run = ("benchmarks.runs.run",)
    if gpu is not None:
        run = ("pretend_cuda", *run)
        monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"), prepend=os.pathsep)
    return lambda *options, **out: processes.start(*run, *options, **out)


def calls_of_cuda():
    """Where the code calls torch.cuda: file, first and last line."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and chain(node.func)[:2] == ["torch", "cuda"]:
                yield str(file), node.lineno, node.end_lineno


def test_every_call_of_cuda_is_made_by_a_run(gpu, project, data, tmp_path, monkeypatch):  # noqa: F811
    """On images and on text, with and without gradient steps; the record says what it ran on."""
    (ranpac,) = plan_of({"ranpac": {"projections": 50}}).runs
    records = [make(ranpac)]
    save(data, "llama")
    decoding = {"stream": {"decoding": "released"}, "train": {"precision": "bfloat16"}}
    records += made(suite("llama", tmp_path, **decoding), data)
    (stopped,) = plan_of({"seqlora": {}}).runs
    with monkeypatch.context() as soon, pytest.raises(Postponed):
        soon.setattr(Deadline, "is_near", lambda _: True)
        runner.make(Path(stopped.write_spec()), state_minutes=60)
    records.append(make(stopped))  # from within the task
    devices.synchronise("cuda")  # of the scripts that measure time
    devices.release()  # between the runs of a process
    for record in records:
        assert record["status"] == "done", record["error"]
        found = record["provenance"]
        assert found["device"] == torch.cuda.get_device_name() and not found["deterministic"]
        assert found["tf32"] == {"matmul": False, "convolution": True}  # torch's defaults
        assert all(10**4 < task["peak_bytes"] < 2**30 for task in record["tasks"])
    assert memory.available_bytes("cuda") > 2**28
    if gpu is not None:  # pretended, so that calls are counted
        calls = list(calls_of_cuda())
        missed = {c for c in calls if not any((c[0], n) in gpu for n in range(c[1], c[2] + 1))}
        assert calls and missed == set()
        clocks = {Path(file).name for file, _ in gpu}
        assert {"loop.py", "ranpac.py"} <= clocks  # they wait for the GPU before they are read


def test_a_run_has_a_gpu_of_its_own_until_it_is_killed_and_continues(
    gpu,
    project,
    start,
    monkeypatch,
):
    """Another waits for the GPU while the first run lives. What was learnt before stays."""
    if gpu is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("GPUS", "1")
    monkeypatch.setenv("TMPDIR", str(project))
    (one,) = plan_of({"treelora": {}}, epochs=6).runs
    asked, state = (one.write_spec(), "--own-gpu"), one.state
    first = start(*asked, out=Path("first.txt"))
    other = None
    try:
        while first.is_alive() and not state.exists():
            time.sleep(0.02)
        os.kill(first.pid, signal.SIGSTOP)
        assert first.is_alive(), Path("first.txt").read_text()
        (slot,) = project.glob(f"treelora-{os.getuid()}/gpu-*.lock")
        other = claiming(project, gpus.names()[0])
        assert not select.select([other.stdout], [], [], 3)[0]  # it waits
        first.kill()
        first.join()
        assert other.stdout.readline().strip() == gpus.names()[0]
    finally:
        first.kill()
        first.join()
        if other:
            other.kill()
            other.wait()
    saved = torch.load(state, "cpu", weights_only=True)["record"]
    second = start(*asked, out=Path("second.txt"))
    second.join()
    said = Path("second.txt").read_text()
    assert second.exitcode == 0, said
    assert f"continues after task {len(saved['tasks'])} of {N_TASKS}" in said
    record = read_json(Path(one.record))
    assert record["status"] == "done", record["error"]
    assert record["R"][: len(saved["tasks"])] == saved["R"][: len(saved["tasks"])]
    assert record["provenance"]["device"] == torch.cuda.get_device_name()
    assert record["provenance"]["runs_per_gpu"] == 1


def test_several_runs_share_a_gpu(gpu, project, start, monkeypatch):
    if gpu is not None:
        pytest.skip("a pretended GPU has no memory to share")
    monkeypatch.setenv("RUNS_PER_GPU", "2")
    monkeypatch.setenv("GPUS", "1")
    monkeypatch.setenv("TMPDIR", str(project))
    runs = plan_of({"treelora": {}}, seeds=(0, 1)).runs
    started = [start(run.write_spec(), "--own-gpu") for run in runs]
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0]
    assert len(list(project.glob(f"treelora-{os.getuid()}/gpu-*.lock"))) == 2
    for run in runs:
        assert read_json(Path(run.record))["status"] == "done"
