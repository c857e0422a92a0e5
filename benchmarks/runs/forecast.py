"""What a suite runs, what of it is done, how long the rest takes, and whether it fits.

`python -m benchmarks.runs.forecast SUITE` prints it. What times rest on is in `runs.durations`; ~
marks an estimate of GPU time, a dash that there is none. A run in the paper's own setting names the
tables of which it fills a cell. What a language model from outside takes in memory (`costs.memory`)
stands beside, and of what does not fit, what would.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from snakemake.utils import available_cpu_count

from analysis.records.counterparts import cells
from benchmarks import backbones
from benchmarks.common import devices
from benchmarks.common.data_dir import add_data_dir_option
from benchmarks.common.errors import DataError, as_exit
from benchmarks.costs import memory, training_time
from benchmarks.runs import gpus, slurm, status
from benchmarks.runs.durations import (
    UNKNOWN,
    Expected,
    duration,
    expected,
    recorded_seconds,
    wall_seconds,
)
from benchmarks.runs.plan import Plan, PlannedRun, load_plan

MOST_JOBS = 500  # at a time, of a profile that sets no limit


@dataclass(frozen=True)
class Machine:
    """What the runs will be made by.

    Attributes:
        at_once: how many processes that make runs there are at a time.
        together: the most runs that such a process makes, one after the other.
        has_gpu: whether each has a GPU, or a share of one.
    """

    at_once: int = 1
    together: int = 1
    has_gpu: bool = False

    def __str__(self) -> str:
        kind = "GPU" if self.has_gpu else "CPU"
        return f"{self.at_once} at a time, each on a {kind}"


def machine(
    profile: Path, cores: str, threads: int, together: int, n_gpus: int | None = None
) -> Machine:
    """What a profile makes of this machine, or of a cluster.

    Args:
        cores: that Snakemake may take, "all" for those of this process.
        threads: of a run.
        n_gpus: that there will be, whatever is here.

    Raises:
        DataError: the profile cannot be read, or `cores` is no number of cores.
    """
    if n_gpus:
        return Machine(n_gpus * gpus.shares(), together, has_gpu=True)
    settings = slurm.settings(profile)
    if settings.get("executor"):
        jobs = str(settings.get("jobs") or 1)
        at_once = int(jobs) if jobs.isdecimal() else MOST_JOBS  # "unlimited"
        return Machine(at_once, together, has_gpu=slurm.has_gpus(settings))
    if cores != "all" and not (cores.isdecimal() and int(cores)):
        raise DataError(f"CORES is all or a number of cores, but is {cores!r}: correct it")
    n_cores = available_cpu_count() if cores == "all" else int(cores)
    at_once = max(1, n_cores // threads)
    if slurm.counts_gpus(settings):
        at_once = min(at_once, max(1, len(gpus.slots())))
    return Machine(at_once, together, has_gpu=devices.find() == "cuda")


class Forecast:
    """What is expected of a plan's runs.

    Args:
        tflops: throughput that estimates assume.

    Attributes:
        states: of each run, by its directory, see `status.state`.
        times: of each run, by its directory.
    """

    def __init__(self, plan: Plan, machine: Machine, tflops: float | None = None):
        self.plan, self.machine, self.tflops = plan, machine, tflops
        self.states = {run.directory: status.state(run) for run in plan.runs}
        known, by_row = recorded_seconds(), {}  # the seeds of a row take the same time
        self.times: dict[str, Expected] = {}
        for run in plan.runs:
            if (row := (run.setting, run.label)) not in by_row:
                by_row[row] = expected(run.spec, known, tflops, machine.has_gpu)
            self.times[run.directory] = by_row[row]

    def text(self, each: bool = False) -> str:
        """The forecast in words.

        Args:
            each: a line for each run, not for each method.
        """
        lines = [status.heading(self.plan, self.states), *status.outdated(self.plan)]
        groups = status.by_row(self.plan.runs)
        for setting, rows in groups.items():
            lines.append(f"{setting}:")
            for label, runs in rows.items():
                lines += map(self._run, runs) if each else [self._row(label, runs)]
            if len(groups) > 1:
                lines.append(f"  to do: {self._sum(chain.from_iterable(rows.values()))}")
        lines += [f"  skipped: {run.directory}: {run.skip}" for run in self.plan.skipped]
        lines += self._tables()
        lines.append(f"to do in all: {self._sum(self.plan.runs)}")
        lines.append(f"wall time, {self.machine}: {self._wall()}")
        if any(time.is_estimate for time in self.times.values()):
            lines.append(training_time.basis(self.machine.has_gpu, self.tflops))
        return "\n".join(lines)

    def _run(self, run: PlannedRun) -> str:
        state, time = self.states[run.directory], self.times[run.directory]
        return f"  {state:8}{time!s:>13}  {run.directory}"

    def _row(self, label: str, runs: list[PlannedRun]) -> str:
        first, done = runs[0], sum(self.states[run.directory] == "done" for run in runs)
        line = f"  {label:28}{f'{done} of {len(runs)} done':>14}"
        line += f"{self.times[first.directory]!s:>13} each  "
        if _may_be_large(first.spec):
            line += f"{memory.gib(memory.estimate(first.spec).total):>6} GiB  "
        return f"{line}{', '.join(_tables_of(first.spec))}".rstrip()

    def _open(self, runs: Iterable[PlannedRun]) -> list[PlannedRun]:
        return [run for run in runs if self.states[run.directory] != "done"]

    def _sum(self, runs: Iterable[PlannedRun]) -> str:
        """How long what is not done takes, one run after the other, by what that rests on."""
        parts: dict[str, list[float | None]] = defaultdict(list)
        for run in self._open(runs):
            time = self.times[run.directory]
            parts[time.basis].append(time.seconds)
        said = []
        for basis, seconds in sorted(parts.items()):
            runs = f"{len(seconds)} run{'s' * (len(seconds) > 1)}"
            known = basis != UNKNOWN
            said.append(
                f"{runs}, {Expected(sum(seconds), basis)} {basis}" if known else f"{runs} {basis}"
            )
        return ", ".join(said) or "nothing"

    def _tables(self) -> list[str]:
        """For each table of the paper of which runs fill cells, how long those take."""
        tables: dict[str, list[PlannedRun]] = defaultdict(list)
        for run in self.plan.runs:
            for table in _tables_of(run.spec):
                tables[table].append(run)
        if not tables:
            return []
        ordered = sorted(tables.items(), key=lambda pair: (len(pair[0]), pair[0]))
        rows = [f"  {table:10}to do: {self._sum(runs)}" for table, runs in ordered]
        return ["cells of the paper's tables, of which a run may fill several:", *rows]

    def _wall(self) -> str:
        """How long what is not done takes by the clock."""
        jobs, unknown = [], 0
        for batch in self.plan.batches(self.machine.together):
            times = [self.times[run.directory] for run in self._open(batch.runs)]
            jobs.append(sum(time.seconds or 0 for time in times))
            unknown += sum(time.seconds is None for time in times)
        said = duration(wall_seconds(jobs, self.machine.at_once)) if any(jobs) else ""
        if not unknown:
            return f"about {said}" if said else "none"
        return f"{f'at least {said}' if said else 'unknown'}, {unknown} runs not counted"


def _tables_of(spec: dict) -> list[str]:
    """The paper's tables of which the run repeats a cell."""
    exhibits = dict.fromkeys(exhibit for exhibit, _, _ in cells(spec))
    return [exhibit.replace("table", "Table ").replace("text", "its text") for exhibit in exhibits]


