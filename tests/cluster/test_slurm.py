"""What happens to runs on a cluster: jobs end early, nodes fail, Snakemake is killed.

Nothing that is finished is lost or made twice, and what was cut off ends with the same scores.
"""

import os
import shlex
import signal
import sys

import pytest

from benchmarks.common.files import read_json
from tests.checkout import scheduled
from tests.cluster.conftest import ask
from tests.runs.test_bundle import git


def test_a_suite_is_made_as_jobs(undisturbed):
    assert undisturbed.scores()["other"] == undisturbed.scores()["cut"]
    assert (undisturbed.folder / "results/own/report/index.html").exists()


def test_a_bundle_is_made_as_jobs(project, undisturbed):
    """With what it brings: nothing is prepared there, where there is no git either."""
    for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message", "all")):
        git(project.folder, *words)
    code, shown = project.module("benchmarks.runs.bundle", "own.yaml", "--no-wheels")
    assert code == 0, shown
    (archive,) = project.files("dist/*.tar")
    ask("tar", "xf", str(archive), "--directory", str(archive.parent))
    commit = git(project.folder, "rev-parse", "HEAD")
    (project.folder,) = (path for path in archive.parent.iterdir() if path.is_dir())
    project.profile()
    shown = project.finish(project.workflow())
    assert scheduled(shown)["train"] == 2 and "prepare" not in scheduled(shown)
    assert project.scores() == undisturbed.scores()
    assert read_json(project.record("other"))["provenance"]["commit"] == commit


def test_a_requeued_job_goes_on(project, undisturbed):
    workflow = project.workflow()
    job, _ = project.stop("cut")
    ask("scontrol", "requeue", job)
    project.finish(workflow)
    assert project.scores() == undisturbed.scores()
    assert project.tries("cut") == 2


def test_a_job_that_hit_its_time_limit_is_submitted_again_and_goes_on(project, undisturbed):
    workflow = project.workflow()
    job, _ = project.stop("cut")
    ask("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    shown = project.finish(workflow)
    assert "SLURM status is: 'TIMEOUT'" in shown
    for said in ("cut/s0: task 1 of 4", "cut/s0: continues after task 1"):
        assert said in project.logs()
    assert project.scores() == undisturbed.scores()
    assert project.tries("cut") == 2


def test_a_run_that_is_finished_survives_the_time_limit_of_its_group(project, undisturbed):
    workflow = project.workflow("--groups", "train=runs", "--group-components", "runs=2")
    job, _ = project.stop("cut")
    project.wait_until(lambda: project.record("other"))
    before = project.record("other").read_bytes()
    ask("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    shown = project.finish(workflow)
    assert "DUE TO TIME LIMIT" in shown
    assert project.record("other").read_bytes() == before
    assert project.scores() == undisturbed.scores()
    assert project.tries("cut") == 2


def test_short_runs_share_a_job_which_reads_no_suite(project, undisturbed):
    workflow = project.workflow(config=["job_minutes=60"])
    project.wait_until(project.jobs)
    (project.folder / "own.yaml").rename(project.folder / "hidden.yaml")
    project.wait_until(lambda: project.record("other") and project.record("cut"))
    (project.folder / "hidden.yaml").rename(project.folder / "own.yaml")
    project.finish(workflow)
    assert len(project.files("results/batches/*.done")) == 1
    assert project.scores() == undisturbed.scores()


def test_a_whole_node_can_be_one_allocation(project, undisturbed):
    command = [sys.executable, "-m", "snakemake", "--config", "suite=own.yaml", "together=1"]
    command += ["--cores", "2", "--workflow-profile", "profiles/gpu"]
    where = ["--chdir", project.folder, "--output", project.folder / "said.txt"]
    ask("sbatch", "--wait", "--job-name", project.prefix, *where, "--wrap", shlex.join(command))
    assert project.scores() == undisturbed.scores()


def test_after_snakemake_was_killed_no_run_is_made_twice(project, undisturbed):
    workflow = project.workflow()
    job, process = project.stop("cut")
    workflow.send_signal(signal.SIGKILL)
    workflow.communicate()
    project.finish(project.workflow("--unlock"))
    workflow = project.workflow()
    project.wait_until(lambda: "waits for it" in project.logs())
    os.kill(process, signal.SIGCONT)
    project.finish(workflow)
    assert f"(Slurm job {job}): waits for it" in project.logs()
    assert project.scores() == undisturbed.scores()
    assert project.tries("cut") == 1
    assert "cut/s0: task 4 of 4" in project.logs()  # by the job that was left alone


def test_a_run_goes_on_at_another_node_when_its_own_goes_down(project, undisturbed):
    workflow = project.workflow()
    job, _ = project.stop("cut")
    node = ask("squeue", "--noheader", "--job", job, "--format", "%N").stdout.strip()
    down = ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test", check=False)
    if down.returncode:
        pytest.skip(f"needs an administrator of Slurm: {down.stderr.strip()}")
    try:
        project.finish(workflow)
    finally:
        ask("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)  # or it is back
    assert project.scores() == undisturbed.scores()
    assert project.tries("cut") == 2


def test_a_job_whose_gpu_does_not_compute_is_tried_on_another_node(project):
    """Stand-in GPUs, with which no torch can compute; nothing is said to have failed."""
    if "gpu" not in ask("sinfo", "--noheader", "--format", "%G").stdout:
        pytest.skip("this cluster has no GPUs")
    project.profile(train={"gpu": 1}, retries=1, jobs=1)
    shown, _ = (workflow := project.workflow()).communicate()
    if project.record("other"):
        pytest.skip("the GPUs of this cluster compute")
    assert workflow.returncode != 0
    assert not project.files("results/runs/*/*/*/result-*.json")
    logs = [path.read_text() for path in project.files("results/batches/*.log")]
    assert max(log.count("this run was promised a GPU") for log in logs) == 2, shown
    assert len(project.files("results/faulty-nodes/*")) == 2


@pytest.mark.parametrize(
    "asked, sentence",
    [
        ({}, ""),
        ({"slurm_partition": "nowhere"}, "asks for the partition 'nowhere', but there are"),
        ({"runtime": 10**7}, "but at most"),
        ({"mem_mb": 10**9}, "MB of memory (mem_mb), but no node"),
        ({"constraint": "nothing"}, "Slurm would not take a job"),
    ],
)
def test_the_plan_says_whether_slurm_would_take_the_jobs(asked, sentence, undisturbed):
    undisturbed.profile(asked)
    options = ("own.yaml", "--profile", "profiles/mine")
    code, shown = undisturbed.module("benchmarks.runs.forecast", *options)
    assert (code != 0) == bool(sentence) and sentence in shown, shown
