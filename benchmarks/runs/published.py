"""Which code the published records stand for: that which made them, or gives the same numbers.

`published/sources.json` has {suite: {method: {file: digest}}}, the digests of `runs.sources`;
records are restored only where it agrees with the code that is there. After a change that should
move no number, `python -m benchmarks.runs.published COMMIT` makes the fastest published run of each
method in question with the code of that commit and with the present one. If scores and diagnostics
are equal to the bit, the method is vouched for again; otherwise it is named and left.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from analysis.records import reading
from analysis.records.predictions import Predictions, by_key, file_of
from benchmarks import streams
from benchmarks.common.digests import sha256_of
from benchmarks.common.errors import DataError, as_exit
from benchmarks.common.files import ROOT, read_json, write_bytes, write_json
from benchmarks.runs import sources
from benchmarks.runs.durations import seconds

PACKAGES = ("analysis", "baselines", "benchmarks", "treelora")


def records() -> dict[str, list[dict]]:
    """The published records of each suite; DataError if a file is not what SHA256SUMS lists."""
    return {suite: reading.read(file)[0] for suite, file in reading.published().items()}


def predictions(suite: str) -> dict[str, list[Predictions]]:
    """The published predictions of a suite by the keys of its runs; DataError as for `records`."""
    return by_key(file_of(reading.published()[suite]))


def differing(suite: str, spec: Mapping) -> list[str]:
    """The files of a run's code that its suite's published records are not vouched for."""
    entry = _entries().get(suite, {}).get(spec["method"]["name"], {})
    return [file for file, digest in sources.of(spec).items() if entry.get(file) != digest]


def vouch(specs: Mapping[str, list[Mapping]]) -> None:
    """Vouch for the methods of published runs, by suite, with the present code."""
    entries = _entries()
    for suite, runs in specs.items():
        present: dict[str, dict] = {}
        for spec in runs:
            present.setdefault(spec["method"]["name"], {}).update(sources.of(spec))
        entries[suite] = entries.get(suite, {}) | present
    write_json(reading.PUBLISHED / "sources.json", entries)
    sums = "".join(f"{sha256_of(p)}  {p.name}\n" for p in sorted(reading.PUBLISHED.glob("*.json*")))
    write_bytes(reading.PUBLISHED / "SHA256SUMS", sums.encode())


def _entries() -> dict[str, dict[str, dict[str, str]]]:
    file = reading.PUBLISHED / "sources.json"
    return read_json(file) if file.exists() else {}


def compare(commit: str) -> None:
    """Vouch for the methods whose numbers are the same with the code of a commit; print each run.

    Of a method, a run is made for each set of files that differ behind some of its runs.
    """
    found = records()
    done = [(suite, r) for suite in found for r in found[suite] if r["status"] == "done"]
    fastest: dict[tuple[str, frozenset], dict] = {}
    for suite, record in sorted(done, key=lambda pair: seconds(pair[1])):
        if files := differing(suite, record["spec"]):
            fastest.setdefault((_method(record), frozenset(files)), record)
    with tempfile.TemporaryDirectory() as folder:
        before, now = Path(folder, "before"), Path(folder, "now")
        _extract(commit, before)
        now.mkdir()
        for package in PACKAGES:
            (now / package).symlink_to(ROOT / package)
        equal: dict[str, bool] = {}
        for (method, _), record in fastest.items():
            numbers = [_numbers(code, record) for code in (before, now)]
            same = numbers[0] is not None and numbers[0] == numbers[1]
            equal[method] = equal.get(method, True) and same
            words = "the same numbers" if same else "not the same numbers"
            print(f"{record['key']}, {method} on {record['spec']['stream']['name']}: {words}")
    vouch({suite: [r["spec"] for r in found[suite] if equal.get(_method(r))] for suite in found})
    if left := sorted(method for method, same in equal.items() if not same):
        raise DataError(f"not vouched for: {', '.join(left)}; make and publish their suites anew")


def _method(record: dict) -> str:
    return record["spec"]["method"]["name"]


def _extract(commit: str, folder: Path) -> None:
    """The files of a commit; DataError if there is none."""
    done = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True)
    if done.returncode:
        raise DataError(f"git knows no commit {commit}: name one whose numbers were published")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def _numbers(code: Path, published: dict) -> tuple | None:
    """Scores and diagnostics of a published run, made by the code in a folder; None if it fails."""
    spec, key = published["spec"], published["key"]
    run, resources = code / "runs" / key, code / "resources"
    write_json(run / "spec.json", {"key": key, "spec": spec})
    stream = resources / "streams" / streams.place(spec["stream"])
    backbone = resources / "backbones" / spec["backbone"]["name"]
    commands = [["benchmarks.runs.run", run / "spec.json"]]
    if not (backbone / "manifest.json").exists():
        commands.insert(0, ["benchmarks.backbones", backbone.name, "--out", backbone])
    if not (stream / "manifest.json").exists():
        arguments = streams.of(spec["stream"]).arguments
        commands.insert(0, ["benchmarks.streams", *arguments, "--out", stream])
    for command in commands:
        done = subprocess.run([sys.executable, "-m", *command], cwd=code)
        if done.returncode:
            return None
    (path,) = run.glob("result*.json")
    record = read_json(path)
    return (record["R"], record["diagnostics"]) if record["status"] == "done" else None


@as_exit()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commit", help="whose code gives the published numbers")
    compare(parser.parse_args().commit)


if __name__ == "__main__":
    main()
