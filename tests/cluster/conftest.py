"""A Slurm that answers, and a checkout on it in which runs of a minute are made as its jobs.

`make test-cluster` asks for it, as jobs are submitted to whatever Slurm there is: a cluster of two
nodes or more, whose nodes share this folder. It needs the profile's executor (`make slurm`).
"""

import os
import platform
import shutil
import signal
import subprocess
import sys
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


# Two runs with the same scores: tests meanwhile change none.
SUITE = {
    "label": "a test of a cluster",
    "seeds": [0],
    "experiments": [
        {
            "stream": {"name": "glyphs", "n_tasks": 4, "train_per_class": 20},
            "backbone": {"name": "micro-vit"},
            "train": {"epochs": 10, "batch_size": 16, "mask": "all"},
            "methods": {"other": {"method": "seqlora"}},
        }
    ],
}
SUITE["experiments"][0]["methods"]["cut"] = {"method": "seqlora", "curve_tests": 1}


class Project(Checkout):
    """A checkout with a suite of its own; its jobs have no GPU and bear names of their own."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.prefix = f"test{os.getpid()}-{folder.name}"
        (folder / "own.yaml").write_text(yaml.safe_dump(SUITE))
        self.profile()

    def profile(self, default=(), train=(), **options):
        """Write profiles/mine as a copy of the user's own or of the Slurm profile, with changes."""
        profiles = [ROOT / "profiles" / name / "config.yaml" for name in ("mine", "slurm")]
        found = next(profile for profile in profiles if profile.exists())  # with its partition
        settings = yaml.safe_load(found.read_text())
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

    def workflow(self, *options, config=()):
        """Snakemake, started."""
        command = [sys.executable, "-m", "snakemake", "--config", "suite=own.yaml", "together=1"]
        command += config
        command += ["--workflow-profile", "profiles/mine", *options]
        return self.start(*command)

    def finish(self, workflow):
        """What a Snakemake prints that was started; it must succeed."""
        shown, _ = workflow.communicate()
        assert workflow.returncode == 0, f"{shown}\n{self.logs()}"
        return shown

    def jobs(self, *states):
        """The ids of this checkout's jobs in Slurm, by default of those that run."""
        wanted = ["--states", ",".join(states or ("RUNNING",))]
        said = ask("squeue", "--noheader", *wanted, "--format", "%i|%j").stdout
        rows = [line.split("|") for line in said.splitlines()]
        return [job for job, name in rows if name.startswith(self.prefix)]

    def stop(self, method):
        """Let a run stand still once it has learnt a task, and return its job and its process."""
        self.wait_until(lambda: self.files(f"results/runs/*/{method}/*/state-*.pt"))
        (lease,) = self.files(f"results/runs/*/{method}/*/lease-*.json")
        holder = read_json(lease)
        if holder["host"] != platform.node():
            pytest.skip("the nodes must be stand-ins on this host")
        os.kill(holder["process"], signal.SIGSTOP)
        return holder["slurm_job"], holder["process"]

    def wait_until(self, condition):
        for _ in range(2400):
            if condition():
                return
            time.sleep(0.25)
        pytest.fail(f"{self.logs()}\nwaited for too long")

    def record(self, method) -> Path | None:
        return next(iter(self.files(f"results/runs/*/{method}/*/result-*.json")), None)

    def scores(self):
        """R of each method."""
        return {method: read_json(self.record(method))["R"] for method in ("other", "cut")}

    def tries(self, method):
        """How many processes have made a part of a method's run."""
        return len(read_json(self.record(method))["provenance"].get("tries", ["one"]))

    def logs(self):
        """What the runs have said."""
        return "\n".join(path.read_text() for path in self.files("results/batches/*.log"))

    def cancel(self):
        jobs = self.jobs("RUNNING", "PENDING", "SUSPENDED")
        ask("scancel", *jobs, check=False) if jobs else None


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
    project.finish(project.workflow())
    return project


@pytest.fixture
def project(undisturbed, shared, request):
    """A checkout with prepared data and no runs."""
    made = Project(shared / request.node.name[5:30])
    shutil.copytree(undisturbed.folder / "resources", made.folder / "resources")
    yield made
    made.cancel()
