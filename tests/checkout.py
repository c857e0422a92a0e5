"""A copy of the working tree in which commands are run."""

import os
import re
import shutil
import subprocess
import tempfile
from multiprocessing.process import BaseProcess
from pathlib import Path

import processes
import yaml

ROOT = Path(__file__).parents[1]


class Checkout:
    """A copy of the working tree in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True)
        for name in filter(None, names.stdout.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)

    def _where(self, cwd: Path | None = None, **variables: str) -> dict:
        keep = {k: v for k, v in os.environ.items() if k not in ("TREELORA_DATA", "MAKEFLAGS")}
        return {"cwd": cwd or self.folder, "env": keep | variables}

    def start(self, *command: str, cwd: Path | None = None, **variables: str) -> subprocess.Popen:
        """Start a command here, or in `cwd`; standard output and error are one text."""
        return subprocess.Popen(
            command,
            **self._where(cwd, **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, **how) -> tuple[int, str]:
        """The exit status of a command and what it prints."""
        process = self.start(*command, **how)
        shown, _ = process.communicate()
        return process.returncode, shown

    def fork(self, module: str, *options: str, out: Path, **how) -> BaseProcess:
        """`start` for a module of Python that need not import packages; it prints to a file."""
        return processes.fork(module, options, out, **self._where(**how))

    def module(self, name: str, *options: str, **how) -> tuple[int, str]:
        """`run` for a module of Python that need not import packages."""
        with tempfile.NamedTemporaryFile() as out:
            process = self.fork(name, *options, out=Path(out.name), **how)
            process.join()
            return process.exitcode, out.read().decode()

    def snakemake(self, *options: str, suite: str, config: tuple = (), **how) -> str:
        """Run the workflow of a suite, which must succeed, and return what it prints."""
        code, shown = self.module("snakemake", *asking(suite, *config), *options, **how)
        assert code == 0, shown
        return shown

    def files(self, pattern: str) -> list[Path]:
        return sorted(self.folder.glob(pattern))


def asking(suite: str, *config: str) -> tuple[str, ...]:
    """Options of Snakemake; --config takes all that follows it up to the next."""
    return ("--config", f"suite={suite}", *config, "--cores", "2")


def suite(name: str) -> dict:
    """A suite of the project, for a test to change."""
    return yaml.safe_load((ROOT / f"benchmarks/suites/{name}.yaml").read_text())


def scheduled(shown: str) -> dict[str, int]:
    """Rules and numbers of jobs in what Snakemake prints."""
    table = shown.partition("Job stats:")[2].partition("total")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}


def trained(shown: str) -> set[tuple[str, str, int]]:
    """Method, stream and seed of the runs that Snakemake prints to be made."""
    jobs = re.findall(r"train (\S+) on (\S+), seeds? ([\d, ]+)$", shown, re.M)
    return {(label, stream, int(seed)) for label, stream, all in jobs for seed in all.split(", ")}
