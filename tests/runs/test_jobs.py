"""Which batches share a job of Snakemake, and how long it asks for."""

import math
from pathlib import Path

import pytest

from benchmarks.common.errors import DataError
from benchmarks.runs import durations, jobs
from benchmarks.runs.plan import Batch, load_plan
from tests.small_runs import plan_of

MINUTE = 60


def batches(project, names=("seqlora", "olora", "ewc", "l2p")):
    return [Batch(plan_of({name: {}}, seeds=(0, 1)).runs) for name in names]


def packed(found, minutes, seconds, at_once=1):
    names = jobs.pack(found, minutes, lambda run: seconds[run.label], at_once)
    return [list(dict.fromkeys(run.label for run in batch.runs)) for batch in names]


def test_neighbours_share_a_job_as_long_as_their_time_fits(project):
    """A batch of unknown time stays alone, as does each where none are to be joined."""
    found = batches(project)
    even = dict.fromkeys(("seqlora", "olora", "ewc", "l2p"), 5 * MINUTE)  # for each of two seeds
    assert packed(found, 20, even) == [["seqlora", "olora"], ["ewc", "l2p"]]
    assert packed(found, 19, even) == [["seqlora"], ["olora"], ["ewc"], ["l2p"]]
    assert packed(found, 0, even) == [["seqlora"], ["olora"], ["ewc"], ["l2p"]]
    assert packed(found, 60, even) == [["seqlora", "olora", "ewc", "l2p"]]
    assert packed(found, 60, even, at_once=2) == [["seqlora", "olora"], ["ewc", "l2p"]]
    unknown = even | {"olora": None}
    assert packed(found, 60, unknown) == [["seqlora"], ["olora"], ["ewc", "l2p"]]


def test_what_shares_a_job_has_a_name_and_a_title_of_its_own(project):
    found = batches(project, ("seqlora", "olora"))
    (joined,) = jobs.pack(found, 60, lambda run: 1, 1)
    assert joined.name not in {batch.name for batch in found}
    assert "seqlora" in joined.title() and "olora" in joined.title()


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "ten", True])
def test_what_is_no_number_of_minutes_is_named(value):
    with pytest.raises(DataError, match="JOB_MINUTES is a number of minutes"):
        jobs.pack([], value, None, 1)


def test_a_job_asks_for_more_at_each_attempt_and_never_for_more_than_the_limit(project):
    (batch,) = batches(project, ("seqlora",))
    asked = [jobs.minutes(batch, attempt, 100, lambda run: 10 * MINUTE) for attempt in (1, 2)]
    assert asked == [40, 80]
    assert jobs.minutes(batch, 1, 100, lambda run: None) == 100


def test_what_was_recorded_is_doubled_and_an_estimate_is_not_trusted(project, monkeypatch):
    (run,) = plan_of({"seqlora": {"epochs": 7}}, seeds=(0,)).runs
    estimate = jobs.seconds(run, on_gpu=False)
    assert jobs.asked_seconds(run, on_gpu=False) == 10 * estimate > 0
    recorded = {(durations._kind(run.spec), durations.ON_CPU): 100.0}
    monkeypatch.setattr(jobs, "_known_seconds", lambda: recorded)
    assert jobs.asked_seconds(run, on_gpu=False) == 200


def test_two_suites_with_the_same_runs_have_jobs_of_their_own(project):
    plan = plan_of({"seqlora": {}})
    Path("own.yaml").rename("other.yaml")
    (own,), (other,) = plan.batches(1), load_plan("other.yaml").batches(1)
    assert [run.record for run in own.runs] == [run.record for run in other.runs]
    assert own.name != other.name


def test_hours_of_a_cpu_do_not_share_a_job_as_seconds_of_a_gpu(project):
    (run,) = plan_of({"seqlora": {"epochs": 7}}, seeds=(0,)).runs
    assert jobs.seconds(run, on_gpu=False) > 100 * jobs.seconds(run, on_gpu=True) > 0
