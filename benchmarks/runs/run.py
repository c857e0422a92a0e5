"""Runs leave their records.

`python -m benchmarks.runs.run SPEC.json ...` makes runs one after the other and saves the record of
each beside its spec, as result-CODE.json. CODE stands for the code behind its numbers, see
`runs.sources`. State is saved after each task, so a run that was killed continues there and ends
with the same R; it starts over if its code has changed. A run that fails leaves a record that says
why, its traceback in log.txt, and the others go on; one that has a record already is left as it is,
and one that another process makes is waited for. Where the GPU is at fault, or the allocation ends
before the next task would, the exit status is 75: nothing is lost, the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import torch

from analysis.terminal import say, tell
from analysis.text import visible
from benchmarks.common import devices
from benchmarks.common.errors import DataError, FaultyGPU, Postponed
from benchmarks.common.files import check_writable, read_json, write_bytes
from benchmarks.runs import gpus, kept, lease, slurm, sources
from benchmarks.runs.deadline import Deadline, end_of_allocation, seconds_since_1970
from benchmarks.runs.kept import Keep
from benchmarks.runs.learning import Run
from benchmarks.runs.record import is_committed, now, provenance, read_record, write_record


def make(spec_path: Path, deadline: Deadline | None = None, state_minutes: float = 0) -> dict:
    """Make or finish a run and save its record beside its spec, under the version of its code.

    Raises:
        Postponed: the GPU is at fault, or the time does not suffice for the next task.
        DataError: the spec or an existing record is corrupt, or nothing could be saved.
        ValueError: the method's file cannot be loaded.
    """
    deadline = deadline or Deadline()
    asked = read_json(spec_path)
    if not isinstance(asked, dict) or not {"spec", "key"} <= asked.keys():
        raise DataError(f"{spec_path} is no spec of a run: delete it and run again")
    spec, key, folder = asked["spec"], asked["key"], spec_path.parent
    code = sources.of(spec)
    path = folder / f"result-{sources.version(code)}.json"
    keep = asked.get("keep", [])
    if record := _made(path, key, keep):
        tell(f"{path} is there already")
        return record
    check_writable(folder)

    def wait() -> None:
        deadline.check()
        time.sleep(1)

    with lease.hold(folder, wait) as check_lease:
        if record := _made(path, key, keep):  # by whom it was waited for
            return record
        if path.exists():
            absent = kept.missing(path, read_record(path, key), keep)
            tell(f"{path} is made again, to keep {' and '.join(absent)}")
        return _make(spec, key, code, path, keep, deadline, check_lease, state_minutes)


def _made(path: Path, key: str, keep: Collection[Keep]) -> dict | None:
    """The record of a run, if that and all it is to keep are there."""
    record = read_record(path, key) if path.exists() else None
    return None if record is None or kept.missing(path, record, keep) else record


def _make(
    spec: dict,
    key: str,
    code: dict[str, str],
    path: Path,
    keep: Collection[Keep],
    deadline: Deadline,
    before_save: Callable[[], None],
    state_minutes: float,
) -> dict:
    folder = path.parent
    facts = provenance() | {"sources": code, "threads": torch.get_num_threads(), "started": now()}
    facts["dirty"] |= not all(map(is_committed, sources.files(spec)))
    outcome = {"status": "done", "error": None}
    devices.release()  # what the run before it in this process has left
    state_path = folder / f"state-{sources.version(code)}.pt"
    run = Run(spec, key, state_path, keep, deadline, before_save, state_minutes)
    for path_of_other_code in set(folder.glob("inside*.pt")) - {run.inside_path}:
        path_of_other_code.unlink()
    for state in set(folder.glob("state*.pt")) - {run.state_path}:
        tell(f"{folder} starts over: its code has changed since {state.name}")
        state.unlink()
        state.with_suffix(".jsonl.gz").unlink(missing_ok=True)
    (folder / lease.ATTEMPT).write_text(run.device)
    try:
        run.make()
        write_bytes(kept.predictions(path), run.predictions().pack())
    except Postponed:
        (folder / lease.ATTEMPT).unlink(missing_ok=True)
        raise
    except Exception as error:
        if devices.is_fault(error):
            reason = str(error).strip().partition("\n")[0]
            raise FaultyGPU(
                f"{folder} stopped, as the GPU is at fault ({reason}): what was learnt is saved, "
                f"run it again, on another machine if this comes again"
            ) from error
        text = " ".join(str(error).split())[:1800] or "no message"
        if not isinstance(error, DataError):
            text = f"{type(error).__name__}: {text}{_where(error, sources.files(spec))}"
        log = folder / "log.txt"
        trace = "\n".join(visible(line) for line in traceback.format_exc().splitlines())
        with suppress(OSError), open(log, "a", encoding="utf-8") as file:
            file.write(f"{now()}\n{trace}\n\n")
        say(f"{folder} failed: {visible(text)} (see {log})")
        outcome = {"status": "failed", "error": text}
    before_save()
    if (
        outcome["status"] == "failed"
        and path.exists()
        and read_record(path, key)["status"] == "done"
    ):
        raise DataError(f"{folder} failed when it was made again, and its record stays")
    if len(tries := run.record.pop("tries")) > 1:
        facts["tries"] = tries
    facts |= run.record.get("provenance", {}) | {"finished": now()}
    write_record(path, outcome | {"key": key, "spec": spec} | run.record | {"provenance": facts})
    (folder / lease.ATTEMPT).unlink(missing_ok=True)
    if outcome["status"] == "done":
        run.state_path.unlink(missing_ok=True)
        run.answers_path.unlink(missing_ok=True)
        run.inside_path.unlink(missing_ok=True)
    return read_record(path, key)


def _comes_last(spec_path: Path) -> bool:
    """Whether another process makes the run, or one that made it did not survive it."""
    folder = spec_path.parent
    return (folder / lease.ATTEMPT).exists() or lease.is_held(folder)


def _where(error: Exception, files: Collection[Path]) -> str:
    """The last line of the project's or of the user's own code that an error went through."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file in files or (sources.of_checkout(file) and file.is_file()):
            return f" ({sources.place(file)}:{frame.lineno}, in {frame.name})"
    return ""


