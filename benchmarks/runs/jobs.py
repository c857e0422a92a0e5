"""Batches of runs as Snakemake's jobs: which share one, and how long it asks for."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable, Mapping

from snakemake_interface_logger_plugins.common import LogEvent

from benchmarks.common.errors import DataError
from benchmarks.runs.durations import Pace, expected, recorded_seconds
from benchmarks.runs.plan import Batch, PlannedRun

_known_seconds = functools.cache(recorded_seconds)


def seconds(run: PlannedRun, on_gpu: bool) -> float | None:
    """That a run is expected to take, None if that is not known."""
    return expected(run.spec, _known_seconds(), on_gpu=on_gpu).seconds


def asked_seconds(run: PlannedRun, on_gpu: bool) -> float | None:
    """Twice what was recorded of its like; ten times an estimate, which small steps exceed."""
    found = expected(run.spec, _known_seconds(), on_gpu=on_gpu)
    return found.seconds and found.seconds * (10 if found.is_estimate else 2)


def pack(
    batches: Iterable[Batch],
    minutes: float,
    seconds: Callable[[PlannedRun], float | None],
    at_once: int,
) -> list[Batch]:
    """Join neighbours whose open runs together take so many minutes at most.

    Args:
        seconds: that a run is expected to take; a batch of which that is not known stays alone.
        at_once: jobs that go at a time; none takes more than its share of all, so that none waits.

    Raises:
        DataError: `minutes` is no number of minutes.
    """
    check_minutes("JOB_MINUTES", minutes)
    batches = list(batches)
    if not minutes:
        return batches
    times = [_sum(map(seconds, batch.open_runs())) for batch in batches]
    most = min(60 * minutes, sum(filter(math.isfinite, times)) / at_once)
    packed: list[Batch] = []
    left = 0.0  # seconds, in the last of them
    for batch, taken in zip(batches, times, strict=True):
        if packed and taken <= left:
            packed[-1] = Batch(packed[-1].runs + batch.runs, batch.suite)
            left -= taken
        else:
            packed.append(batch)
            left = most - taken
    return packed


def _sum(times: Iterable[float | None]) -> float:
    """Of seconds, infinite if one is not known."""
    return sum(math.inf if time is None else time for time in times)


def check_minutes(name: str, value: object) -> float:
    """DataError for what is no number of minutes."""
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise DataError(f"{name} is a number of minutes, 0 for none, but is {value!r}: correct it")
    return value


def minutes(
    batch: Batch,
    attempt: int,
    longest: int,
    seconds: Callable[[PlannedRun], float | None],
) -> int:
    """What its runs ask for, and 20 minutes more, all of it times the attempt.

    The longest time where that is more, or is not known.
    """
    taken = 20 + _sum(map(seconds, batch.open_runs())) / 60
    return min(longest, attempt * math.ceil(taken)) if math.isfinite(taken) else longest


def outcomes(batches: Mapping[str, Batch], pace: Pace) -> Callable[[logging.LogRecord], bool]:
    """A filter of Snakemake's log: a job is done once each of its runs has a record, and its word
    that the job is finished gives way to a line for each run, and to how many of them failed."""
    batch_of_job: dict[int, Batch] = {}

    def say(line: logging.LogRecord) -> bool:
        event = getattr(line, "event", None)
        if event == LogEvent.JOB_INFO and line.rule_name == "train":
            batch_of_job[line.jobid] = batches[line.wildcards["batch"]]
        elif event == LogEvent.JOB_FINISHED and line.job_id in batch_of_job:
            runs = batch_of_job[line.job_id].runs
            said = [*filter(None, map(pace.finished, runs))]
            if failed := sum(run.status() == "failed" for run in runs):
                said.append(f"Failed in jobid: {line.job_id}: {failed} of {len(runs)} runs")
            line.msg = "\n".join(said) or line.msg
        return True

    return say
