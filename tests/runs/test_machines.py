"""Several GPUs and Slurm, on a machine that has neither."""

import os
import select
import stat
import subprocess
import sys

import pytest
import yaml

from benchmarks.common.errors import DataError
from benchmarks.runs import gpus
from tests.checkout import ROOT

CLAIM = """
import os, time
from benchmarks.runs import gpus
held = gpus.claim()
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(60)
"""


def claiming(folder, visible):
    """A process that takes a GPU and holds it, with slots in a folder for temporary files."""
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": visible, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_each_process_has_a_gpu_of_its_own_and_a_dead_one_gives_it_back(tmp_path):
    """Three processes and two GPUs: the third waits until one of the others is killed."""
    first, second = processes = [claiming(tmp_path, "3,MIG-7/1/0") for _ in range(2)]
    try:
        held = [process.stdout.readline().strip() for process in processes]
        assert sorted(held) == ["3", "MIG-7/1/0"]
        third = claiming(tmp_path, "3,MIG-7/1/0")
        processes.append(third)
        assert str(second.pid) in third.stderr.readline()  # for whom it waits
        assert not select.select([third.stdout], [], [], 1)[0]
        second.kill()
        second.wait()
        assert third.stdout.readline().strip() == held[1]
        assert first.poll() is None
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_gpus_are_those_that_are_visible_and_no_more_than_asked(monkeypatch, tmp_path):
    monkeypatch.delenv("GPUS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '0, GPU-a0\\n1, GPU-b1\\n2, GPU-b2\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert gpus.names() == ["GPU-a0", "GPU-b1", "GPU-b2"]
    monkeypatch.setenv("GPUS", "2")
    assert gpus.names() == ["GPU-a0", "GPU-b1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-7/1/0, GPU-b2,7")
    assert gpus.names() == ["MIG-7/1/0", "GPU-b2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-a,GPU-b2,0")  # each card once
    assert gpus.names() == ["GPU-b2", "GPU-a0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    for bad in ("4", "0", "all"):
        monkeypatch.setenv("GPUS", bad)
        with pytest.raises(DataError, match=f"GPUS must be a number.* found, 3, but is '{bad}'"):
            gpus.names()
    monkeypatch.delenv("GPUS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,-1,4")  # CUDA reads no further
    assert gpus.names() == ["3"]
    monkeypatch.setenv("RUNS_PER_GPU", "3")
    assert gpus.slots() == {"3": "3", "3-1": "3", "3-2": "3"}
    monkeypatch.setenv("RUNS_PER_GPU", "0")
    with pytest.raises(DataError, match="RUNS_PER_GPU must be a number from 1"):
        gpus.slots()
    monkeypatch.setenv("RUNS_PER_GPU", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus.names() == []
    with pytest.raises(DataError, match="promised a GPU, but there is none"):
        gpus.claim()


@pytest.fixture
def shared_folder(tmp_path, monkeypatch):
    """The folder for temporary files, in which others can foresee names; one GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(gpus.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_slots_lie_in_a_folder_of_the_users_own(shared_folder):
    with gpus.claim():
        own = shared_folder / f"treelora-{os.getuid()}"
        assert stat.S_IMODE(own.stat().st_mode) == 0o700
        assert [path.name for path in own.iterdir()] == ["gpu-0.lock"]
    with gpus.claim():  # also the second time
        assert list(shared_folder.iterdir()) == [own]


@pytest.mark.parametrize("planted", ["link", "open", "file", "of another"])
def test_a_folder_that_is_not_the_users_own_is_refused(planted, shared_folder, monkeypatch):
    private = shared_folder / "private"
    private.mkdir(mode=0o700)
    own = shared_folder / f"treelora-{os.getuid()}"
    if planted == "link":
        own.symlink_to(private)
    elif planted == "open":
        own.mkdir()
        own.chmod(0o770)
    elif planted == "file":
        own.touch()
    else:
        monkeypatch.setattr(os, "getuid", lambda: 123_456)
        own = shared_folder / "treelora-123456"
    with pytest.raises(DataError, match=f"{own} .*set TMPDIR"):
        gpus.claim()
    assert list(private.iterdir()) == []


def test_a_lock_follows_no_link_waits_for_no_pipe_and_changes_no_file(shared_folder):
    own, precious = shared_folder / f"treelora-{os.getuid()}", shared_folder / "precious"
    own.mkdir(mode=0o700)
    slot = own / "gpu-0.lock"
    precious.write_text("precious")
    for plant in (lambda: slot.symlink_to(precious), lambda: os.mkfifo(slot), slot.mkdir):
        plant()
        with pytest.raises(DataError, match=str(slot)):
            gpus.claim()
        slot.rmdir() if slot.is_dir() else slot.unlink()
    os.link(precious, slot)
    with gpus.claim():
        assert precious.read_text() == "precious"


def options_of(profile, monkeypatch):
    """A profile's options as Snakemake reads them, its executor being a known one."""
    from snakemake import cli

    monkeypatch.chdir(ROOT)
    parser = cli.get_argument_parser(profiles=[str(ROOT / "profiles" / profile)])
    for action in parser._actions:
        if action.dest == "executor":
            action.choices = None  # the plugin for Slurm is installed where there is Slurm
    options, others = parser.parse_known_args([])
    assert all(option.startswith("--slurm-") for option in others)  # its plugin's own
    return options


def test_the_gpu_profile_counts_the_gpus(monkeypatch):
    monkeypatch.delenv("GPUS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    assert options_of("gpu", monkeypatch).resources["gpu"].value == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert options_of("gpu", monkeypatch).resources["gpu"].value == 1


def test_a_number_of_runs_is_found_after_the_profile_was_checked():
    command = ("make", "-n", "replicate", "PROFILE=profiles/gpu", "RUNS_PER_GPU=auto")
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    checked, found = (shown.index(f"runs.{module} ") for module in ("slurm", "forecast"))
    assert checked < found and "RUNS_PER_GPU= .venv/bin/python -m benchmarks.runs.slurm" in shown


def test_the_slurm_profile_is_one_that_snakemake_reads(monkeypatch):
    options = options_of("slurm", monkeypatch)
    assert options.executor == "slurm" and options.jobs == 16 and options.keep_going
    default = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    slurm = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    assert {k: slurm.get(k) for k in default if k != "cores"} == {
        k: v for k, v in default.items() if k != "cores"
    }
