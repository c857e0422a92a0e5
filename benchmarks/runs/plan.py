"""What a suite runs: each run with its place on disk, and the runs that go through one process."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import backbones, streams
from benchmarks.backbones.causal import require_bitsandbytes
from benchmarks.common.data_dir import DATA_DIR_VARIABLE, data_dir
from benchmarks.common.digests import digest_of
from benchmarks.common.errors import DataError
from benchmarks.common.files import read_json, write_bytes, write_json
from benchmarks.runs import general, sources
from benchmarks.runs.kept import Keep, inside, missing
from benchmarks.runs.record import read_record, sources_in
from benchmarks.runs.spec import RunSpec
from benchmarks.runs.suite import SUITES, Suite, load_suite

RUNS = Path("results/runs")
BATCHES = Path("results/batches")


@dataclass(frozen=True)
class PlannedRun(RunSpec):
    """One run and its place on disk; records and states bear the version of the code behind them.

    Attributes:
        keep: what is kept beside the record, see `runs.kept`.
        sources: of that code as it is now, see `runs.sources`.
    """

    keep: tuple[Keep, ...] = ()

    @functools.cached_property
    def sources(self) -> dict[str, str]:
        return sources.of(self.spec)

    @functools.cached_property
    def version(self) -> str:
        return sources.version(self.sources)

    @property
    def stream(self) -> str:
        """The stream's name on disk."""
        return streams.place(self.spec["stream"])

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
    def setting(self) -> str:
        """Stream and backbone, as one line."""
        stream, size = self.spec["stream"], self.spec["backbone"]["image_size"]
        pixels = f" at {size} px" if size else ""
        return f"{stream['name']}, {stream['n_tasks']} tasks, {self.backbone}{pixels}"

    @property
    def title(self) -> str:
        """What it is, in words, for a line of progress."""
        return f"{self.label} on {self.stream}, seed {self.seed}"

    @functools.cached_property
    def directory(self) -> str:
        return f"{RUNS}/{self.stream}/{self.label}/s{self.seed}-{self.key}"

    @property
    def record(self) -> str:
        return f"{self.directory}/result-{self.version}.json"

    @property
    def state(self) -> Path:
        return Path(self.directory) / f"state-{self.version}.pt"

    def write_spec(self) -> str:
        """Save what `benchmarks.runs.run` needs, unless it is there, and return its path."""
        path = Path(self.directory) / "spec.json"
        asked = {"key": self.key, "keep": list(self.keep), "spec": self.spec}
        try:
            there = path.exists() and read_json(path) == asked
        except DataError:  # damaged
            there = False
        if not there:
            write_json(path, asked)
        return str(path)

    def recorded(self) -> dict | None:
        """Its record by the code there is now; None if there is none."""
        path = Path(self.record)
        return read_record(path, self.key) if path.exists() else None

    def not_kept(self) -> list[Keep]:
        """What its suite asks it to keep and its record does not have beside it."""
        record = self.recorded() if self.keep else None
        return missing(Path(self.record), record, self.keep) if record else []

    def status(self) -> str:
        """done, failed, started, outdated (made by other code than there is now) or open.

        A run that has not kept what its suite asks for is open.
        """
        record = self.recorded()
        if record and not missing(Path(self.record), record, self.keep):
            return record["status"]
        if self.state.exists() or inside(self.state).exists():
            return "started"
        return "outdated" if self.earlier() and not record else "open"

    def is_open(self) -> bool:
        """Whether the run is still to be made; a failed one is made again on request only."""
        return self.status() not in ("done", "failed")

    def earlier(self) -> list[Path]:
        """Its records by other code, the newest last."""
        found = set(Path(self.directory).glob("result*.json")) - {Path(self.record)}
        return sorted(found, key=lambda path: path.stat().st_mtime)

    def changed(self) -> list[str]:
        """The files of an outdated run's code that have changed since it was made."""
        before = sources_in(self.earlier()[-1])
        return sources.changed(before, self.sources) if before else ["the code"]


def require_packages(runs: Iterable[PlannedRun]) -> None:
    """DataError if one of the runs needs a package that is neither locked nor installed."""
    if any(run.spec["backbone"].get("weights") == "nf4" for run in runs):
        require_bitsandbytes()


