"""When the allocation ends that runs are made in, so that no task starts that it would cut off."""

from __future__ import annotations

import os
import time
from datetime import datetime

from benchmarks.common.errors import DataError, Postponed
from benchmarks.runs import slurm

MARGIN = 1.2  # of the time that a task is expected to take
SAVING_SECONDS = 30


class Deadline:
    """The end of an allocation, and how long the tasks of its runs have taken.

    Args:
        end: in seconds since 1970, None if there is no end.
    """

    def __init__(self, end: float | None = None):
        self.end = end
        self._seconds: dict[tuple[str, int], float] = {}  # of a row's tasks, by their number

    def note(self, row: str, task: int, seconds: float) -> None:
        """A task has taken so long, and will in the row's other runs, of another seed only."""
        self._seconds[row, task] = seconds

    def is_near(self) -> bool:
        """Whether it is time to save and stop."""
        return self.end is not None and self.end - time.time() < 2 * SAVING_SECONDS

    def check(self, row: str = "", task: int = 0, seconds: float = 0.0) -> None:
        """Call it before a task, with the seconds that it will take if none is noted.

        Raises:
            Postponed: the task would not end in time.
        """
        if self.end is None:
            return
        needed = self._seconds.get((row, task), seconds)
        left = self.end - time.time()
        if left < MARGIN * needed + SAVING_SECONDS:
            raise Postponed(
                f"the allocation ends in {max(0, left):.0f} s, too soon for task {task + 1}, which "
                f"takes about {needed:.0f} s: what was learnt is saved, run it again"
            )


def end_of_allocation() -> float | None:
    """When the Slurm job of this process ends, in seconds since 1970; None outside of one."""
    if end := os.environ.get("SLURM_JOB_END_TIME"):
        return float(end)
    left = slurm.seconds_left()  # a step of a job is told no end, nor is any by older versions
    return None if left is None else time.time() + left


def seconds_since_1970(text: str) -> float:
    """A user's time: such as 2026-03-01T18:00, here or with an offset, or already a number.

    Raises:
        DataError: it is neither.
    """
    try:
        return float(text) if text.isdecimal() else datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise DataError(
            f"DEADLINE is a time such as 2026-03-01T18:00, or seconds since 1970, but is {text!r}"
        ) from error
