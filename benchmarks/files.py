"""Files that survive interruption, and seeds and digests that name things."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

DATA_DIR_VARIABLE = "TREELORA_DATA"


class DataError(ValueError):
    """Input that cannot be used; the message is one sentence for the user."""


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
