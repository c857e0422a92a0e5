"""The runs of a suite: which there are, which are done, how long each takes.

`python -m benchmarks.plan SUITE` prints them. Times are those of recorded runs of the same method
on the same stream, backbone and training settings, here or published; an unknown one is a dash.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks import backbones, streams
from benchmarks.config import RunSpec, load_suite
from benchmarks.files import (
    DATA_DIR_VARIABLE,
    DataError,
    add_data_dir_option,
    data_dir,
    write_json,
)
from benchmarks.results import PUBLISHED, read_record

RUNS = Path("results/runs")


@dataclass(frozen=True)
class Run:
    """One run and its place on disk."""

    spec: dict
    key: str
    skip: str | None

    @property
    def stream(self) -> str:
        """The stream's name on disk."""
        return streams.place(self.spec["stream"])

    @property
    def stream_arguments(self) -> str:
        """The stream and its options for the command line of `benchmarks.streams`."""
        spec = self.spec["stream"]
        options = [f"{key}={value}" for key, value in streams.own_options(spec).items()]
        return shlex.join([spec["name"], *options])

    @property
    def backbone(self) -> str:
        return self.spec["backbone"]["name"]

    @property
    def directory(self) -> str:
        label, seed = self.spec["method"]["label"], self.spec["seed"]
        return f"{RUNS}/{self.stream}/{label}/s{seed}-{self.key}"

    def write_spec(self) -> str:
        """Save what `benchmarks.run` needs, if it is not there yet, and return its path."""
        path = Path("results/specs") / f"{self.spec['method']['label']}-{self.key}.json"
        if not path.exists():
            write_json(path, {"key": self.key, "spec": self.spec})
        return str(path)

    def status(self) -> str:
        """done, failed, started or open."""
        folder = Path(self.directory)
        if (folder / "result.json").exists():
            return read_record(folder / "result.json", self.key)["status"]
        return "started" if (folder / "state.pt").exists() else "open"


@dataclass(frozen=True)
class Plan:
    """All runs of a suite; `runs` are made, `skipped` cannot be."""

    name: str
    label: str
    threads: int
    runs: list[Run]
    skipped: list[Run]

    @property
    def streams(self) -> list[str]:
        return sorted({run.stream for run in self.runs})

    @property
    def backbones(self) -> list[str]:
        return sorted({run.backbone for run in self.runs})


def load_plan(suite: str, folder: Path | None = None) -> Plan:
    """The plan of a suite, by name or path; DataError says what is wrong with it."""
    folder = folder or data_dir()
    if folder and not folder.is_dir():
        raise DataError(
            f"the data directory {folder} is no folder: correct {DATA_DIR_VARIABLE} or unset it"
        )
    loaded = load_suite(str(suite), folder)
    runs = [_run(r) for r in loaded.runs]
    return Plan(
        loaded.name,
        loaded.label,
        loaded.threads,
        [r for r in runs if not r.skip],
        [r for r in runs if r.skip],
    )


def _run(resolved: RunSpec) -> Run:
    return Run(resolved.spec, resolved.key, resolved.skip)


def backbone_inputs(name: str) -> list[str]:
    """Files a backbone is read from; none if its weights come from outside."""
    return [str(backbones.pretrained(name))] if backbones.find(name).pretrain_stream else []


def pretrain_inputs(name: str) -> list[str]:
    """Manifests of the streams a backbone is pre-trained on here."""
    return [f"resources/streams/{backbones.find(name).pretrain_stream}/manifest.json"]


def recorded_seconds() -> dict[str, float]:
    """Seconds of recorded runs by what decides them, loading included; the last one counts."""
    known = {}
    for record in _records():
        if record.get("status") == "done":
            parts = ("train_seconds", "consolidate_seconds", "eval_seconds")
            inside = sum(task[part] for task in record["tasks"] for part in parts)
            started, finished = (
                datetime.fromisoformat(record["provenance"][key]) for key in ("started", "finished")
            )
            whole = (finished - started).total_seconds()  # of the last attempt, if there were more
            known[_kind(record["spec"])] = max(inside, whole)
    return known


def _records() -> Iterator[dict]:
    for path in sorted(PUBLISHED.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)
    for path in sorted(RUNS.glob("*/*/*/result.json")):
        yield json.loads(path.read_text(encoding="utf-8"))


def _kind(spec: dict) -> str:
    parts = {name: spec[name] for name in ("stream", "backbone", "train")}
    return json.dumps([spec["method"]["name"], parts], sort_keys=True)


def describe(plan: Plan, only_status: bool = False) -> str:
    """The plan as text."""
    statuses = [run.status() for run in plan.runs]
    counts = ", ".join(
        f"{statuses.count(s)} {s}" for s in ("done", "failed", "started", "open") if s in statuses
    )
    lines = [f"suite {plan.name}: {plan.label}", f"{len(plan.runs)} runs: {counts}"]
    if only_status:
        for run, status in zip(plan.runs, statuses, strict=True):
            if status == "failed":
                record = read_record(Path(run.directory) / "result.json", run.key)
                lines.append(f"  failed: {run.directory}: {record['error']}")
        report = Path("results") / plan.name / "report/index.html"
        if report.exists():
            lines.append(f"report: {report}")
        return "\n".join(lines)
    known = recorded_seconds()
    left, unknown = 0.0, 0
    for run, status in zip(plan.runs, statuses, strict=True):
        seconds = known.get(_kind(run.spec))
        if status != "done":
            left += seconds or 0
            unknown += seconds is None
        shown = "      -" if seconds is None else f"{seconds:6.0f}s"
        lines.append(f"  {status:8}{shown}  {run.directory}")
    lines += [f"  skipped: {run.directory}: {run.skip}" for run in plan.skipped]
    lines.append(f"about {left / 60:.0f} minutes of work left, one run after the other")
    if unknown:
        lines[-1] += f", and {unknown} runs of unknown length"
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", help="a suite's name, or the path of a suite file")
    parser.add_argument("--status", action="store_true", help="only counts, and why runs failed")
    add_data_dir_option(parser)
    options = parser.parse_args()
    try:
        print(describe(load_plan(options.suite, options.data_dir), options.status))
    except DataError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
