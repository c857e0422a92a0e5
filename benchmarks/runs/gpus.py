"""A GPU, or a share of one, for each process: Snakemake counts them and does not say which is free.

GPUs go by the names that their driver gives them for good (UUIDs), whatever the environment calls
them: an index counts from another card in another allocation.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from analysis.terminal import tell
from analysis.text import visible
from benchmarks.common.errors import DataError, FaultyGPU

VISIBLE = "CUDA_VISIBLE_DEVICES"
LIMIT = "GPUS"  # of the environment, and of make's command line
SHARE = "RUNS_PER_GPU"  # likewise
MOST_SHARES = 64
FORGIVEN_SECONDS = 24 * 3600  # after which what was faulty is tried again


def names() -> list[str]:
    """The GPUs that runs may take: those CUDA_VISIBLE_DEVICES names, else all; the first $GPUS.

    Raises:
        DataError: $GPUS is no number from 1 to that of the GPUs.
    """
    installed = _installed()
    found = list(installed.values())
    if VISIBLE in os.environ:
        listed = [name.strip() for name in os.environ[VISIBLE].split(",") if name.strip()]
        listed = listed[: listed.index("-1")] if "-1" in listed else listed  # CUDA stops there
        found = list(dict.fromkeys(_uuid(name, installed) for name in listed))
    if not os.environ.get(LIMIT):
        return found
    return found[: _number(LIMIT, len(found), "that of the GPUs found")]


def slots() -> dict[str, str]:
    """Slot -> GPU, a slot for each process that may use one at a time: $RUNS_PER_GPU on each.

    Raises:
        DataError: $GPUS or $RUNS_PER_GPU is no such number.
    """
    found = names()
    return {f"{gpu}-{share}" if share else gpu: gpu for share in range(shares()) for gpu in found}


def shares() -> int:
    """How many processes share a GPU: $RUNS_PER_GPU, one if that is not set. (Of `auto` make makes
    a number, see `forecast.runs_per_gpu`.)"""
    if not os.environ.get(SHARE):
        return 1
    return _number(SHARE, MOST_SHARES, "the most processes on a GPU")


def _number(variable: str, most: int, what: str) -> int:
    value = os.environ[variable]
    if not (value.isdigit() and 1 <= int(value) <= most):
        raise DataError(
            f"{variable} must be a number from 1 to {what}, {most}, but is {value!r}: correct it "
            f"or leave it out"
        )
    return int(value)


def _installed() -> dict[str, str]:
    """Index -> UUID, from the driver's own tool: torch takes seconds to import, and starts CUDA."""
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    if done.returncode:
        return {}
    return dict(re.findall(r"^(\d+), *(\S+)$", done.stdout, re.MULTILINE))


def _uuid(name: str, installed: dict[str, str]) -> str:
    """A GPU that the environment names by its index or by the beginning of its UUID."""
    if name in installed:
        return installed[name]
    return next((uuid for uuid in installed.values() if uuid.startswith(name)), name)


def claim() -> IO:
    """Take a free slot for this process, whose GPU is the only one that CUDA will then see.

    Each slot has a file in a folder of the user's own, the same for all jobs on this machine,
    locked by the process that uses it, which it names. The system releases the lock when the
    process ends, however it ends. As long as none is free it waits, and says once for whom.
    GPUs that were faulty are left out as long as there are others.

    Returns:
        The file, locked as long as it is open.

    Raises:
        FaultyGPU: there is no GPU.
        DataError: there is no file that is surely this user's.
    """
    found = slots()
    if not found:
        raise FaultyGPU(
            f"this run was promised a GPU, but there is none (${VISIBLE} is "
            f"{os.environ.get(VISIBLE)!r}): it did not start and lost nothing, run it on another "
            f"machine"
        )
    folder = _own_folder()
    waiting = False
    while True:
        holders = []
        for slot, gpu in _sound(found, folder).items():
            file = _open(folder / f"gpu-{slot.replace('/', '-')}.lock")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holders.append(file.read(200).decode(errors="replace").strip())
                file.close()
                continue
            _sign(file)
            os.environ[VISIBLE] = gpu
            return file
        if not waiting:
            tell(f"waits for a GPU, taken by {visible(', '.join(holders))}")
            waiting = True
        time.sleep(1)


def note_faulty() -> None:
    """The GPU that this process has claimed is left out for a day, or until its file is deleted."""
    path = _fault(_own_folder(), os.environ[VISIBLE])
    with _open(path) as file:
        os.utime(file.fileno())
    tell(f"other runs leave this GPU out for a day: delete {path} to let them take it")


def _fault(folder: Path, gpu: str) -> Path:
    return folder / f"gpu-{gpu.replace('/', '-')}.faulty"


def _sound(found: dict[str, str], folder: Path) -> dict[str, str]:
    """The slots of GPUs that were not faulty of late, or all if there are none."""
    since, faulty = time.time() - FORGIVEN_SECONDS, set()
    for gpu in set(found.values()):
        with suppress(FileNotFoundError):
            if _fault(folder, gpu).stat().st_mtime > since:
                faulty.add(gpu)
    return {slot: gpu for slot, gpu in found.items() if gpu not in faulty} or found


def _sign(file: IO) -> None:
    """Say in a slot's file whose it is, but in none that has another name as well."""
    if os.fstat(file.fileno()).st_nlink > 1:
        return
    job = os.environ.get("SLURM_JOB_ID")
    file.truncate(0)
    file.write(f"process {os.getpid()}{f' of job {job}' if job else ''}\n".encode())


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
