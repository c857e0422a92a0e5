"""Files that survive interruption, and JSON in them."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from analysis import strict_json
from benchmarks.common.errors import DataError

ROOT = Path(__file__).parents[2]  # of the checkout


def require_plain(path: Path) -> None:
    """DataError for what is no file; a pipe would be waited for, a device never ends.

    Raises:
        OSError: there is nothing.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError(f"{path} is a folder, a pipe, a socket or a device, no file: remove it")


def expanded(path: str) -> Path:
    """A path as the user writes it, with ~ for a home; DataError if there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path} begins with the home of nobody known: write it out") from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; an older version survives a failure."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise DataError(
            f"{path} could not be saved ({error.strerror}): make room and run again, "
            f"nothing that was saved before is lost"
        ) from error


def as_json(value: Any) -> bytes:
    """JSON, keys sorted, no NaN."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return f"{text}\n".encode()


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    write_bytes(path, as_json(value))


def check_writable(*folders: str | Path) -> None:
    """DataError if nothing can be saved in one of the folders, before hours of work show it."""
    for folder in folders:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise DataError(
                f"nothing can be saved in {Path(folder).resolve()} ({error.strerror}): make the "
                f"folder writable, or work in a copy that is"
            ) from error


def read_json(path: Path) -> Any:
    """Read JSON; DataError names a corrupt or missing file."""
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is no file: remove it and run again")
    try:
        return strict_json.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: run make replicate, which makes it") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): correct that first") from error
    except ValueError as error:  # of JSON or of UTF-8
        raise DataError(f"{path} is not valid JSON ({error}): delete it and run again") from error
