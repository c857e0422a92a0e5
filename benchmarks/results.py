"""Result records: what a run leaves behind, and the files that gather them.

`collect` joins the records of a suite into one JSONL file; `publish` copies a complete one to
`benchmarks/published/`; `restore` takes the published records of a suite's runs as done;
`forget-failed` removes failed records so that the runs are made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from analysis.records import reading as records
from benchmarks import streams
from benchmarks.files import (
    DataError,
    add_data_dir_option,
    quoted,
    read_json,
    write_bytes,
    write_json,
)

SCHEMA = 1
PUBLISHED = Path(__file__).parent / "published"
_KEYS = {"schema", "status", "error", "key", "spec"}
_PACKAGES = ("torch", "timm", "transformers", "peft", "avalanche-lib", "numpy")
_CODE = ("treelora", "baselines", "benchmarks")


def write_record(path: Path, record: dict) -> None:
    """Save a record atomically; a value that is not finite is refused."""
    write_json(path, {"schema": SCHEMA} | record)


def read_record(path: Path, key: str) -> dict:
    """Read a record; DataError if it is corrupt, of another schema or of another run."""
    record = read_json(path)
    if not isinstance(record, dict) or not record.keys() >= _KEYS:
        raise DataError(f"{path} is no result record: delete it and run again")
    if record["schema"] != SCHEMA:
        raise DataError(
            f"{path} has schema {quoted(record['schema'])}, but this version reads {SCHEMA}: "
            f"delete it and run again"
        )
    if record["key"] != key:
        raise DataError(
            f"{path} belongs to run {quoted(record['key'])}, not {key}: delete it and run again"
        )
    failed = record["status"] == "failed" and isinstance(record["error"], str)
    spec = record["spec"]
    whole = isinstance(spec, dict) and all(
        isinstance(spec.get(part), dict) for part in ("stream", "backbone", "method")
    )
    if not whole or not (failed or record["status"] == "done"):
        raise DataError(f"{path} is damaged: delete it and run again")
    return record


def provenance() -> dict:
    """Commit, code and lock digests and package versions; no names of hosts or users."""
    root = Path(__file__).parent.parent
    code = hashlib.sha256()
    for path in sorted(p for folder in _CODE for p in (root / folder).rglob("*.py")):
        code.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    lock = root / "requirements.lock"
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "source_digest": code.hexdigest(),
        "lock_digest": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else None,
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "python": ".".join(map(str, sys.version_info[:3])),
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def collect(plan, out: Path) -> None:
    """Join the records of all runs of a plan, sorted, one per line; bytes depend on them only."""
    suite = {"name": plan.name, "label": plan.label}
    lines = []
    for run in plan.runs:
        record = read_record(Path(run.directory) / "result.json", run.key)
        record["spec"]["method"]["label"] = run.spec["method"]["label"]
        record["spec"]["stream"] |= streams.own_options(run.spec["stream"])  # may have been moved
        lines.append(record | {"suite": suite})
    for run in plan.skipped:
        lines.append(
            {
                "schema": SCHEMA,
                "status": "skipped",
                "error": run.skip,
                "key": run.key,
                "spec": run.spec,
                "suite": suite,
            }
        )
    lines.sort(key=_place)
    text = "".join(json.dumps(r, sort_keys=True, ensure_ascii=False) + "\n" for r in lines)
    write_bytes(out, text.encode())


def _place(record: dict) -> tuple:
    spec = record["spec"]
    stream, backbone = spec["stream"], spec["backbone"]
    own = spec["method"]["label"], spec["seed"]
    return stream["name"], *own, stream["digest"], backbone["name"]


def publish(plan, runs: Path) -> Path:
    """Copy a complete suite's records to `benchmarks/published/`, with their digest.

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
    target = PUBLISHED / f"{plan.name}.jsonl"
    write_bytes(target, runs.read_bytes())
    sums = "".join(
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n"
        for p in sorted(PUBLISHED.glob("*.json*"))
    )
    write_bytes(PUBLISHED / "SHA256SUMS", sums.encode())
    return target


def restore(plan) -> int:
    """Save the published records of a plan's runs as if they had been made here.

    A record counts if its key is the run's: settings, data, weights and code version are the same.
    Of a run that several suites have, the suite's own counts first: times differ.

    Raises:
        DataError: a published file is not what SHA256SUMS lists, or holds what is no record.
    """
    wanted = {run.key: run for run in plan.runs}
    try:
        files = sorted(PUBLISHED.glob("*.jsonl"), key=lambda file: (file.stem != plan.name, file))
        published = [records.read(file)[0] for file in files]
    except records.RecordError as error:
        raise DataError(str(error)) from error
    restored = 0
    for record in (record for file in published for record in file):
        run = wanted.get(record["key"])
        if run is None or record["status"] != "done" or run.status() == "done":
            continue
        del record["suite"]
        record["spec"]["method"]["label"] = run.spec["method"]["label"]
        write_record(Path(run.directory) / "result.json", record)
        restored += 1
    return restored


def forget_failed(plan) -> int:
    """Delete the failed records of a plan; the runs continue from their last state."""
    forgotten = 0
    for run in plan.runs:
        path = Path(run.directory) / "result.json"
        if path.exists() and read_record(path, run.key)["status"] == "failed":
            path.unlink()
            forgotten += 1
    return forgotten


def main() -> None:
    from benchmarks.plan import load_plan

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["collect", "publish", "restore", "forget-failed"])
    parser.add_argument("suite", help="a suite's name, or the path of a suite file")
    parser.add_argument("--out", type=Path, help="default: results/SUITE/runs.jsonl")
    add_data_dir_option(parser)
    options = parser.parse_args()
    try:
        plan = load_plan(options.suite, options.data_dir)
        out = options.out or Path("results") / plan.name / "runs.jsonl"
        if options.action == "collect":
            collect(plan, out)
        elif options.action == "publish":
            print(f"published {publish(plan, out)}")
        elif options.action == "restore":
            print(f"{restore(plan)} of {len(plan.runs)} runs restored")
        else:
            print(f"{forget_failed(plan)} failed runs will be made again")
    except DataError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