def _require_gpu(failed: bool) -> None:
    """Postponed if there is none that works; it is not at fault if a run before has failed, whose
    error may have left it unusable for this process."""
    try:
        devices.require_gpu()
    except FaultyGPU as error:
        if failed:
            raise Postponed(
                "a run that failed has left this process without a GPU: the others lost nothing, "
                "run the same command again"
            ) from error
        raise


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "specs", type=Path, nargs="+", metavar="SPEC.json", help="that PlannedRun.write_spec made"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument(
        "--own-gpu", action="store_true", help="take a GPU that no other run has, or wait for one"
    )
    parser.add_argument(
        "--gpus", type=int, default=0, metavar="N", help="that the scheduler has given (default 0)"
    )
    parser.add_argument(
        "--deadline",
        type=seconds_since_1970,
        metavar="TIME",
        help="stop before, as before the Slurm job ends, with what was learnt of a task saved, or "
        "without --state-minutes with no task begun that would not end",
    )
    parser.add_argument(
        "--state-minutes",
        type=float,
        default=15,
        metavar="N",
        help="save the state inside a task every so many minutes, 0 for never (default 15)",
    )
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # gives leases back
    torch.set_num_threads(options.threads)
    left, failed, own = [], False, None
    try:
        until = Deadline(min(filter(None, (options.deadline, end_of_allocation())), default=None))
        several = options.gpus and len(gpus.names()) > 1  # those of a group of jobs
        own = gpus.claim() if options.own_gpu or several else None  # held until the process ends
        for path in sorted(options.specs, key=_comes_last):
            if own or options.gpus or devices.find() == "cuda":
                _require_gpu(failed)
            try:
                failed |= make(path, until, options.state_minutes)["status"] == "failed"
            except Postponed:
                raise
            except ValueError as error:  # a DataError, or of the method's file
                tell(visible(str(error)))
                left.append(path)
    except Postponed as error:
        if isinstance(error, FaultyGPU):
            slurm.note_faulty_node()
            if own:
                gpus.note_faulty()
        tell(str(error))
        raise SystemExit(Postponed.EXIT) from error
    except DataError as error:
        raise SystemExit(str(error)) from error
    if left:
        raise SystemExit(f"{len(left)} of {len(options.specs)} runs could not be made, see above")


if __name__ == "__main__":
    main()
