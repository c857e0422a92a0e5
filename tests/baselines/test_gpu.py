"""What only a GPU shows: `pytest --pretend-gpu tests/test_gpu.py` rehearses it without one."""

import ast
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tests.test_causal_lms import data, made, save, suite  # noqa: F401
from tests.test_contract import pairs
from tests.test_devices import (  # noqa: F401
    FILES,
    ROOT,
    chain,
    test_a_step_is_timed,
    test_schedules_are_timed_with_their_peak_memory_on_a_gpu,
    test_the_loop_is_timed,
)
from tests.test_machines import claiming
from tests.test_run import N_TASKS, make, plan_of, project  # noqa: F401

from benchmarks.common import devices
from benchmarks.common.files import read_json
from benchmarks.costs import memory
from benchmarks.runs import gpus
from tests import tiny
from treelora import TreeRegulariser

pytestmark = pytest.mark.gpu


@pytest.fixture
def command(request):
    """Of a run in a process of its own."""
    pretend = request.config.getoption("pretend_gpu")
    start = [str(ROOT / "tests/pretend_cuda.py")] if pretend else ["-m"]
    return [sys.executable, *start, "benchmarks.runs.run"]


def calls_of_cuda():
    """Where the code calls torch.cuda: file, first and last line."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and chain(node.func)[:2] == ["torch", "cuda"]:
                yield str(file), node.lineno, node.end_lineno


def test_every_call_of_cuda_is_made_by_a_run(gpu, project, data, tmp_path):  # noqa: F811
    """On images and on text, with and without gradient steps; the record says what it ran on."""
    (ranpac,) = plan_of({"ranpac": {"projections": 50}}).runs
    records = [make(ranpac)]
    save(data, "llama")
    decoding = {"stream": {"decoding": "released"}, "train": {"precision": "bfloat16"}}
    records += made(suite("llama", tmp_path, **decoding), data)
    devices.synchronise("cuda")  # of the scripts that measure time
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


def test_two_memories_do_not_mix():
    """On a pretended GPU as on a real one, or it would rehearse nothing."""
    here, there = torch.ones(2), torch.ones(2, device="cuda")
    row = torch.tensor([0])
    assert torch.equal((there[row] + torch.tensor(1)).cpu(), torch.tensor([2.0]))
    for mix in (lambda: here + there, lambda: here[row.to("cuda")]):
        with pytest.raises(RuntimeError):
            mix()
    with pytest.raises(TypeError):
        there.numpy()


def learnt(name, modality, n_tasks=1, device="cuda", **shared):
    """A method and the losses of its steps."""
    method = tiny.method(name, modality, shared={"device": device} | shared)
    losses = []
    for task in tiny.tasks(modality, n_tasks, epochs=1):
        torch.manual_seed(task.index)
        method.learn(task, lambda loss, n: losses.append(loss.item()))
    return method, losses


@torch.no_grad()
def outputs(method, modality):
    """On the GPU."""
    x, _ = tiny.samples(modality, 0).batch(torch.arange(12))
    return method.model.eval()(x.to("cuda"))


@pytest.mark.parametrize("case", pairs(), ids="-".join)
def test_a_method_learns_on_the_gpu_and_is_continued_there(case, tmp_path):
    """Its first step is that of the CPU; later ones may draw from the GPU's own generator."""
    name, modality = case
    method, losses = learnt(name, modality, n_tasks=2)
    assert losses[:1] == pytest.approx(learnt(name, modality, device="cpu")[1][:1], rel=1e-3)
    torch.save(method.state_dict(), tmp_path / "state.pt")
    fresh = tiny.method(name, modality, shared={"device": "cuda"})
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", "cuda", weights_only=True))
    before, after = outputs(method, modality), outputs(fresh, modality)
    assert before.is_cuda and before.isfinite().all()
    torch.testing.assert_close(before, after)
    fresh.learn(tiny.tasks(modality, 3, epochs=1)[2])
    if modality == "language":
        prompts = tiny.samples(modality, 0).x[:, :, :-2].to("cuda")
        assert 1 <= fresh.model.eval().generate(prompts, 3).shape[1] <= 3


