"""What the user is told is one line of plain text, whatever was wrong."""

import os
import struct
import subprocess
import sys

import pytest

from benchmarks.common.errors import DataError, as_exit, one_sentence


def test_a_sentence_is_one_line_that_does_nothing_to_a_terminal():
    assert str(DataError("the file\n'\033[2J' is\u2028broken")) == r"the file '\x1b[2J' is broken"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "MemoryError"),
        (KeyError("x"), "KeyError: 'x'"),
        (struct.error("\033[2J"), r"error: \x1b[2J"),
        (EOFError(), "EOFError"),
        (ValueError("Traceback:\n  the cause\nmore"), "Traceback: the cause"),
        (OSError("cannot identify <_io.BytesIO at 0x1>"), "cannot identify"),
        (ValueError("x" * 999), "x" * 200),
    ],
)
def test_whatever_a_library_raises_is_one_sentence(error, reason):
    with pytest.raises(DataError) as caught, one_sentence("a.png is no image", "remove it"):
        raise error
    assert str(caught.value) == f"a.png is no image ({reason}): remove it"
    with pytest.raises(DataError, match="^as it is$"), one_sentence("not this", "nor that"):
        raise DataError("as it is")


@pytest.mark.parametrize("error", [DataError("the cause\n"), OSError(13, "the cause")])
def test_a_command_ends_with_the_sentence(error):
    with pytest.raises(SystemExit, match="the cause") as end, as_exit():
        raise error
    assert str(end.value).isprintable()


@pytest.mark.parametrize("n", [1, 10**6])  # of which the first is written at the end
def test_a_reader_that_has_seen_enough_is_no_error(n):
    code = f"from benchmarks.common.errors import as_exit\nwith as_exit(): print('x' * {n})"
    command = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONUNBUFFERED": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    command.stdout.close()
    assert command.stderr.read() == b"" and command.wait() == 0


def test_work_goes_on_where_nobody_reads_its_progress():
    code = "from benchmarks.common.progress import Progress\n"
    code += "for step in range(3): Progress('a run', 3, 'steps').say(str(step))\nprint('done')"
    read, written = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=written)
    os.close(written)
    assert done.returncode == 0 and done.stdout == b"done\n"
