"""A GPU for each run: Snakemake counts GPUs and does not say which one a run may take."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

from benchmarks.common.errors import DataError

VISIBLE = "CUDA_VISIBLE_DEVICES"
LIMIT = "GPUS"  # of the environment, and of make's command line


def names() -> list[str]:
    """The GPUs that runs may take: those CUDA_VISIBLE_DEVICES names, else all; the first $GPUS.

    Raises:
        DataError: $GPUS is no number from 1 to that of the GPUs.
    """
    if VISIBLE in os.environ:
        listed = [name.strip() for name in os.environ[VISIBLE].split(",") if name.strip()]
        found = listed[: listed.index("-1")] if "-1" in listed else listed  # CUDA stops there
    else:
        found = _installed()
    limit = os.environ.get(LIMIT)
    if not limit:
        return found
    if not (limit.isdigit() and 1 <= int(limit) <= len(found)):
        raise DataError(
            f"{LIMIT} must be a number from 1 to that of the GPUs found, {len(found)}, "
            f"but is {limit!r}: correct it or leave it out"
        )
    return found[: int(limit)]


def _installed() -> list[str]:
    """Indices, from the driver's own tool: torch takes seconds to import, and may start CUDA."""
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split() if done.returncode == 0 else []


def claim(folder: Path | None = None, wait_seconds: float = 1.0) -> IO:
    """Take a free GPU for this process, the only one that CUDA will then see; wait until one is.

    Each GPU has a file in `folder`, locked by the process that uses it. The system releases the
    lock when the process ends, however it ends.

    Args:
        folder: by default one of the user's own in that for temporary files.

    Returns:
        The file, locked as long as it is open.

    Raises:
        DataError: there is no GPU, or no file that is surely this user's.
    """
    found = names()
    if not found:
        raise DataError(
            f"this run was promised a GPU, but there is none (${VISIBLE} is "
            f"{os.environ.get(VISIBLE)!r}): it did not start and lost nothing, run it on another "
            f"machine"
        )
    folder = folder or _own_folder()
    while True:
        for name in found:
            file = _open(folder / f"gpu-{name.replace('/', '-')}.lock")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            os.environ[VISIBLE] = name
            return file
        time.sleep(wait_seconds)


def _own_folder() -> Path:
    """A folder of this user's alone; all users can foresee its name and may have put a link there.

    Raises:
        DataError: it is not the user's alone.
    """
    folder = Path(tempfile.gettempdir()) / f"treelora-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise DataError(f"{folder} cannot be made ({error.strerror}): set TMPDIR") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise DataError(
            f"{folder} must be a folder that you alone may enter, but is "
            f"{stat.filemode(found.st_mode)} of user {found.st_uid}: remove it or set TMPDIR"
        )
    return folder


def _open(path: Path) -> IO:
    """A file to be locked, which follows no link, waits for no pipe and changes no content.

    Raises:
        DataError: it is no file of this user's.
    """
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise DataError(f"{path} cannot be locked ({error.strerror}): remove it") from error
    file, found = os.fdopen(number, "r+b", buffering=0), os.fstat(number)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
        file.close()
        raise DataError(f"{path} is no file of yours, which a lock must be: remove it")
    return file