@pytest.mark.parametrize("modality", tiny.MODALITIES)
def test_bfloat16_is_computed_and_float32_is_trained(modality):
    (_, full), (method, mixed) = (
        learnt("seqlora", modality, precision=precision) for precision in ("float32", "bfloat16")
    )
    assert mixed != full and mixed == pytest.approx(full, rel=0.05)
    assert {p.dtype for p in method.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("modality", tiny.MODALITIES)
def test_micro_batches_make_the_same_steps(modality):
    (_, whole), (_, parts) = (
        learnt("treelora", modality, 2, micro_batch_size=size) for size in (None, 3)
    )
    assert parts == pytest.approx(whole, rel=1e-2)


def test_a_compiled_network_learns_the_same(gpu):
    if gpu is not None:
        pytest.skip("there is nothing to compile for on a pretended GPU")
    (_, plain), (_, compiled) = (
        learnt("seqlora", "vision", compile=option) for option in (False, True)
    )
    assert compiled == pytest.approx(plain, rel=1e-2)


def test_answers_are_those_of_the_cpu_and_drawn_ones_leave_other_draws_alone():
    prompts = tiny.samples("language", 0).x[:, :, :-2]
    model = tiny.network("language")
    greedy = model.generate(prompts, 6)
    model.to("cuda")
    assert torch.equal(model.generate(prompts.to("cuda"), 6).cpu(), greedy)
    model.decoding = "released"
    model.network.get_output_embeddings().weight.data.mul_(0.01)  # so that the draw decides
    torch.manual_seed(5)
    expected = [torch.rand(3, device=device).tolist() for device in ("cpu", "cuda")]
    torch.manual_seed(5)
    first, second = (model.generate(prompts.to("cuda"), 6).cpu() for _ in range(2))
    assert [torch.rand(3, device=device).tolist() for device in ("cpu", "cuda")] == expected
    assert torch.equal(first, second) and not torch.equal(first, greedy)


@pytest.mark.parametrize("store_on", [None, "cpu"])
def test_signatures_are_kept_on_the_gpu_or_beside_it(store_on):
    model = tiny.Adapters(3, 4).to("cuda")
    tree = TreeRegulariser(model, store_on=store_on)
    rows = torch.arange(24.0, device="cuda").reshape(2, 12)
    tree.load_state_dict({"signatures": rows, "members": [[0], [1]]})
    tree.start_task()
    model.fill(torch.ones(3, 4, device="cuda"))
    tree.penalty(torch.ones((), device="cuda")).backward()
    assert model.gradient().is_cuda and model.gradient().abs().sum() > 0
    tree.end_task()
    assert len(tree.signatures) == 3
    assert tree.signatures.device.type == (store_on or model.gradient().device.type)


def test_a_run_has_a_gpu_of_its_own_until_it_is_killed_and_continues(
    gpu,
    project,  # noqa: F811
    command,
    monkeypatch,
):
    """Another waits for the GPU while the first run lives. What was learnt before stays."""
    if gpu is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("GPUS", "1")
    monkeypatch.setenv("TMPDIR", str(project))
    (one,) = plan_of({"treelora": {}}, epochs=6).runs
    command += [one.write_spec(), "--out", one.directory, "--own-gpu"]
    state = Path(one.directory, "state.pt")
    with open("first.txt", "w") as log:
        first = subprocess.Popen(command, stdout=log, stderr=log)
    other = None
    try:
        while first.poll() is None and not state.exists():
            time.sleep(0.02)
        first.send_signal(signal.SIGSTOP)
        assert first.poll() is None, Path("first.txt").read_text()
        (slot,) = project.glob(f"treelora-{os.getuid()}/gpu-*.lock")
        other = claiming(slot.parent, gpus.names()[0])
        assert not select.select([other.stdout], [], [], 3)[0]  # it waits
        first.kill()
        first.wait()
        assert other.stdout.readline().strip() == gpus.names()[0]
    finally:
        for process in filter(None, (first, other)):
            process.kill()
            process.wait()
    saved = torch.load(state, "cpu", weights_only=True)["record"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"continues after task {len(saved['tasks'])} of {N_TASKS}" in done.stderr
    record = read_json(Path(one.directory, "result.json"))
    assert record["status"] == "done", record["error"]
    assert record["R"][: len(saved["tasks"])] == saved["R"][: len(saved["tasks"])]
    assert record["provenance"]["device"] == torch.cuda.get_device_name()
