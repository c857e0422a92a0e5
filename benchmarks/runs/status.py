"""What of a suite is done, and how long the rest takes.

`python -m benchmarks.runs.status SUITE` prints it. Times are of recorded runs of the same method
on the same stream, backbone and training settings, here or published. Where there is none, GPU
hours are estimated from operations (`costs.training_time`) and marked by ~; a dash is neither. A
run in the paper's own setting names the tables of which it fills a cell. What a language model from
outside takes in memory (`costs.memory`) stands beside, and of what does not fit, what would.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from analysis.records.counterparts import cells
from analysis.text import visible
from benchmarks import backbones
from benchmarks.common import devices
from benchmarks.common.data_dir import add_data_dir_option
from benchmarks.common.errors import DataError, as_exit
from benchmarks.common.files import parse_json, read_json
from benchmarks.costs import memory, training_time
from benchmarks.runs import slurm
from benchmarks.runs.plan import RUNS, Plan, load_plan
from benchmarks.runs.record import PUBLISHED, read_record

STATUSES = ("done", "failed", "outdated", "started", "open")


def recorded_seconds() -> dict[str, float]:
    """Seconds of recorded runs by what decides them, loading included; the last one counts.

    A record that cannot be read is another suite's, as this suite's were read for their status: it
    is named on stderr and left out.
    """
    known = {}
    damaged = set()
    for path, read in _records():
        try:
            record = read()
            if record["status"] == "done":
                known[_kind(record["spec"])] = seconds(record)
        except (ValueError, TypeError, KeyError, AttributeError):
            damaged.add(path)
    for path in sorted(damaged):
        print(f"{visible(str(path))} has what is no result record: left out", file=sys.stderr)
    return known


def expected(spec: dict, known: dict[str, float], tflops: float | None = None) -> _Time:
    """How long a run will take, by `recorded_seconds` or an estimate."""
    recorded = known.get(_kind(spec))
    return _Time(recorded, None if recorded is not None else training_time.seconds(spec, tflops))


def seconds(record: dict) -> float:
    """Seconds of a run that was done, loading included."""
    parts = ("train_seconds", "consolidate_seconds", "eval_seconds")
    inside = sum(task[part] for task in record["tasks"] for part in parts)
    started, finished = (
        datetime.fromisoformat(record["provenance"][key]) for key in ("started", "finished")
    )
    return max(inside, (finished - started).total_seconds())  # of the last attempt


def _records() -> Iterator[tuple[Path, Callable[[], dict]]]:
    """The file of each record, and how to read it."""
    for path in sorted(PUBLISHED.glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            yield path, partial(parse_json, line)
    for path in sorted(RUNS.glob("*/*/*/result*.json")):
        yield path, partial(read_json, path)


def _kind(spec: dict) -> str:
    parts = {name: spec[name] for name in ("stream", "backbone", "train")}
    # a record may be older than an option that is off
    parts["train"] = {k: v for k, v in spec["train"].items() if v not in (None, False)}
    return json.dumps([spec["method"]["name"], parts], sort_keys=True)


def describe(
    plan: Plan,
    brief: bool = False,
    each: bool = False,
    tflops: float | None = None,
    at_once: int = 1,
) -> str:
    """The plan as text.

    Args:
        brief: only counts, and why runs failed.
        each: a line for each run, not for each method.
        tflops: throughput that estimates assume.
        at_once: runs that are made at a time.
    """
    statuses = [run.status() for run in plan.runs]
    counts = ", ".join(f"{statuses.count(s)} {s}" for s in STATUSES if s in statuses)
    lines = [f"suite {plan.name}: {visible(plan.label)}", f"{len(plan.runs)} runs: {counts}"]
    lines += [*_outdated(plan), *_not_kept(plan)]
    if brief:
        for run, status in zip(plan.runs, statuses, strict=True):
            if status == "failed":
                record = read_record(Path(run.record), run.key)
                lines.append(f"  failed: {run.directory}: {visible(record['error'])}")
                log = Path(run.directory) / "log.txt"
                lines += [f"    traceback: {log}"] if log.exists() else []
        report = Path("results") / plan.name / "report/index.html"
        if report.exists():
            lines.append(f"report: {report}")
        return "\n".join(lines)
    known = recorded_seconds()
    groups: dict[str, dict[str, list]] = {}
    for run, status in zip(plan.runs, statuses, strict=True):
        time = expected(run.spec, known, tflops)
        label = run.label
        groups.setdefault(_experiment(run.spec), {}).setdefault(label, []).append(
            (run, status, time)
        )
    everything = []
    for name, methods in groups.items():
        lines.append(f"{name}:")
        for label, entries in methods.items():
            if each:
                lines += [f"  {status:8}{time}  {run.directory}" for run, status, time in entries]
            else:
                done = sum(status == "done" for _, status, _ in entries)
                count = f"{done} of {len(entries)} done"
                run, _, time = entries[0]
                line = f"  {label:28}{count:>14}{time} each  {_size(run.spec)}{_fills(run.spec)}"
                lines.append(line.rstrip())
        together = [entry for entries in methods.values() for entry in entries]
        everything += together
        if len(groups) > 1:
            lines.append(f"  to do: {_left(together)}")
    lines += [f"  skipped: {run.directory}: {run.skip}" for run in plan.skipped]
    lines.append(f"to do, one run after the other: {_left(everything)}")
    if at_once > 1:
        lines.append(f"to do, {at_once} runs at once: {_wall(everything, at_once)}")
    if any(time.estimated for _, _, time in everything):
        lines.append(training_time.basis(tflops))
    return "\n".join(lines)


def _outdated(plan: Plan) -> list[str]:
    """For each file that has changed since runs were made, how many those are."""
    outdated = [run for run in plan.runs if run.earlier() and not Path(run.record).exists()]
    changed = Counter(file for run in outdated for file in run.changed())
    return [
        f"  {visible(file)} changed since {n} runs were made: they are made anew"
        for file, n in sorted(changed.items())
    ]


def _not_kept(plan: Plan) -> list[str]:
    """For what `keep` asks for, how many runs are open for want of it alone."""
    lacking = Counter(what for run in plan.runs for what in run.not_kept())
    return [
        f"  {what}, asked for by keep, is not kept by {n} runs that are done: they are made anew"
        for what, n in sorted(lacking.items())
    ]


@dataclass(frozen=True)
class _Time:
    """Seconds of a run: recorded, or else estimated, or else unknown."""

    recorded: float | None
    estimated: float | None = None

    @property
    def seconds(self) -> float | None:
        return self.estimated if self.recorded is None else self.recorded

    def __str__(self) -> str:
        if self.seconds is None:
            return f"{'-':>13}"
        return f"{'' if self.recorded is not None else '~'}{duration(self.seconds)}".rjust(13)


def duration(seconds: float) -> str:
    """In units that one thinks in: 45 s, 12 min, 3 h 20 min, 270 h."""
    if seconds < 59.5:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes < 600 else f"{minutes / 60:.0f} h"


def _experiment(spec: dict) -> str:
    """Stream and backbone as one line."""
    stream, size = spec["stream"], spec["backbone"]["image_size"]
    pixels = f" at {size} px" if size else ""
    return f"{stream['name']}, {stream['n_tasks']} tasks, {spec['backbone']['name']}{pixels}"


def _fills(spec: dict) -> str:
    """The paper's tables of which the run repeats a cell."""
    exhibits = dict.fromkeys(exhibit for exhibit, _, _ in cells(spec))
    return ", ".join(exhibit.replace("table", "Table ") for exhibit in exhibits)


