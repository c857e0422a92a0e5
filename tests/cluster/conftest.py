"""A Slurm that answers, and a checkout on it in which runs of a minute are made as its jobs.

`make test-cluster` asks for it, as jobs are submitted to whatever Slurm there is: a cluster of two
nodes or more, whose nodes share this folder. It needs the profile's executor (`make slurm`).
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from benchmarks.common.files import read_json
from tests.checkout import ROOT, Checkout


def pytest_addoption(parser):
    parser.addoption("--cluster", action="store_true", help="submit jobs to the Slurm of this host")


def pytest_collection_modifyitems(config, items):
    reason = _why_not(config)
    here = [item for item in items if item.path.parent == Path(__file__).parent]
    for item in here if reason else ():
        item.add_marker(pytest.mark.skip(reason=reason))


def _why_not(config):
    """The reason to skip; None where jobs can be submitted and may be."""
    if not config.getoption("--cluster", default=False):
        return "submits jobs to Slurm: make test-cluster"
    if not shutil.which("sinfo"):
        return "Slurm is not installed"
    if said := ask("sinfo", "--noheader", check=False).stderr:
        return f"Slurm does not answer: {said.splitlines()[0]}"
    try:
        import snakemake_executor_plugin_slurm  # noqa: F401
    except ImportError:
        return "the executor for Slurm is not installed: make slurm"
    return None


def ask(*command, check=True):
    return subprocess.run(command, capture_output=True, text=True, check=check)


class Project(Checkout):
    """A checkout with a suite of its own; its jobs have no GPU and bear names of their own."""

    def __init__(self, folder: Path, **train):
        super().__init__(folder)
        self.prefix = f"test{os.getpid()}-{folder.name}"
        (folder / "own.yaml").write_text(yaml.safe_dump(suite(**train)))
        self.profile()

    def profile(self, default=(), train=(), **options):
        """Write profiles/mine as a copy of the Slurm profile, with changes."""
        settings = yaml.safe_load((self.folder / "profiles/slurm/config.yaml").read_text())
        settings["default-resources"] |= {"mem_mb": 2000, **dict(default)}
        settings["set-resources"] = {"train": {"gpu": 0, **dict(train)}}
        settings |= {
            "slurm-jobname-prefix": self.prefix,
            "slurm-init-seconds-before-status-checks": 3,
            "latency-wait": 20,
        }
        settings |= {name.replace("_", "-"): value for name, value in options.items()}
        target = self.folder / "profiles/mine/config.yaml"
        target.parent.mkdir(exist_ok=True)
        target.write_text(yaml.safe_dump(settings))

    def workflow(self, *options):
        """Snakemake, started."""
        command = [os.sys.executable, "-m", "snakemake", "--config", "suite=own.yaml", "together=1"]
        command += ["--workflow-profile", "profiles/mine", *options]
        return self.start(*command)

    def whole(self, *options):
        """What Snakemake prints; it must succeed."""
        process = self.workflow(*options)
        shown, _ = process.communicate()
        assert process.returncode == 0, f"{shown}\n{self.logs()}"
        return shown

    def jobs(self, *states):
        """The ids of this checkout's jobs in Slurm that train, by default of those that run."""
        wanted = ["--states", ",".join(states or ("RUNNING",))]
        said = ask("squeue", "--noheader", *wanted, "--format", "%i|%j|%k").stdout
        rows = [line.split("|") for line in said.splitlines()]
        return [job for job, name, rule in rows if name.startswith(self.prefix) and "train" in rule]

    def wait_for_states(self, n=1):
        """Until `n` runs have learnt a task; the longest wait is for a free core."""
        return self.wait_for("results/runs/*/*/*/state-*.pt", n)

    def wait_for(self, pattern, n=1):
        for _ in range(1200):
            if len(found := self.files(pattern)) >= n:
                return found
            time.sleep(0.25)
        pytest.fail(f"{self.logs()}\nno {pattern}")

    def records(self):
        """The records by method and seed."""
        found = [read_json(path) for path in self.files("results/runs/*/*/*/result-*.json")]
        return {(r["spec"]["method"]["label"], r["spec"]["seed"]): r for r in found}

    def scores(self):
        return {name: record["R"] for name, record in self.records().items()}

    def logs(self):
        """What the runs have said."""
        return "\n".join(path.read_text() for path in self.files("results/batches/*.log"))

    def cancel(self):
        jobs = self.jobs("RUNNING", "PENDING", "SUSPENDED")
        ask("scancel", *jobs, check=False) if jobs else None


def suite(**train):
    return {
        "label": "a test of a cluster",
        "seeds": [0, 1],
        "experiments": [
            {
                "stream": {"name": "glyphs", "n_tasks": 4, "train_per_class": 20},
                "backbone": {"name": "micro-vit"},
                "train": {"epochs": 12, "batch_size": 16, "mask": "all"} | train,
                "methods": {"seqlora": {}},
            }
        ],
    }


@pytest.fixture(scope="session")
def shared():
    """A folder that the nodes see."""
    (ROOT / "results").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir=ROOT / "results"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def undisturbed(shared):
    """The suite as it ends when nothing happens; its data is that of all others."""
    project = Project(shared / "undisturbed")
    project.shown = project.whole()
    return project


@pytest.fixture
def project(undisturbed, shared, request):
    """A checkout with prepared data and no runs."""
    made = Project(shared / request.node.name.removeprefix("test_")[:40])
    shutil.copytree(undisturbed.folder / "resources", made.folder / "resources")
    yield made
    made.cancel()
