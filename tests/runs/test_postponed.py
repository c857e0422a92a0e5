"""Runs that stop for no fault of their own: the allocation ends, or the GPU fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from baselines.common.inside import Unlike
from baselines.common.loop import Loop
from benchmarks.common import devices
from benchmarks.common.errors import DataError, FaultyGPU, Postponed
from benchmarks.runs import deadline, lease
from benchmarks.runs import run as runner
from benchmarks.runs.deadline import Deadline
from tests.small_runs import make, plan_of


def test_no_task_starts_that_the_allocation_would_cut_off(project, monkeypatch, whole):
    (one,) = plan_of({"seqlora": {}}).runs
    until = Deadline(time.time() + 1000)
    until.note(
        str(Path(one.directory).parent), 1, 2000
    )  # seconds of the second task, in the run before
    with pytest.raises(Postponed, match="too soon for task 2, which takes about 2000 s"):
        runner.make(Path(one.write_spec()), until)
    assert one.status() == "started"
    monkeypatch.setattr(devices, "name", lambda device: "another device")
    record = make(one)
    assert record["R"] == whole["R"]
    tries = record["provenance"]["tries"]
    assert [tried["tasks"] for tried in tries] == [1, 2]
    assert tries[1]["device"] == "another device" != tries[0]["device"]
    assert not {"tries"} & (record.keys() | whole["provenance"].keys())
    assert [path.name for path in Path(one.directory).iterdir() if "lease" in path.name] == []


@pytest.mark.parametrize(
    "method, n_steps",
    [
        ({"treelora": {"dropout": 0.1}}, 5),
        ({"hideprompt": {}}, 9),
        ({"derpp": {}}, 6),
    ],
)
def test_a_run_stopped_inside_a_task_goes_on_there(project, monkeypatch, capsys, method, n_steps):
    """Again and again, as where a task is longer than any allocation: each gives it a few steps."""
    (one,) = plan_of(method, curve_tests=2, augment="crop_flip").runs
    whole = make(one)
    spec = Path(one.directory) / "spec.json"
    for path in Path(one.directory).glob("[rp]*"):
        path.unlink()
    left = []

    def is_near(deadline):
        left[0] -= 1
        return left[0] == 0

    monkeypatch.setattr(Deadline, "is_near", is_near)
    record, tries = None, 0
    while record is None:
        left[:], tries = [n_steps], tries + 1
        try:
            record = runner.make(spec, state_minutes=60)
        except Postponed as error:
            assert "what was learnt of it is saved" in str(error)
            assert one.status() == "started"
    assert tries > 3 and capsys.readouterr().err.count("goes on at step") >= tries - 3
    for part in ("R", "diagnostics", "test_curve"):
        assert record[part] == whole[part]
    for task, same in zip(record["tasks"], whole["tasks"], strict=True):
        assert all(task[part] == same[part] for part in ("steps", "samples", "last_loss"))
        assert task["train_seconds"] > 0
    assert len(record["provenance"]["tries"]) == tries
    assert not [path for path in Path(one.directory).iterdir() if path.suffix == ".pt"]


def test_a_method_whose_state_inside_a_task_cannot_be_saved_is_made_without(
    project, monkeypatch, capsys, whole
):
    def snapshot(*_):
        raise Unlike("a dict by Phase")

    monkeypatch.setattr(Loop, "snapshot", snapshot)
    (one,) = plan_of({"seqlora": {}}).runs
    record = runner.make(Path(one.write_spec()), state_minutes=1e-9)
    assert record["R"] == whole["R"]
    assert capsys.readouterr().err.count("keeps what cannot be: a dict by Phase") == 1


@pytest.mark.parametrize("device", ["the same", "another"])
def test_a_task_is_expected_to_take_as_long_as_the_one_before_on_this_device(device):
    run = runner.Run.__new__(runner.Run)
    run.steps = [10, 20]
    before = {"train_seconds": 30.0, "consolidate_seconds": 10.0, "eval_seconds": 7.0}
    tries = [{"device": device, "tasks": 1}, {"device": "the same", "tasks": 0}]
    run.record = {"tasks": [before], "tries": tries}
    assert run._expected_seconds(1) == (40 * 2 + 7 * 2 if device == "the same" else 0)


@pytest.mark.parametrize(
    "error, fault",
    [
        (RuntimeError("CUDA error: uncorrectable ECC error encountered\nCUDA kernel"), True),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), True),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), False),
        (RuntimeError("CUDA error: out of memory"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), False),
        (ValueError("CUDA is mentioned"), False),
    ],
)
def test_a_faulty_gpu_is_no_failed_run_but_a_faulty_method_is(project, monkeypatch, error, fault):
    (one,) = plan_of({"seqlora": {}}).runs

    def broken(*_):
        raise error

    monkeypatch.setattr(runner.Run, "build", broken)
    if fault:
        with pytest.raises(Postponed, match="as the GPU is at fault [(].* on another machine"):
            make(one)
        assert one.status() == "open"
        assert (Path(one.directory) / lease.ATTEMPT).exists()  # it goes last the next time
    else:
        assert make(one)["status"] == "failed"


def test_a_gpu_that_a_failed_run_has_left_unusable_is_not_at_fault(monkeypatch):
    def unusable():
        raise FaultyGPU("none")

    monkeypatch.setattr(runner.devices, "require_gpu", unusable)
    for failed in (False, True):
        with pytest.raises(Postponed) as caught:
            runner._require_gpu(failed)
        assert isinstance(caught.value, FaultyGPU) is not failed


TERMINATED = """
import sys, time
from benchmarks.runs import run
def build(self):
    print("builds", flush=True)
    time.sleep(60)
