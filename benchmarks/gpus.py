"""A GPU for each run: Snakemake counts GPUs and does not say which one a run may take."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

from benchmarks.files import DataError

VISIBLE = "CUDA_VISIBLE_DEVICES"
LIMIT = "GPUS"  # of the environment, and of make's command line


def names() -> list[str]:
    """The GPUs that runs may take: those CUDA_VISIBLE_DEVICES names, else all; the first $GPUS.

    Raises:
        DataError: $GPUS is no number from 1 to that of the GPUs.
    """
    if VISIBLE in os.environ:
        found = [name.strip() for name in os.environ[VISIBLE].split(",") if name.strip()]
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


def claim(folder: Path | None = None, wait_seconds: float = 1.0) -> IO | None:
    """Take a free GPU for this process, the only one that CUDA will then see; wait until one is.

    Each GPU has a file in `folder` (that for temporary files), locked by the process that uses it.
    The system releases the lock when the process ends, however it ends.

    Returns:
        The file, locked as long as it is open; None on a machine without GPUs.
    """
    found = names()
    folder = folder or Path(tempfile.gettempdir())
    while found:
        for name in found:
            slot = f"treelora-{os.getuid()}-gpu-{name.replace('/', '-')}.lock"
            file = open(folder / slot, "w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            os.environ[VISIBLE] = name
            return file
        time.sleep(wait_seconds)
    return None
