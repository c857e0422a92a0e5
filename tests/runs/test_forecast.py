"""What `make plan` says of time and memory."""

import re
import sys

import pytest
import yaml

from analysis.records import reading
from benchmarks.common.errors import DataError
from benchmarks.costs import memory
from benchmarks.runs import durations, forecast
from benchmarks.runs.plan import load_plan
from tests.checkout import ROOT
from tests.small_runs import plan_of

pytestmark = pytest.mark.slow

PROFILE = str(ROOT / "profiles/default")


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        *((0.2, "1 s"), (42, "42 s"), (59.8, "1 min"), (90, "2 min"), (3599, "1 h 00 min")),
        *((12_060, "3 h 21 min"), (36_000, "10 h"), (972_000, "270 h")),
    ],
)
def test_a_duration_is_in_units_that_one_thinks_in(seconds, told):
    assert durations.duration(seconds) == told


@pytest.fixture
def plan(project, monkeypatch, capsys):
    """What the command says of one method on a language model from outside, and its exit status."""
    stream = {"name": "docs", "n_tasks": 2, "max_prompt_tokens": 256}
    experiment = {
        "stream": stream,
        "backbone": {"name": "llama-2-7b-chat", "weights": "bfloat16"},
        "train": {"epochs": 1, "batch_size": 8},
        "methods": {"seqlora": {}, "small": {"method": "seqlora", "test_batch_size": 1}},
    }
    document = {"label": "a test", "seeds": [0, 1], "experiments": [experiment]}
    (project / "own.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.setattr(reading, "PUBLISHED", project / "none")
    monkeypatch.setattr("benchmarks.common.devices.find", lambda: "cpu")

    def plan(*options: str) -> tuple[str, object]:
        monkeypatch.setattr(sys, "argv", ["forecast", "own.yaml", "--profile", PROFILE, *options])
        code = None
        try:
            forecast.main()
        except SystemExit as stopped:
            code = stopped.code
        return capsys.readouterr().out, code

    return plan


def test_a_plan_refuses_the_rows_that_do_not_fit_and_says_what_would(plan):
    said, code = plan("--gib", "300", "--gpus", "2")
    assert code is None and "too large" not in said
    rows = {line.split()[0]: line for line in said.splitlines()}
    assert " GiB" in rows["seqlora"] and " GiB" in rows["small"]
    assert "2 at a time, each on a GPU: about " in said
    said, code = plan("--gib", "24")
    refused = said.partition("too large for the device:\n")[2].splitlines()
    assert len(refused) == 2
    assert all(
        "the device has 24.0 GiB: set " in line and "which takes" in line for line in refused
    )
    assert "2 of its rows do not fit into 24.0 GiB" in code


def test_a_machine_without_a_gpu_may_plan_what_it_cannot_run(plan, monkeypatch):
    monkeypatch.setattr("benchmarks.costs.memory.available_bytes", lambda device: 2**30)
    said, code = plan()
    assert code is None
    assert said.count("the device has 1.0 GiB") == 2 and "--gib N" in said


@pytest.mark.parametrize("option", ["--gib=0", "--gib=nan", "--gpus=0"])
def test_an_impossible_machine_is_refused(plan, option, capsys):
    assert plan(option)[1] == 2


def test_what_nobody_has_made_is_estimated_for_the_machine_that_makes_it(plan):
    cpu = plan("--gib", "300", "--cores", "2")[0]
    gpu = plan("--gib", "300", "--gpus", "2")[0]
    assert re.search(r"to do in all: 4 runs, ~\d+ h as estimated for a CPU", cpu)
    assert re.search(r"to do in all: 4 runs, ~\d+ (s|min) as estimated for a GPU", gpu)
    assert "a core of a server" in cpu and "an H200" in gpu


def test_as_many_runs_share_a_gpu_as_fit_and_have_a_core(project, monkeypatch):
    """The largest row decides; a tenth stays free, and half a GiB of each process is CUDA's."""
    plan = plan_of({"seqlora": {}, "olora": {"batch_size": 64}}, seeds=(0,))
    monkeypatch.setattr(
        memory, "of_images", lambda spec: 2**30 * (3.5 if spec["train"]["batch_size"] == 64 else 1)
    )
    share = forecast.runs_per_gpu
    assert share(plan, 80 * 2**30, cores=99) == 18 and share(plan, 80 * 2**30, cores=8) == 8
    assert share(plan, 2**30, cores=8) == share(plan, 0, cores=8) == 1


@pytest.mark.parametrize(
    ("jobs", "at_once", "seconds"),
    [([3, 1, 1, 1], 1, 6), ([3, 1, 1, 1], 2, 3), ([1, 1, 4], 2, 5), ([2], 8, 2), ([], 2, 0)],
)
def test_the_wall_time_is_that_of_jobs_in_their_order(jobs, at_once, seconds):
    assert durations.wall_seconds(jobs, at_once) == seconds


def test_a_profile_says_how_many_runs_go_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.common.devices.find", lambda: "cpu")
    monkeypatch.setattr("benchmarks.runs.gpus.slots", lambda: dict.fromkeys("abc"))
    monkeypatch.setenv("RUNS_PER_GPU", "2")
    (tmp_path / "config.yaml").write_text("executor: slurm\njobs: 16\n")
    own, cluster = ROOT / "profiles", tmp_path
    made = forecast.machine
    assert made(own / "default", "7", 2, 3) == forecast.Machine(3, 3)
    assert made(own / "gpu", "8", 1, 1).at_once == 3 and made(own / "gpu", "2", 1, 1).at_once == 2
    assert made(cluster, "all", 1, 3) == forecast.Machine(16, 3, has_gpu=True)
    assert made(own / "default", "all", 1, 1, n_gpus=4) == forecast.Machine(8, 1, has_gpu=True)
    with pytest.raises(DataError, match="CORES is all or a number of cores, but is 'two'"):
        made(own / "default", "two", 1, 1)
    (tmp_path / "config.yaml").write_text("resources: [gpu=3]\n")
    assert made(tmp_path, "8", 1, 1).at_once == 3


def test_recorded_times_are_found_without_the_data(project):
    """A published run is known by what it is, and not by the digests of data that may be absent."""
    known = durations.recorded_seconds()
    specs = [run.spec for run in load_plan("cifar_pilot").runs]
    times = [durations.expected(spec, known) for spec in specs]
    assert {time.basis for time in times} == {"as recorded on a CPU"}