@dataclass(frozen=True)
class Batch:
    """Runs for one process, one after the other; imports cost as much as a small run."""

    runs: list[PlannedRun]
    suite: str = ""

    @property
    def name(self) -> str:
        """The same whatever of it is done; another for another suite, which may be made beside."""
        more = "-and-more" if len({run.label for run in self.runs}) > 1 else ""
        digest = digest_of([self.suite, *(run.key for run in self.runs)])
        return f"{self.runs[0].label}{more}-{digest[:12]}"

    def title(self) -> str:
        """What of it is to be done, in words, for a line of progress."""
        seeds: dict[str, list[str]] = {}
        for run in self.open_runs():
            seeds.setdefault(f"{run.label} on {run.stream}", []).append(str(run.seed))
        return "; ".join(
            f"{row}, seed{'s' * (len(own) > 1)} {', '.join(own)}" for row, own in seeds.items()
        )

    def open_runs(self) -> list[PlannedRun]:
        return [run for run in self.runs if run.is_open()]

    def write_job(self, threads: int, options: str) -> None:
        """Save what a job reads instead of the suite, with options of `benchmarks.runs.run`.

        It cannot start without its inputs: specs, and manifests of data and weights.
        """
        specs = [run.write_spec() for run in self.runs]
        prepared = {f"backbones/{run.backbone}" for run in self.runs}
        for run in self.runs:
            prepared |= {f"streams/{n}" for n in (run.stream, *general.streams_needed(run.spec))}
        inputs = [*specs, *sorted(f"resources/{place}/manifest.json" for place in prepared)]
        job = {"title": self.title(), "specs": specs, "inputs": inputs}
        write_json(BATCHES / f"{self.name}.json", job | {"threads": threads, "options": options})


@dataclass(frozen=True)
class Plan(Suite):
    """A suite whose `runs` are made; those that are `skipped` cannot be."""

    runs: list[PlannedRun]
    skipped: list[PlannedRun]

    @property
    def backbones(self) -> list[str]:
        return sorted({run.backbone for run in self.runs})

    @property
    def pretrain_streams(self) -> list[str]:
        """The streams, as they are without options, that backbones are pre-trained on here, or that
        have the text on which general ability is measured."""
        here = [b for b in map(backbones.find, self.backbones) if isinstance(b, backbones.Embedded)]
        texts = {name for run in self.runs for name in general.streams_needed(run.spec)}
        return sorted({b.pretrain_stream for b in here if b.rebuilt} | texts)

    @property
    def stream_specs(self) -> dict[str, dict]:
        """What all streams that must be prepared are asked for, by their names on disk."""
        own = {run.stream: run.spec["stream"] for run in self.runs}
        return {name: {"name": name} for name in self.pretrain_streams} | own

    def claim_results(self) -> None:
        """Note whose `results/NAME` is, from the working directory on, which may be moved."""
        file, here = self.file.absolute(), Path.cwd()
        file = file.relative_to(here) if file.is_relative_to(here) else file
        write_bytes(_note(self.name), os.fsencode(file))

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
            Batch(row[first : first + together], self.name)
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
    read = load_suite(str(suite), folder)
    _check_owner(read.name, read.file)
    runs = [PlannedRun(**vars(run), keep=read.keep) for run in read.runs]
    made, skipped = ([run for run in runs if bool(run.skip) is skip] for skip in (False, True))
    return Plan(**vars(read) | {"runs": made, "skipped": skipped})


def _note(name: str) -> Path:
    return Path("results") / name / "suite.txt"


def _check_owner(name: str, file: Path) -> None:
    """DataError if what lies under a suite's name is of another file."""
    packaged, note = SUITES / f"{name}.yaml", _note(name)
    owner = packaged
    if not packaged.exists() and note.is_file():
        owner = Path(os.fsdecode(note.read_bytes()))
    if owner.is_file() and not owner.samefile(file):
        raise DataError(
            f"results/{name} belongs to the suite {owner}, and {file} has the same name: give "
            f"this file another one"
        )


def backbone_inputs(name: str) -> list[str]:
    """Files a backbone is read from; none if its weights come from outside."""
    backbone = backbones.find(name)
    return [str(backbone.file)] if isinstance(backbone, backbones.Embedded) else []
