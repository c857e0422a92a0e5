"""Lines about long work."""

import pytest

from benchmarks.common import progress as module
from benchmarks.common.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    clock = {"now": 0.0}
    monkeypatch.setattr(module.time, "monotonic", lambda: clock["now"])
    return clock


def test_a_line_says_how_far_how_fast_and_how_long_still(clock, capsys):
    progress = Progress("file", 4.0, "MB", done=1.0)
    for clock["now"] in (10.0, 20.0):
        progress.advance(1.0)
    assert capsys.readouterr().err.splitlines() == [
        "file: 2.0 of 4.0 MB, 0.1 MB/s, about 20 s left",
        "file: 3.0 of 4.0 MB, 0.1 MB/s, about 10 s left",
    ]


def test_without_a_total_there_is_no_time_left(clock, capsys):
    progress, clock["now"] = Progress("file", None, "MB"), 10.0
    progress.advance(5.0)
    assert capsys.readouterr().err == "file: 5.0 MB, 0.5 MB/s\n"


def test_the_time_between_two_stretches_does_not_count(clock, capsys):
    progress = Progress("run", 100, "steps")
    for start, end in ((0.0, 10.0), (500.0, 510.0)):
        clock["now"] = start
        progress.start("task:")
        clock["now"] = end
        progress.advance(10, lambda: "loss 1")
    assert capsys.readouterr().err.splitlines()[-1] == (
        "run: task: 20 of 100 steps, loss 1, 1.0 steps/s, about 80 s left"
    )


def test_a_log_file_gets_a_line_every_ten_seconds_and_the_last(clock, capsys):
    progress, asked = Progress("run", 50, "steps"), []
    for clock["now"] in range(1, 51):
        progress.advance(note=lambda: asked.append(1) or "")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(asked) == 5 and lines[-1].startswith("run: 50 of 50 steps")
