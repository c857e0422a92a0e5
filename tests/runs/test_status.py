"""What `make status` says of runs that are done, that are made, and that could be restored."""

import logging
import lzma
import time
from pathlib import Path

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from analysis.records import reading
from benchmarks.common.files import write_bytes, write_json
from benchmarks.runs import jobs, lease, published, results, status
from benchmarks.runs import run as runner
from benchmarks.runs.durations import Expected, Pace
from benchmarks.runs.status import describe
from tests.small_runs import plan_of

pytestmark = pytest.mark.slow


def test_a_running_run_says_how_far_it_is_and_a_dead_one_is_not_running(project, whole):
    """Looked at from within a run, between its tasks; another seed has told how long it takes."""
    plan = plan_of({"seqlora": {}, "gem": {}}, seeds=(0, 1))
    done, one = (run for run in plan.runs if run.label == "seqlora")
    write_json(Path(done.record), whole)
    said = []

    class Stopped(Exception):
        pass

    def look(run, *_):
        said.append(describe(plan))
        if len(said) == 2:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.runs.learning.Run._train", _before(look))
        runner.make(Path(one.write_spec()))  # leaves a failed record
    first, second = said
    assert "4 runs: 1 done, 1 running, 2 open" in first
    assert "  running: seqlora on glyphs, seed 1: task 1 of 3, about " in first
    assert "task 2 of 3, script" in second and " left" in second
    rows = {line.split()[0]: line for line in second.splitlines()}
    assert rows["seqlora"].endswith("1 done, 1 running") and rows["gem"].endswith("2 open")
    after = describe(plan)
    assert "1 done, 1 failed, 2 open" in after and "running" not in after


def test_what_a_cpu_took_is_not_said_of_a_gpu(project, whole, monkeypatch):
    plan = plan_of({"seqlora": {}}, seeds=(0,))
    (one,) = plan.runs
    attempt = Path(one.directory, lease.ATTEMPT)
    attempt.parent.mkdir(parents=True)
    asked = []
    monkeypatch.setattr(status, "expected", lambda *_, on_gpu: asked.append(on_gpu) or Expected(9))
    for device in ("cpu", "cuda"):
        attempt.write_text(device)
        assert "left" in status._place(one, {})
    assert asked == [False, True]


def _before(look):
    """`Run._train` that looks first."""
    from benchmarks.runs.learning import Run

    train = Run._train

    def looking(self, task):
        look(self)
        return train(self, task)

    return looking


def test_published_results_of_open_runs_are_offered(project, whole, monkeypatch):
    """Those that `restore` would take, and no others."""
    plan = plan_of({"seqlora": {}}, seeds=(0, 1))
    folder = project / "published"
    monkeypatch.setattr(reading, "PUBLISHED", folder)
    write_json(Path(plan.runs[0].record), whole)
    results.collect(plan_of({"seqlora": {}}), Path("runs.jsonl"))
    write_bytes(folder / "own.runs.jsonl.xz", lzma.compress(Path("runs.jsonl").read_bytes()))
    published.vouch({"own": [plan.runs[0].spec]})
    assert "make restore" not in describe(plan)
    Path(plan.runs[0].record).unlink()
    assert "published results of 1 open runs exist: make restore takes them" in describe(plan)
    write_json(folder / "sources.json", {})
    assert "make restore" not in describe(plan)


def test_each_finished_run_is_told_once_with_what_is_left(project, whole, monkeypatch):
    plan = plan_of({"seqlora": {}}, seeds=(0, 1, 2))
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = Pace(plan.runs, plan.runs)
    assert pace.finished(plan.runs[0]) is None  # it is open
    write_json(Path(plan.runs[0].record), whole)
    now[0] = 60.0
    line = pace.finished(plan.runs[0])
    assert line.startswith("1 of 3 runs: seqlora on glyphs, seed 0: ACC ")
    assert line.endswith(", about 2 min left")
    assert pace.finished(plan.runs[0]) is None
    for run in plan.runs[1:]:
        failed = whole | {"key": run.key, "status": "failed", "error": "no"}
        write_json(Path(run.record), failed)
    assert "seed 1: failed, about 30 s left" in pace.finished(plan.runs[1])
    assert pace.finished(plan.runs[2]) == "3 of 3 runs: seqlora on glyphs, seed 2: failed"


def test_the_log_of_a_workflow_has_a_line_for_each_run_of_a_job(project, whole):
    plan = plan_of({"seqlora": {}}, seeds=(0, 1))
    (batch,) = plan.batches(together=2)
    say = jobs.outcomes({batch.name: batch}, Pace(plan.runs, plan.runs))
    begun = {"rule_name": "train", "jobid": 3, "wildcards": {"batch": batch.name}}
    assert say(_line(LogEvent.JOB_INFO, **begun))
    write_json(Path(plan.runs[0].record), whole)
    failed = whole | {"key": plan.runs[1].key, "status": "failed", "error": "no"}
    write_json(Path(plan.runs[1].record), failed)
    ended = _line(LogEvent.JOB_FINISHED, job_id=3)
    assert say(ended) and len(ended.msg.splitlines()) == 3
    assert ended.msg.startswith("1 of 2 runs: seqlora on glyphs, seed 0: ACC ")
    assert ended.msg.endswith("\nFailed in jobid: 3: 1 of 2 runs")


def _line(event, **more):
    return logging.makeLogRecord({"event": event, "msg": "Finished", **more})
