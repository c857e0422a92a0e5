"""Runs that were promised a GPU, or not, on a machine that has none."""

import os
import sys
import time

import pytest

from benchmarks.common.errors import Postponed
from benchmarks.runs import gpus, run


@pytest.mark.parametrize("promise", ["--own-gpu", "--gpus 1"])
def test_a_run_that_was_promised_a_gpu_does_not_train_on_the_cpu(
    promise, tmp_path, monkeypatch, capsys
):
    """The driver may list a GPU that torch cannot use. No record says failed; state is kept."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(gpus, "claim", lambda: True)
    monkeypatch.setattr(gpus, "note_faulty", lambda: None)
    monkeypatch.setattr(run, "make", lambda *_: pytest.fail("trained"))
    (tmp_path / "state.pt").write_text("state")
    monkeypatch.setattr(sys, "argv", ["run", str(tmp_path / "spec.json"), *promise.split()])
    with pytest.raises(SystemExit) as stopped:
        run.main()
    assert stopped.value.code == Postponed.EXIT
    said = capsys.readouterr().err.strip()
    assert "promised a GPU, but torch cannot use one (" in said and "\n" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_other_runs_leave_out_a_gpu_that_torch_cannot_use(tmp_path, monkeypatch):
    """It would be free at once, and each run of the queue would end on it."""
    monkeypatch.setattr(gpus.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["run", str(tmp_path / "spec.json"), "--own-gpu"])

    def taken():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,MIG-7/1/0")
        with gpus.claim():
            return os.environ["CUDA_VISIBLE_DEVICES"]

    def fail():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,MIG-7/1/0")
        with pytest.raises(SystemExit):
            run.main()

    assert taken() == "GPU-a"
    fail()
    assert taken() == "MIG-7/1/0"
    (fault,) = tmp_path.glob("*/*.faulty")
    os.utime(fault, (time.time() - gpus.FORGIVEN_SECONDS - 60,) * 2)
    assert taken() == "GPU-a"
    fail()
    assert taken() == "MIG-7/1/0"
    fail()
    assert taken() == "GPU-a", "where all are faulty they are tried again"


def test_runs_of_a_group_take_a_gpu_each_of_those_that_it_was_given(monkeypatch):
    """The scheduler names all of them to each; where there is one, it is that one."""
    seen = []
    monkeypatch.setattr(gpus, "claim", lambda: seen.append("claimed"))
    monkeypatch.setattr(run.devices, "require_gpu", lambda: None)
    monkeypatch.setattr(run, "make", lambda *_: seen.append("made") or {"status": "done"})
    monkeypatch.setattr(sys, "argv", ["run", "spec.json", "--gpus", "1"])
    for visible in ("2", "2,3"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        run.main()
    assert seen == ["made", "claimed", "made"]


def test_a_run_without_a_promise_takes_what_there_is(monkeypatch):
    made = []
    monkeypatch.setattr(run, "make", lambda path, *_: made.append(path) or {"status": "done"})
    for promise in ([], ["--gpus", "0"]):
        monkeypatch.setattr(sys, "argv", ["run", "spec.json", *promise])
        run.main()
    assert len(made) == 2