run.Run.build = build
sys.argv = ["run", sys.argv[1]]
run.main()
"""


def test_a_run_that_is_told_to_end_gives_its_lease_back(project):
    """As schedulers do before they kill; its successor on another host would wait for long."""
    (one,) = plan_of({"seqlora": {}}).runs
    command = [sys.executable, "-c", TERMINATED, one.write_spec()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "builds\n"
    folder = Path(one.directory)
    assert len(list(folder.glob("lease-*"))) == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert list(folder.glob("lease-*")) == [] and one.status() == "open"


def test_a_run_that_was_made_meanwhile_is_taken(project, monkeypatch):
    (one,) = plan_of({"seqlora": {}}).runs
    hold = runner.lease.hold

    def hold_later(folder, wait):
        """Another process makes the run between the first look and the lease."""
        monkeypatch.setattr(runner.lease, "hold", hold)
        made.append(make(one))
        return hold(folder, wait)

    made = []
    monkeypatch.setattr(runner.lease, "hold", hold_later)
    assert runner.make(Path(one.write_spec())) == made[0]


@pytest.mark.parametrize(
    "left, seconds", [("9:30", 570), ("2:00:05", 7205), ("1-01:00:00", 90000), ("UNLIMITED", None)]
)
def test_the_end_of_an_allocation_is_asked_where_the_job_is_not_told(
    left, seconds, tmp_path, monkeypatch
):
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert deadline.end_of_allocation() is None
    tool = tmp_path / "squeue"
    tool.write_text(f"#!/bin/sh\n[ \"$3\" = 42 ] && echo '{left}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert deadline.end_of_allocation() == (None if seconds is None else 1000 + seconds)
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1800000000")
    assert deadline.end_of_allocation() == 1_800_000_000


def test_a_deadline_of_the_command_line_is_a_time():
    assert deadline.seconds_since_1970("1800000000") == 1_800_000_000
    assert deadline.seconds_since_1970("2027-01-15T08:00+00:00") == 1_800_000_000
    with pytest.raises(DataError, match="DEADLINE is a time such as .* but is 'soon'"):
        deadline.seconds_since_1970("soon")
