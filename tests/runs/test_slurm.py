"""What Slurm is asked before jobs are submitted, with programs that answer in its place."""

import os
import re
import time

import pytest
import yaml

from benchmarks.common.errors import DataError
from benchmarks.runs import forecast, gpus, slurm
from tests.checkout import ROOT

SINFO = """\
batch|up|4:00:00|16|64000|(null)
gpu|up|1-00:00:00|32|128000|gpu:a100:4(S:0-1)
gpu|up|1-00:00:00|64|256000+|gpu:h200:8
old|inact|infinite|8|16000|gpu:2"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Slurm's commands; what they say is the content of files beside them."""
    tools = tmp_path / "bin"
    tools.mkdir()
    answers = {
        "sinfo": f'case "$*" in *%P*) echo "batch*";; *) echo "{SINFO}";; esac',
        "sacctmgr": "echo lab; echo Other",
        "sbatch": f'echo "$@" > {tmp_path}/sbatch',
    }

    def answer(name, script):
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)

    for name, script in answers.items():
        answer(name, script)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}/usr/bin{os.pathsep}/bin")
    (tmp_path / "snakemake_executor_plugin_slurm.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return answer


def check(folder, threads=1, train=(), **default):
    profile = {
        "executor": "slurm",
        "default-resources": {"slurm_partition": "gpu", "runtime": 60, "mem_mb": 1000} | default,
        "set-resources": {"train": dict(train)},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(profile))
    return slurm.check(folder, threads)


def test_jobs_that_slurm_takes_are_not_spoken_of(cluster, tmp_path):
    train = {"gpu_model": "h200", "gpu": 2}
    assert check(tmp_path, 4, train, slurm_account="other", slurm_extra="'--nice=5'") == []
    asked = (tmp_path / "sbatch").read_text()
    for option in ("--test-only", "--partition gpu", "--time=60", "--mem=1000", "--gpus=h200:2"):
        assert option in asked
    assert "--account=other" in asked and "--cpus-per-task=4" in asked and "--nice=5" in asked


@pytest.mark.parametrize(
    "asked, sentence",
    [
        ({"slurm_partition": "gpus"}, "asks for the partition 'gpus', but there are batch, gpu, "),
        ({"slurm_partition": "old"}, "the partition 'old' takes no jobs now"),
        ({"runtime": 1441}, "runtime: 1441 minutes by .*, but at most 1440 in the partition 'gpu'"),
        ({"mem_mb": 256_001}, "256001 MB of memory .mem_mb., but no node .* more than 256000"),
        ({"threads": 65}, "asks for 65 CPU cores .*no node .* has more than 64"),
        ({"train": {"gpu": 9}}, "asks for 9 GPUs .*no node .* has more than 8"),
        ({"train": {"gpu_model": "v100"}}, "asks for the GPU 'v100', but there are a100, h200"),
        ({"slurm_account": "labs"}, "the account 'labs', but yours are lab, other"),
        ({"slurm_partition": None}, "asks for 1 GPUs .*the partition 'batch' has more than 0"),
    ],
)
def test_what_the_partition_cannot_give_is_one_sentence(asked, sentence, cluster, tmp_path):
    (found,) = check(tmp_path, **asked)
    assert re.search(sentence, found) and "\n" not in found


def test_what_else_slurm_has_against_a_job_is_asked_of_itself(cluster, tmp_path):
    cluster("sbatch", "echo 'sbatch: error: Invalid qos specification'; exit 1")
    assert check(tmp_path) == ["Slurm would not take a job: Invalid qos specification"]


def test_the_reason_may_stand_below_what_a_site_says(cluster, tmp_path):
    cluster(
        "sbatch", "echo 'Welcome'; echo 'sbatch: error: Invalid qos'; echo 'sbatch: bye'; exit 1"
    )
    assert check(tmp_path) == ["Slurm would not take a job: Invalid qos"]


def test_without_a_default_partition_one_is_to_be_named(cluster, tmp_path):
    cluster("sinfo", f'case "$*" in *%P*) echo gpu;; *) echo "{SINFO}";; esac')
    (found,) = check(tmp_path, slurm_partition=None)
    assert "no slurm_partition, and Slurm no default: name one of batch, gpu, old" in found


def test_a_cluster_that_keeps_no_accounts_is_asked_for_none(cluster, tmp_path):
    cluster("sacctmgr", "echo 'You are not running a supported accounting_storage plugin'; exit 1")
    assert check(tmp_path, slurm_account="whatever") == []


def test_where_slurm_does_not_answer_the_plan_says_so(cluster, tmp_path):
    cluster("sinfo", "echo 'sinfo: error: Unable to contact slurm controller'; exit 1")
    with pytest.raises(DataError, match="does not answer .*contact slurm controller.* PROFILE"):
        check(tmp_path)
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(DataError, match="the profile .*config.yaml cannot be read"):
        slurm.check(tmp_path, 1)


def test_a_missing_executor_is_named(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm.importlib.util, "find_spec", lambda name: None)
    assert "make slurm installs it" in check(tmp_path)[0]


def test_a_profile_that_snakemake_cannot_use_is_named(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="mien/config.yaml cannot be read"):
        slurm.check_usable(tmp_path / "mien")
    (tmp_path / "config.yaml").write_text("executor: flux-mine")
    with pytest.raises(
        DataError, match="snakemake-executor-plugin-flux-mine, which is not installed"
    ):
        slurm.check_usable(tmp_path)
    monkeypatch.setenv("GPUS", "x")
    with pytest.raises(DataError, match="GPUS"):
        slurm.check_usable(ROOT / "profiles/gpu")
    slurm.check_usable(ROOT / "profiles/default")


@pytest.mark.parametrize("profile", ["default", "gpu"])
def test_other_profiles_ask_slurm_nothing(profile):
    assert slurm.check(ROOT / "profiles" / profile, 1) == []


def test_resources_may_be_a_list(tmp_path, cluster):
    profile = {"executor": "slurm", "default-resources": ["mem_mb=1000", "slurm_partition=gpus"]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(profile))
    assert "the partition 'gpus'" in slurm.check(tmp_path, 1)[0]


def test_the_plan_fails_where_slurm_would_not_take_its_jobs(cluster, tmp_path, monkeypatch, capsys):
    check(tmp_path, runtime=9999)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["forecast", "smoke", "--profile", str(tmp_path)])
    with pytest.raises(SystemExit, match="at most 1440 in the partition 'gpu'"):
        forecast.main()
    assert "suite smoke" in capsys.readouterr().out


def test_nodes_on_which_a_gpu_failed_are_avoided_for_a_day(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    slurm.note_faulty_node()  # outside of a job there is no node
    assert slurm.excluded_nodes() is None
    for node in ("n7", "n3", "n3"):
        monkeypatch.setenv("SLURMD_NODENAME", node)
        slurm.note_faulty_node()
    assert slurm.excluded_nodes() == "--exclude=n3,n7"
    os.utime(slurm.FAULTY / "n7", (time.time() - gpus.FORGIVEN_SECONDS - 60,) * 2)
    assert slurm.excluded_nodes() == "--exclude=n3"
