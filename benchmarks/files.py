"""Files that survive interruption, and seeds and digests that name things."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DATA_DIR_VARIABLE = "TREELORA_DATA"


class DataError(ValueError):
    """Input that cannot be used; the message is one sentence for the user."""


@contextmanager
def one_sentence(say: Callable[[str], str]) -> Iterator[None]:
    """Whatever a library raises while it reads a user's file becomes a DataError.

    Args:
        say: makes the sentence out of a short reason.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # decoders raise thirty kinds, MemoryError among them
        raise DataError(say(_reason(error))) from error


def _reason(error: Exception) -> str:
    """The first line of an error, its kind before it where it says little alone."""
    text = str(error).partition("\n")[0].partition(" <_io.")[0].rstrip(": ")[:200]
    text = re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: ascii(found[0])[1:-1], text)
    if isinstance(error, OSError | ValueError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def require_plain(path: Path) -> None:
    """DataError for what is no file; a pipe would be waited for, a device never ends.

    Raises:
        OSError: there is nothing.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError(f"{path} is a folder, a pipe, a socket or a device, no file: remove it")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; an older version survives a failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(
            f"{path} could not be saved ({error.strerror}): make room and run again, "
            f"nothing that was saved before is lost"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys sorted, no NaN."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON; DataError names a corrupt or missing file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: run make replicate, which makes it") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid JSON ({error}): delete it and run again") from error


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    return digest_of_file(path, "sha256")


def digest_of_file(path: Path, algorithm: str) -> str:
    """Hex digest of a file's content by one of hashlib's algorithms."""
    require_plain(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def digest_of(value: Any) -> str:
    """Hex digest of a JSON value, independent of key order."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def seed_for(seed: int, *scope: str | int) -> int:
    """A seed of its own for each purpose, so that none depends on what was drawn elsewhere."""
    text = "/".join(str(part) for part in (seed, *scope))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def add_data_dir_option(parser: argparse.ArgumentParser) -> None:
    """`--data-dir`, or the environment variable TREELORA_DATA."""
    default = data_dir()
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=default,
        help=f"folder searched before any download (default: ${DATA_DIR_VARIABLE})",
    )


def data_dir() -> Path | None:
    """The data directory of the environment; None if there is none."""
    value = os.environ.get(DATA_DIR_VARIABLE)
    return Path(value) if value else None
