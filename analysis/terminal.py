"""What commands say on a terminal: columns, an end in one sentence, no word on a closed pipe."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from functools import wraps
from typing import TextIO

from analysis.text import visible


def columns(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows under their keys, the columns with numbers to the right; nothing if there are none."""
    if not rows:
        return ""
    table = [list(rows[0]), *(list(map(visible, row.values())) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    right = [bool(re.match(r"[+−~-]?\d", column[1])) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in table
    )


def say(*lines: object) -> None:
    """Print lines; a reader that has closed the pipe, such as head, has seen enough."""
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:
        _to_nobody(sys.stdout)


def tell(line: str, end: str = "\n") -> None:
    """Print a line on standard error; work goes on where its terminal or log is gone or full."""
    try:
        print(line, end=end, file=sys.stderr, flush=True)
    except OSError:
        _to_nobody(sys.stderr)


def flush() -> None:
    """Write out what was printed, likewise."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _to_nobody(sys.stdout)


def _to_nobody(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def ends_in_one_sentence(main: Callable[..., int]) -> Callable[..., int]:
    """A command that cannot go on says why in one sentence, and returns 2."""

    @wraps(main)
    def command(*arguments: list[str] | None) -> int:
        try:
            return main(*arguments)
        except BrokenPipeError:
            return 0
        except OSError as error:
            said = f"{error.filename}: {error.strerror}; what was there is kept."
        except ValueError as error:
            said = str(error)
        except BrokenExecutor:
            said = "A process that drew was killed: is there too little memory?"
        finally:
            flush()
        tell(visible(said))
        return 2

    return command
