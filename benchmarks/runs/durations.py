"""How long runs take: by recorded ones, by an estimate, and by those that are made right now.

Of a run that was recorded with the same method on the same stream, backbone and training settings,
here or published, the time is known, whether or not its data is there. That of any other is
estimated from operations (`costs.training_time`).
"""

from __future__ import annotations

import heapq
import json
import math
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from analysis import strict_json
from analysis.records import reading
from analysis.terminal import tell
from analysis.text import visible
from benchmarks.common.files import read_json
from benchmarks.costs import training_time
from benchmarks.runs.plan import RUNS, PlannedRun

RECORDED, ESTIMATED, UNKNOWN = "as recorded on {}", "as estimated for {}", "of unknown length"
ON_CPU, ON_GPU = "a CPU", "a GPU"


class Expected(NamedTuple):
    """Seconds that a run will take, None if unknown, and what they rest on, in words."""

    seconds: float | None
    basis: str = UNKNOWN

    @property
    def is_estimate(self) -> bool:
        return self.basis in map(ESTIMATED.format, (ON_CPU, ON_GPU))

    def __str__(self) -> str:
        if self.seconds is None:
            return "-"
        return f"{'~' * self.is_estimate}{duration(self.seconds)}"


Known = dict[tuple[str, str], float]


def recorded_seconds() -> Known:
    """Seconds of recorded runs by what decides them, loading included; the last one counts.

    A record that cannot be read is another suite's, as this suite's were read for their status: it
    is named on stderr and left out, as is what follows it in the file.
    """
    known = {}
    for path in [*reading.published().values(), *sorted(RUNS.glob("*/*/*/result*.json"))]:
        try:
            for record in _records(path):
                if record["status"] == "done":
                    on = ON_CPU if record["provenance"]["device"].startswith("CPU") else ON_GPU
                    known[_kind(record["spec"]), on] = seconds(record)
        except (ValueError, TypeError, KeyError, AttributeError):
            tell(f"{visible(str(path))} has what is no result record: left out")
    return known


def expected(
    spec: dict, known: Known, tflops: float | None = None, on_gpu: bool = False
) -> Expected:
    """How long a run will take: as `recorded_seconds` has it, else an estimate.

    What a GPU took says nothing of a CPU; what a CPU took, more than an estimate of a GPU.

    Args:
        tflops: throughput that an estimate assumes.
        on_gpu: whether a GPU will make it.
    """
    kind = _kind(spec)
    for device in (ON_GPU, ON_CPU) if on_gpu else (ON_CPU,):
        if (kind, device) in known:
            return Expected(known[kind, device], RECORDED.format(device))
    estimated = training_time.seconds(spec, on_gpu, tflops)
    if estimated is None:
        return Expected(None)
    return Expected(estimated, ESTIMATED.format(ON_GPU if on_gpu else ON_CPU))


def seconds(record: dict) -> float:
    """Seconds of a run that was done, loading included."""
    parts = ("train_seconds", "consolidate_seconds", "eval_seconds")
    inside = sum(task[part] for task in record["tasks"] for part in parts)
    started, finished = (
        datetime.fromisoformat(record["provenance"][key]) for key in ("started", "finished")
    )
    return max(inside, (finished - started).total_seconds())  # of the last attempt


def _records(path: Path) -> Iterable[dict]:
    """Of a run, or all that a suite has published."""
    if path.suffix == ".json":
        return [read_json(path)]
    return map(strict_json.parse, reading.lines(path, path.read_bytes()))


def _kind(spec: dict) -> str:
    """What decides the time of a run, but for the method's own settings.

    Digests are left out, as without data or weights there is none; so is what a record that is
    older than an option does not say: the option that is off.
    """
    parts = {
        part: {k: v for k, v in spec[part].items() if k != "digest" and v not in (None, False)}
        for part in ("stream", "backbone", "train")
    }
    return json.dumps([spec["method"]["name"], parts], sort_keys=True)


def duration(seconds: float) -> str:
    """In units that one thinks in: 45 s, 12 min, 3 h 20 min, 270 h."""
    if seconds < 59.5:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes < 600 else f"{minutes / 60:.0f} h"


def wall_seconds(jobs: Iterable[float], at_once: int) -> float:
    """How long jobs take that begin in their order, each as soon as fewer than `at_once` run."""
    ends: list[float] = []
    for job in jobs:
        heapq.heappush(ends, (heapq.heappop(ends) if len(ends) == at_once else 0.0) + job)
    return max(ends, default=0.0)


class Pace:
    """A line for each run that a workflow finishes: its score, and the time left for all.

    What is left is measured by what was made since the workflow began, each run weighed by how long
    it was expected to take, so that neither the speed of the machine nor how many runs go at a time
    need be known.
    """

    def __init__(self, runs: list[PlannedRun], open_runs: list[PlannedRun]):
        self._n_runs, self._open = len(runs), {run.directory: run for run in open_runs}
        self._made, self._start = 0.0, time.monotonic()
        self._expected: dict[str, float] = {}

    def finished(self, run: PlannedRun) -> str | None:
        """The line; None for a run that is still open, or was said to be finished before."""
        if run.directory not in self._open or run.is_open():
            return None
        self._made += self._weights()[run.directory]
        del self._open[run.directory]
        done = f"{self._n_runs - len(self._open)} of {self._n_runs} runs"
        left = ""
        if self._open:
            to_make = sum(self._weights()[directory] for directory in self._open)
            seconds = (time.monotonic() - self._start) * to_make / self._made
            left = f", about {duration(seconds)} left"
        return f"{done}: {run.title}: {outcome(run.recorded())}{left}"

    def _weights(self) -> dict[str, float]:
        """How long each run was expected to take, by its directory; the mean where that is unknown.

        It is asked for when the first run is finished, as not to delay the first.
        """
        if not self._expected:
            times = self._times(recorded_seconds())
            if len({time.basis for time in times.values()}) > 1:  # which do not compare
                times = self._times({})
            known = [time.seconds for time in times.values() if time.seconds]
            mean = sum(known) / len(known) if known else 1.0
            self._expected = {directory: time.seconds or mean for directory, time in times.items()}
        return self._expected

    def _times(self, known: Known) -> dict[str, Expected]:
        return {directory: expected(run.spec, known) for directory, run in self._open.items()}


def outcome(record: dict) -> str:
    """How a run ended, in words: its mean final score, or that it failed."""
    if record["status"] != "done":
        return "failed"
    last = [score for score in record["R"][-1] if score is not None]
    name = "OP" if record["spec"]["modality"] == "language" else "ACC"
    return f"{name} {100 * sum(last) / len(last):.1f} % in {duration(seconds(record))}"
