"""A lease on a run's folder, so that no two processes make the same run, on whatever hosts.

The lease is the file `lease-N.json` with the highest N, and says who holds it. The next holder
creates N + 1, which the file system grants to one process only, over NFS as well, where a lock may
not reach another host. A holder lives as long as its process where that can be seen from here;
elsewhere as long as it touches its file, by the clock of the file system alone.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from analysis.terminal import tell
from analysis.text import visible
from benchmarks.common.errors import DataError, Postponed
from benchmarks.common.files import read_json

TOUCH_SECONDS = 30
STALE_SECONDS = 300  # hosts may see a touched file a minute late
# In the folder of a run while a process makes it; one that the process did not survive goes last of
# its row the next time, so that what kills it does not keep the others from being made.
ATTEMPT = "attempted"


@contextmanager
def hold(folder: Path, wait: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Hold the lease of a folder; while another process does, say so once and wait.

    Args:
        wait: called again and again meanwhile, and may raise to wait no longer.

    Yields:
        What to call before anything is saved: it raises Postponed where the lease is lost, as this
        process was away for so long that another one has taken over.
    """
    said = False
    while (own := _take(folder)) is None:
        if not said:
            holder = visible(_holder(folder))
            tell(f"{folder} is being made by {holder}: waits for it")
            said = True
        wait()

    def check() -> None:
        if not own.exists() or _latest(folder) != own:
            raise Postponed(f"{folder} was taken over by {_holder(folder)}: left to it")

    done = threading.Event()
    threading.Thread(target=_touch, args=(own, done), daemon=True).start()
    try:
        yield check
    finally:
        done.set()
        if _latest(folder) == own:
            for path in sorted(folder.glob("lease-*.json"), key=_number, reverse=True):
                path.unlink(missing_ok=True)


def is_held(folder: Path) -> bool:
    """Whether a process that lives holds the lease of a folder."""
    latest = _latest(folder)
    return latest is not None and _lives(latest)


def _take(folder: Path) -> Path | None:
    """The next lease, now this process's own; None if another process holds it."""
    latest = _latest(folder)
    if latest and _lives(latest):
        return None
    own = folder / f"lease-{_number(latest) + 1 if latest else 1}.json"
    holder = {
        "host": platform.node(),
        "machine": _machine(),
        "process": os.getpid(),
        "started": _started(os.getpid()),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }
    try:
        with open(own, "x", encoding="utf-8") as file:
            json.dump(holder, file)
    except FileExistsError:
        return None
    except OSError as error:
        own.unlink(missing_ok=True)
        raise DataError(
            f"{own} could not be saved ({error.strerror}): make room and run again"
        ) from error
    if _latest(folder) != own:  # the one seen was given back, and another taken since
        own.unlink()
        return None
    return own


def _latest(folder: Path) -> Path | None:
    return max(folder.glob("lease-*.json"), key=_number, default=None)


def _number(path: Path) -> int:
    number = path.stem.removeprefix("lease-")
    return int(number) if number.isdecimal() else 0


def _lives(lease: Path) -> bool:
    holder = _read(lease)
    if _machine() and holder.get("machine") == _machine():
        return _started(holder.get("process")) == holder.get("started") is not None
    try:
        with tempfile.TemporaryFile(dir=lease.parent) as now:
            seconds = os.fstat(now.fileno()).st_mtime - lease.stat().st_mtime
    except FileNotFoundError:  # given back this moment
        return False
    return seconds < STALE_SECONDS


def _read(lease: Path) -> dict:
    """What a lease says; nothing while it is being written, or if it is damaged."""
    with suppress(DataError):
        found = read_json(lease)
        return found if isinstance(found, dict) else {}
    return {}


def _holder(folder: Path) -> str:
    """Who holds the lease, in words."""
    latest = _latest(folder)
    found = _read(latest) if latest else {}
    job = f" (Slurm job {found['slurm_job']})" if found.get("slurm_job") else ""
    return f"process {found.get('process')} on {found.get('host')}{job}" if found else "another one"


def _machine() -> str | None:
    """Equal where processes see each other: this boot of this host, in this container."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return None


def _started(process: object) -> str | None:
    """When a living process started, in ticks since boot, for the system uses numbers again."""
    with suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]  # dead, but not yet waited for
    return None


def _touch(lease: Path, done: threading.Event) -> None:
    while not done.wait(TOUCH_SECONDS):
        with suppress(OSError):
            os.utime(lease)
