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


def seconds(run: PlannedRun) -> float | None:
    """That a run is expected to take, None if that is not known."""
    return expected(run.spec, _known_seconds()).seconds


def pack(
    batches: Iterable[Batch],
    minutes: float,
    seconds: Callable[[PlannedRun], float | None] = seconds,
) -> list[Batch]:
    """Join neighbours whose open runs together take so many minutes at most.

    Args:
        seconds: that a run is expected to take; a batch of which that is not known stays alone.

    Raises:
        DataError: `minutes` is no number of minutes.
    """
    check_minutes("JOB_MINUTES", minutes)
    packed: list[Batch] = []
    left = 0.0  # seconds, in the last of them
    for batch in batches:
        times = [seconds(run) for run in batch.open_runs()] if minutes else [None]
        taken = math.inf if None in times else sum(times)
        if packed and taken <= left:
            packed[-1] = Batch(packed[-1].runs + batch.runs)
            left -= taken
        else:
            packed.append(batch)
            left = 60 * minutes - taken
    return packed


def check_minutes(name: str, value: object) -> float:
    """DataError for what is no number of minutes."""
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise DataError(f"{name} is a number of minutes, 0 for none, but is {value!r}: correct it")
    return value


def minutes(batch: Batch, attempt: int, longest: int) -> int:
    """Twice what its runs are expected to take and 20 more, all of it times the attempt."""
    times = [seconds(run) for run in batch.open_runs()]
    if None in times:
        return longest
    return min(longest, attempt * math.ceil(20 + 2 * sum(times) / 60))


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