def _may_be_large(spec: dict) -> bool:
    return isinstance(backbones.find(spec["backbone"]["name"]), backbones.CausalModel)


def too_large(plan: Plan, available: int) -> list[str]:
    """Of each row whose open runs do not fit into that many bytes, why and what would."""
    rows = {
        (run.setting, run.label): run
        for run in plan.runs
        if _may_be_large(run.spec) and run.is_open()
    }
    refused = {row: memory.refuse(run.spec, available) for row, run in rows.items()}
    return [f"{label} on {where}: {why}" for (where, label), why in refused.items() if why]


def runs_per_gpu(plan: Plan, available: int, cores: int) -> int:
    """How many of the plan's runs may share a GPU.

    Args:
        available: bytes of the GPU; a tenth stays free.
        cores: for each GPU; every process has its own threads.
    """
    rows = {(run.setting, run.label): run.spec for run in plan.runs if run.is_open()}
    needed = [_gpu_bytes(spec) for spec in rows.values()]
    if not needed:
        return 1
    fit = int(0.9 * available // max(needed))
    return max(1, min(fit, cores // plan.threads, gpus.MOST_SHARES))


def _gpu_bytes(spec: dict) -> int:
    """That a run takes, with what CUDA takes for itself."""
    vision = spec["modality"] == "vision"
    return memory.GIB // 2 + (memory.of_images(spec) if vision else memory.estimate(spec).total)


@as_exit()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", help="a suite's name, or the path of a suite file")
    parser.add_argument("--runs", action="store_true", help="a line for each run")
    parser.add_argument(
        "--tflops", type=float, metavar="N", help="throughput assumed where nothing is recorded"
    )
    parser.add_argument(
        "--gib", type=float, metavar="N", help="memory of the device; else that of this machine's"
    )
    parser.add_argument(
        "--profile",
        type=Path,
        default=Path("profiles/default"),
        help="of Snakemake: how many runs it makes at a time, and whether its scheduler would take "
        "the jobs (default: %(default)s)",
    )
    parser.add_argument("--cores", default="all", help="of this machine (default: %(default)s)")
    parser.add_argument(
        "--together", type=int, default=1, metavar="N", help="seeds of a row in one process"
    )
    parser.add_argument(
        "--gpus", type=int, metavar="N", help="as if there were so many GPUs, whatever is here"
    )
    parser.add_argument(
        "--runs-per-gpu",
        action="store_true",
        help="print how many of its runs may share a GPU of this machine, and nothing else",
    )
    add_data_dir_option(parser)
    o = parser.parse_args()
    if o.tflops is not None and not o.tflops > 0:
        parser.error(f"--tflops must be positive, but is {o.tflops}")
    if o.gib is not None and not 0 < o.gib < math.inf:
        parser.error(f"--gib must be positive, but is {o.gib}")
    if o.gpus is not None and o.gpus < 1:
        parser.error(f"--gpus must be at least 1, but is {o.gpus}")
    plan = load_plan(o.suite, o.data_dir)
    if o.runs_per_gpu:
        found = gpus.names() if devices.find() == "cuda" else []
        available = memory.available_bytes("cuda") if found else 0
        print(runs_per_gpu(plan, available, available_cpu_count() // max(1, len(found))))
        return
    here = machine(o.profile, o.cores, plan.threads, o.together, o.gpus)
    print(Forecast(plan, here, o.tflops).text(o.runs))
    _check_memory(plan, o.gib)
    if unmet := slurm.check(o.profile, plan.threads):
        raise DataError("; ".join(unmet))


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