def _left(entries: list[tuple]) -> str:
    """What is not done, as recorded, as estimated and of unknown length."""
    times = [time for _, status, time in entries if status != "done"]
    recorded = [time.recorded for time in times if time.recorded is not None]
    estimated = [time.estimated for time in times if time.estimated is not None]
    unknown = len(times) - len(recorded) - len(estimated)
    parts = []
    if recorded:
        parts.append(f"{len(recorded)} runs of {duration(sum(recorded))} as recorded")
    if estimated:
        parts.append(f"{len(estimated)} runs of ~{duration(sum(estimated))} of a GPU as estimated")
    if unknown:
        parts.append(f"{unknown} runs of unknown length")
    return ", ".join(parts) or "nothing"


def _wall(entries: list[tuple], at_once: int) -> str:
    """How long what is not done takes if so many runs are made at a time."""
    times = [time.seconds for _, status, time in entries if status != "done"]
    known = [seconds for seconds in times if seconds is not None]
    least = "at least " if len(known) < len(times) else "about "
    return least + duration(max(sum(known) / at_once, max(known, default=0)))


def _may_be_large(spec: dict) -> bool:
    return isinstance(backbones.find(spec["backbone"]["name"]), backbones.CausalModel)


def _size(spec: dict) -> str:
    """Memory that the run is estimated to take, where that matters."""
    if not _may_be_large(spec):
        return ""
    return f"{memory.gib(memory.estimate(spec).total):>6} GiB  "


