"""What of a suite is done, what is being made, and what has failed and why.

`python -m benchmarks.runs.status SUITE` prints it. With --complete, which ends `make replicate`, it
also prints what the results say, and fails unless all runs are done.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from analysis.records import predictions
from analysis.text import visible
from benchmarks.common.data_dir import add_data_dir_option
from benchmarks.common.errors import DataError, as_exit
from benchmarks.runs import lease, results
from benchmarks.runs.durations import duration, expected, recorded_seconds
from benchmarks.runs.plan import Plan, PlannedRun, load_plan

STATES = ("done", "failed", "running", "outdated", "started", "open")


def state(run: PlannedRun) -> str:
    """The run's `status`, or running: some process is making it, on whatever host."""
    held = lease.is_held(Path(run.directory))
    return "running" if held and run.is_open() else run.status()


def counts(states: Iterable[str]) -> str:
    """How many runs are in which state, in words."""
    found = Counter(states)
    return ", ".join(f"{found[state]} {state}" for state in STATES if found[state])


def heading(plan: Plan, states: Mapping[str, str]) -> str:
    """The suite, and how many of its runs are in which state."""
    return (
        f"suite {plan.name}: {visible(plan.label)}\n"
        f"{len(plan.runs)} runs: {counts(states.values())}"
    )


def by_row(runs: Iterable[PlannedRun]) -> dict[str, dict[str, list[PlannedRun]]]:
    """The runs by setting and label, in their order."""
    rows: dict[str, dict[str, list[PlannedRun]]] = {}
    for run in runs:
        rows.setdefault(run.setting, {}).setdefault(run.label, []).append(run)
    return rows


def describe(plan: Plan) -> str:
    """The status in words: counts by method, what is being made, and why runs failed."""
    states = {run.directory: state(run) for run in plan.runs}
    lines = [heading(plan, states), *outdated(plan)]
    if set(states.values()) not in ({"done"}, {"open"}):
        for setting, rows in by_row(plan.runs).items():
            lines.append(f"{setting}:")
            lines += [
                f"  {label:28}{counts(states[run.directory] for run in runs)}"
                for label, runs in rows.items()
            ]
    running = [run for run in plan.runs if states[run.directory] == "running"]
    if running:
        known = recorded_seconds()
        lines += [f"  running: {run.title}{_place(run, known)}" for run in running]
    for run in plan.runs:
        if states[run.directory] == "failed":
            lines.append(f"  failed: {run.directory}: {visible(run.recorded()['error'])}")
            log = Path(run.directory) / "log.txt"
            lines += [f"    traceback: {log}"] if log.exists() else []
    if n := results.n_restorable(plan):
        lines.append(f"published results of {n} open runs exist: make restore takes them")
    report = Path("results") / plan.name / "report/index.html"
    if report.exists():
        lines.append(f"report: {report}")
    return "\n".join(lines)


def _place(run: PlannedRun, known: dict) -> str:
    """The task that a run has come to and about how long it will still take, as far as is known.

    Its state is saved after each task, and the predictions beside it say after which.
    """
    learnt, n_tasks, where = 0, run.spec["stream"]["n_tasks"], ""
    answers = run.state.with_suffix(".jsonl.gz")
    with suppress(DataError):
        for own in predictions.by_key(answers).get(run.key, ()):
            learnt = 1 + max((after for after, _ in own.cells), default=-1)
            where = f", {visible(own.tasks[learnt])}" if learnt < len(own.tasks) else ""
    place = f": task {min(learnt + 1, n_tasks)} of {n_tasks}{where}"
    attempt = Path(run.directory) / lease.ATTEMPT
    on_gpu = attempt.exists() and attempt.read_text() == "cuda"
    seconds = expected(run.spec, known, on_gpu=on_gpu).seconds
    times = [path.stat().st_mtime for path in (answers, attempt) if path.exists()]
    if seconds is None or not times:
        return place
    left = seconds * (1 - learnt / n_tasks) - (time.time() - max(times))
    return f"{place}, about {duration(max(left, 1))} left"


def outdated(plan: Plan) -> list[str]:
    """How many runs that were done are made anew, for each file that has changed since and for what
    `keep` asks for and they have not kept."""
    runs = [run for run in plan.runs if run.earlier() and not Path(run.record).exists()]
    changed = Counter(file for run in runs for file in run.changed())
    lacking = Counter(what for run in plan.runs for what in run.not_kept())
    return [
        f"  {visible(file)} changed since {n} runs were made: they are made anew"
        for file, n in sorted(changed.items())
    ] + [
        f"  keep asks for {what}, which {n} runs have not kept: they are made anew"
        for what, n in sorted(lacking.items())
    ]


@as_exit()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", help="a suite's name, or the path of a suite file")
    parser.add_argument(
        "--complete",
        action="store_true",
        help="also what the results say, and fail unless all runs are done",
    )
    add_data_dir_option(parser)
    options = parser.parse_args()
    plan = load_plan(options.suite, options.data_dir)
    if not options.complete:
        print(describe(plan))
        return
    statuses = [run.status() for run in plan.runs]
    failed = statuses.count("failed")
    left = len(statuses) - statuses.count("done") - failed
    if not left:
        from analysis import outcome  # which `make status` need not wait for

        print(f"{outcome.text(Path('results') / plan.name / 'runs.jsonl')}\n")
    print(describe(plan))
    if left:
        raise DataError(
            f"{left} of {len(statuses)} runs are still open: run the same command again, "
            f"and look above or in results/batches for why they were not made"
        )
    if failed:
        raise DataError(
            f"{failed} of {len(statuses)} runs failed, see above: make retry has them made again"
        )


if __name__ == "__main__":
    main()
