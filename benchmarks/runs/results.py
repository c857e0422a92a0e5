"""The records of a suite's runs, gathered, published and taken back.

`collect` joins the records of a suite into one JSONL file, and the predictions of its runs into
another beside it; `publish` copies both of a complete suite to `benchmarks/published/`; `restore`
takes the published records of a suite's runs as done; `forget-failed` removes failed records so
that the runs are made again.
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path

from analysis.records import predictions, reading
from benchmarks import streams
from benchmarks.common.data_dir import add_data_dir_option
from benchmarks.common.errors import DataError, as_exit
from benchmarks.common.files import write_bytes
from benchmarks.runs import kept, published
from benchmarks.runs.plan import Plan, PlannedRun, load_plan
from benchmarks.runs.record import SCHEMA, read_record, without_curve, write_record

MOST_PUBLISHED = 1_000_000  # bytes of a suite's predictions
SMALLEST = 9 | lzma.PRESET_EXTREME
# As `collect` writes a record that is not skipped: its keys are sorted.
_KEY = re.compile(rb'"key": "([0-9a-f]{12})", "provenance"')


def collect(plan: Plan, out: Path) -> None:
    """Join the records of all runs of a plan, sorted, one per line, and their predictions.

    The bytes of both files depend on those of the runs' own only.

    Raises:
        DataError: a run's record or predictions are damaged.
    """
    suite = {"name": plan.name, "label": plan.label}
    if plan.reference:
        suite["reference"] = plan.reference
    rows = []
    for run in plan.runs:
        path = Path(run.record)
        record = read_record(path, run.key)
        _name(record, run)
        answers = kept.predictions(path)
        there = record["status"] == "done" and answers.exists()
        rows.append((record | {"suite": suite}, answers if there else None))
    for run in plan.skipped:
        record = {
            "schema": SCHEMA,
            "status": "skipped",
            "error": run.skip,
            "key": run.key,
            "spec": run.spec,
            "suite": suite,
        }
        rows.append((record, None))
    rows.sort(key=lambda row: _place(row[0]))
    text = "".join(json.dumps(r, sort_keys=True, ensure_ascii=False) + "\n" for r, _ in rows)
    answers = predictions.joined(path for _, path in rows if path)
    write_bytes(predictions.file_of(out), answers)
    write_bytes(out, text.encode())


def _name(record: dict, run: PlannedRun) -> None:
    """Give a record the names that its suite has for the run now, and the places of its files."""
    stream, method = run.spec["stream"], record["spec"]["method"]
    for name in ("label", "title", "origin", "tuned"):
        method.pop(name, None)
        if name in run.spec["method"]:
            method[name] = run.spec["method"][name]
    record["spec"]["stream"] |= streams.of(stream).content
    if "origin" in stream:
        record["spec"]["stream"]["origin"] = stream["origin"]


def _place(record: dict) -> tuple:
    spec = record["spec"]
    stream, backbone = spec["stream"], spec["backbone"]
    own = spec["method"]["label"], spec["seed"]
    return stream["name"], *own, stream["digest"], backbone["name"]


def publish(plan: Plan, runs: Path) -> list[Path]:
    """Copy a complete suite's records to `benchmarks/published/`, with their digest.

    Their predictions are the second file, if there are any and no more than MOST_PUBLISHED bytes;
    those of trials on held-out data, which are no results, are not published.

    Raises:
        DataError: a run failed, or a record was made from uncommitted code.
    """
    collect(plan, runs)
    for line in runs.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        name = f"{record['spec']['stream']['name']}/{record['spec']['method']['label']}"
        if record["status"] == "failed":
            raise DataError(
                f"{name} failed ({record['error']}): only complete suites are published"
            )
        if record["status"] == "done" and record["provenance"]["dirty"]:
            raise DataError(f"{name} was run from uncommitted code: commit and run it again")
    target = reading.PUBLISHED / f"{plan.name}{reading.ENDING}"
    made, answers = predictions.file_of(runs), predictions.file_of(target)
    packed = lzma.compress(reading.unpack(made, made.read_bytes()), preset=SMALLEST)
    write_bytes(target, lzma.compress(runs.read_bytes(), preset=SMALLEST))
    trials = any(run.spec["stream"].get("holdout") for run in plan.runs)
    if made.stat().st_size and len(packed) <= MOST_PUBLISHED and not trials:
        write_bytes(answers, packed)
    else:
        answers.unlink(missing_ok=True)
    published.vouch({plan.name: [run.spec for run in plan.runs]})
    return [path for path in (target, answers) if path.exists()]


def restore(plan: Plan) -> str:
    """Save the published records of a plan's runs as if they had been made here; says how many.

    A record counts if its key is the run's, so that settings, data, weights and version are the
    same, and if the code behind the run is that which is vouched for, see `runs.published`.
    Of a run that several suites have, the suite's own counts first: times differ. Predictions that
    were published with a record are restored, too, also those of a run that was made here without
    them and has the same scores.

    Raises:
        DataError: a published file is not what SHA256SUMS lists, or holds what is no record.
    """
    wanted = defaultdict(list)  # a grid may repeat a row
    for run in plan.runs:
        wanted[run.key].append(run)
    restored, outdated = 0, {}
    for suite, found in sorted(published.records().items(), key=lambda pair: pair[0] != plan.name):
        pairs = [(record, run) for record in found for run in wanted.get(record["key"], ())]
        answers = published.predictions(suite) if pairs else {}
        for record, run in pairs:
            there, own_answers = run.recorded(), kept.predictions(Path(run.record))
            done = there is not None and there["status"] == "done"
            lacks = not done or (not own_answers.exists() and there["R"] == record["R"])
            if record["status"] != "done" or not lacks:
                continue
            if files := published.differing(suite, run.spec):
                outdated |= {} if done else {run.key: files}
                continue
            record.pop("suite", None)
            _name(record, run)
            record["provenance"]["sources"] = run.sources
            if own := predictions.of_record(answers, record):
                write_bytes(own_answers, own.pack())
            if done:
                continue
            write_record(Path(run.record), without_curve(record))
            outdated.pop(run.key, None)
            restored += 1
    lines = [f"{restored} of {len(plan.runs)} runs restored"]
    changed = Counter(file for files in outdated.values() for file in files)
    for file, n in sorted(changed.items()):
        lines.append(f"{file} changed since {n} published runs were made: they are made anew")
    return "\n".join(lines)


def n_restorable(plan: Plan) -> int:
    """How many open runs of a plan `restore` would take from the published records."""
    wanted = {run.key: run.spec for run in plan.runs if run.is_open()}
    found = set()
    for suite, path in reading.published().items() if wanted else ():
        lines: list[bytes] = []
        with suppress(DataError):  # `restore` says which file is damaged
            lines = reading.lines(path, path.read_bytes())
        keys = {key.decode() for line in lines for key in _KEY.findall(line)}
        keys &= wanted.keys() - found
        found |= {key for key in keys if not published.differing(suite, wanted[key])}
    return len(found)


def forget_failed(plan: Plan) -> int:
    """Delete the failed records of a plan; the runs continue from the last state of their code."""
    forgotten = 0
    for run in plan.runs:
        records = [path for path in (Path(run.record), *run.earlier()) if path.exists()]
        failed = [path for path in records if read_record(path, run.key)["status"] == "failed"]
        for path in failed:
            path.unlink()
        forgotten += bool(failed) and run.status() != "done"
    return forgotten


@as_exit()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["collect", "publish", "restore", "forget-failed"])
    parser.add_argument("suite", help="a suite's name, or the path of a suite file")
    parser.add_argument("--out", type=Path, help="default: results/SUITE/runs.jsonl")
    add_data_dir_option(parser)
    options = parser.parse_args()
    plan = load_plan(options.suite, options.data_dir)
    out = options.out or Path("results") / plan.name / "runs.jsonl"
    if options.action == "collect":
        collect(plan, out)
    elif options.action == "publish":
        files = publish(plan, out)
        print(f"published {' and '.join(map(str, files))}")
        if predictions.file_of(files[0]) not in files and predictions.file_of(out).stat().st_size:
            print(f"no predictions: they are of trials, or more than {MOST_PUBLISHED:,} bytes")
    elif options.action == "restore":
        print(restore(plan))
    else:
        print(f"{forget_failed(plan)} failed runs will be made again")


if __name__ == "__main__":
    main()
