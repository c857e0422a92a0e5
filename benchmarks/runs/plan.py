"""What a suite runs: each run with its place on disk, and the rows that go through one process."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from benchmarks import backbones, streams
from benchmarks.common.data_dir import DATA_DIR_VARIABLE, data_dir
from benchmarks.common.digests import digest_of
from benchmarks.common.errors import DataError
from benchmarks.common.files import read_json, write_json
from benchmarks.runs.record import read_record
from benchmarks.runs.suite import load_suite

RUNS = Path("results/runs")


@dataclass(frozen=True)
class PlannedRun:
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
        return shlex.join(streams.of(self.spec["stream"]).arguments)

    @property
    def backbone(self) -> str:
        return self.spec["backbone"]["name"]

    @property
    def label(self) -> str:
        return self.spec["method"]["label"]

    @property
    def seed(self) -> int:
        return self.spec["seed"]

    @property
    def directory(self) -> str:
        return f"{RUNS}/{self.stream}/{self.label}/s{self.seed}-{self.key}"

    @property
    def record(self) -> str:
        return f"{self.directory}/result.json"

    def write_spec(self) -> str:
        """Save what `benchmarks.runs.run` needs, if it is not there yet, and return its path."""
        path = Path(self.directory) / "spec.json"
        asked = {"key": self.key, "spec": self.spec}
        try:
            there = path.exists() and read_json(path) == asked
        except DataError:  # damaged
            there = False
        if not there:
            write_json(path, asked)
        return str(path)

    def status(self) -> str:
        """done, failed, started or open."""
        if Path(self.record).exists():
            return read_record(Path(self.record), self.key)["status"]
        return "started" if (Path(self.directory) / "state.pt").exists() else "open"

    def is_open(self) -> bool:
        """Whether the run is still to be made; a failed one is made again on request only."""
        return self.status() in ("started", "open")


@dataclass(frozen=True)
class Batch:
    """Runs that differ in their seed only, for one process; imports cost as much as a small run."""

    runs: list[PlannedRun]

    @property
    def name(self) -> str:
        """The same whatever of it is done."""
        return f"{self.runs[0].label}-{digest_of([run.key for run in self.runs])[:12]}"

    def title(self) -> str:
        """What of it is to be done, in words, for a line of progress."""
        runs = self.open_runs()
        seeds = f"seed{'s' * (len(runs) > 1)} {', '.join(str(run.seed) for run in runs)}"
        return f"{self.runs[0].label} on {self.runs[0].stream}, {seeds}"

    def open_runs(self) -> list[PlannedRun]:
        return [run for run in self.runs if run.is_open()]


@dataclass(frozen=True)
class Plan:
    """All runs of a suite; `runs` are made, `skipped` cannot be."""

    name: str
    label: str
    threads: int
    reference: str | None
    runs: list[PlannedRun]
    skipped: list[PlannedRun]

    @property
    def streams(self) -> list[str]:
        return sorted({run.stream for run in self.runs})

    @property
    def backbones(self) -> list[str]:
        return sorted({run.backbone for run in self.runs})

    @property
    def pretrain_streams(self) -> list[str]:
        """The streams, as they are without options, that backbones are pre-trained on here."""
        here = [b for b in map(backbones.find, self.backbones) if isinstance(b, backbones.Embedded)]
        return sorted({b.pretrain_stream for b in here if b.rebuilt})

    def batches(self, together: int) -> list[Batch]:
        """The runs of each row, stream by backbone by method, at most `together` in a batch.

        Raises:
            DataError: `together` is no number of runs.
        """
        if type(together) is not int or together < 1:
            raise DataError(
                f"TOGETHER is how many runs a process makes, at least 1, but is {together!r}"
            )
        rows: dict[tuple, list[PlannedRun]] = {}
        for run in self.runs:
            rows.setdefault((run.stream, run.backbone, run.label), []).append(run)
        return [
            Batch(row[first : first + together])
            for row in rows.values()
            for first in range(0, len(row), together)
        ]


def load_plan(suite: str, folder: Path | None = None) -> Plan:
    """The plan of a suite, by name or path; DataError says what is wrong with it."""
    folder = folder or data_dir()
    if folder and not folder.is_dir():
        raise DataError(
            f"the data directory {folder} is no folder: correct {DATA_DIR_VARIABLE} or unset it"
        )
    suite = load_suite(str(suite), folder)
    runs = [PlannedRun(run.spec, run.key, run.skip) for run in suite.runs]
    return Plan(
        suite.name,
        suite.label,
        suite.threads,
        suite.reference,
        [run for run in runs if not run.skip],
        [run for run in runs if run.skip],
    )


def backbone_inputs(name: str) -> list[str]:
    """Files a backbone is read from; none if its weights come from outside."""
    backbone = backbones.find(name)
    return [str(backbone.file)] if isinstance(backbone, backbones.Embedded) else []


def pretrain_inputs(name: str) -> list[str]:
    """Manifests of the streams a backbone is pre-trained on here."""
    return [f"resources/streams/{backbones.find(name).pretrain_stream}/manifest.json"]
