"""Which batches share a job of Snakemake, and how long it asks for."""

import math

import pytest

from benchmarks.common.errors import DataError
from benchmarks.runs import jobs
from benchmarks.runs.plan import Batch
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
    (joined,) = jobs.pack(found, 60, lambda run: 1)
    assert joined.name not in {batch.name for batch in found}
    assert "seqlora" in joined.title() and "olora" in joined.title()


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "ten", True])
def test_what_is_no_number_of_minutes_is_named(value):
    with pytest.raises(DataError, match="JOB_MINUTES is a number of minutes"):
        jobs.pack([], value)


def test_a_job_asks_for_more_at_each_attempt_and_never_for_more_than_the_limit(project):
    (batch,) = batches(project, ("seqlora",))
    asked = [jobs.minutes(batch, attempt, 100, lambda run: 10 * MINUTE) for attempt in (1, 2)]
    assert asked == [60, 100]
    assert jobs.minutes(batch, 1, 100, lambda run: None) == 100


def test_hours_of_a_cpu_do_not_share_a_job_as_seconds_of_a_gpu(project):
    (run,) = plan_of({"seqlora": {"epochs": 7}}, seeds=(0,)).runs
    assert jobs.seconds(run) > 100 * jobs.seconds(run, on_gpu=True) > 0
