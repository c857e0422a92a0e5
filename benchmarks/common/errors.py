"""Input that cannot be used, in one sentence for the user."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from analysis.errors import DataError
from analysis.terminal import flush
from analysis.text import visible


class Postponed(DataError):
    """A run that stopped for no fault of its own, lost nothing, and can be made later or elsewhere.

    A process ends with `EXIT` then, as mail programs do for what is to be tried again.
    """

    EXIT = 75


class FaultyGPU(Postponed):
    """A GPU that was promised does not compute; another one will."""


@contextmanager
def as_exit() -> Iterator[None]:
    """A command ends with the sentence of what stopped it, and no traceback: `@as_exit()`."""
    try:
        yield
    except BrokenPipeError:
        pass
    except (DataError, OSError) as error:
        raise SystemExit(visible(str(error))) from error
    finally:
        flush()


@contextmanager
def one_sentence(found: str, remedy: str) -> Iterator[None]:
    """Whatever a library raises while it reads a user's file becomes "found (reason): remedy"."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # decoders raise thirty kinds, MemoryError among them
        raise DataError(f"{found} ({_reason(error)}): {remedy}") from error


def _reason(error: Exception) -> str:
    """The first line of an error, its kind before it where it says little alone."""
    text = re.sub(r":\s*\n\s*", ": ", str(error).strip())  # the first line may be a heading
    text = text.partition("\n")[0].partition(" <_io.")[0].rstrip(": ")[:200]
    if isinstance(error, OSError | ValueError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