def too_large(plan: Plan, available: int) -> list[str]:
    """Of each row whose open runs do not fit into that many bytes, why and what would."""
    rows = {
        (_experiment(run.spec), run.label): run
        for run in plan.runs
        if _may_be_large(run.spec) and run.is_open()
    }
    refused = {row: memory.refuse(run.spec, available) for row, run in rows.items()}
    return [f"{label} on {where}: {why}" for (where, label), why in refused.items() if why]


@as_exit()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", help="a suite's name, or the path of a suite file")
    parser.add_argument("--brief", action="store_true", help="only counts, and why runs failed")
    parser.add_argument(
        "--complete", action="store_true", help="as --brief, and fail unless all runs are done"
    )
    parser.add_argument("--runs", action="store_true", help="a line for each run")
    parser.add_argument(
        "--tflops", type=float, metavar="N", help="throughput assumed where nothing is recorded"
    )
    parser.add_argument(
        "--at-once", type=int, default=1, metavar="N", help="runs made at a time (GPUs, or cores)"
    )
    parser.add_argument(
        "--gib", type=float, metavar="N", help="memory of the device; else that of this machine's"
    )
    parser.add_argument(
        "--profile", type=Path, help="of Snakemake: whether its scheduler would take the jobs"
    )
    add_data_dir_option(parser)
    o = parser.parse_args()
    if o.tflops is not None and not o.tflops > 0:
        parser.error(f"--tflops must be positive, but is {o.tflops}")
    if o.gib is not None and not 0 < o.gib < math.inf:
        parser.error(f"--gib must be positive, but is {o.gib}")
    if o.at_once < 1:
        parser.error(f"--at-once must be at least 1, but is {o.at_once}")
    plan, brief = load_plan(o.suite, o.data_dir), o.brief or o.complete
    print(describe(plan, brief, o.runs, o.tflops, o.at_once))
    if not brief:
        _check_memory(plan, o.gib)
    if o.profile and (unmet := slurm.check(o.profile, plan.threads)):
        raise DataError("; ".join(unmet))
    if not o.complete:
        return
    statuses = [run.status() for run in plan.runs]
    failed = statuses.count("failed")
    if left := len(statuses) - statuses.count("done") - failed:
        raise DataError(
            f"{left} of {len(statuses)} runs are still open: run the same command again, "
            f"and look above or in results/batches for why they were not made"
        )
    if failed:
        raise DataError(
            f"{failed} of {len(statuses)} runs failed, see above: make retry has them made again"
        )


def _check_memory(plan: Plan, gib: float | None) -> None:
    """Print what does not fit into so many GiB, by default the memory of this machine's device.

    Raises:
        DataError: something does not fit into the memory that was named, or into that of the GPU
            here; a machine without a GPU may only be where the plan is made.
    """
    device = devices.find()
    available = memory.available_bytes(device) if gib is None else int(gib * memory.GIB)
    if not (refused := too_large(plan, available)):
        return
    guessed = gib is None and device == "cpu"
    place = "this machine (--gib N asks for a device with N GiB)" if guessed else "the device"
    print("\n".join([f"too large for {place}:", *(f"  {line}" for line in refused)]))
    if guessed:
        return
    raise DataError(
        f"the suite {plan.name} is refused, {len(refused)} of its rows do not fit into "
        f"{memory.gib(available)} GiB: change them as is said above, or take a larger device"
    )


if __name__ == "__main__":
    main()
