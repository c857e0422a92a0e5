"""What happens to runs on a cluster: jobs end early, nodes fail, Snakemake is killed.

Nothing that is finished is lost or made twice, and what was cut off ends with the same scores.
"""

import signal

import pytest

from tests.cluster.conftest import ask


def administered(*command):
    """A command of the cluster's administrators."""
    done = ask(*command, check=False)
    if done.returncode:
        pytest.skip(f"needs an administrator of Slurm: {done.stderr.strip()}")


def test_a_suite_is_made_as_jobs(undisturbed):
    assert undisturbed.scores()["quick"] == undisturbed.scores()["slow"]
    assert (undisturbed.folder / "results/own/report/index.html").exists()


def test_a_requeued_job_goes_on(project, undisturbed):
    workflow = project.workflow()
    ask("scontrol", "requeue", project.job_of("slow"))
    project.finish(workflow)
    assert project.scores() == undisturbed.scores()
    assert project.tries("slow") == 2


def test_a_job_that_hit_its_time_limit_is_submitted_again_and_goes_on(project, undisturbed):
    workflow = project.workflow()
    ask("scontrol", "update", f"JobId={project.job_of('slow')}", "TimeLimit=1")
    shown = project.finish(workflow)
    assert "SLURM status is: 'TIMEOUT'" in shown
    assert project.scores() == undisturbed.scores()
    assert project.tries("slow") == 2


def test_a_run_that_is_finished_survives_the_time_limit_of_its_group(project, undisturbed):
    workflow = project.workflow("--groups", "train=runs", "--group-components", "runs=2")
    job = project.job_of("slow")
    project.wait_until(lambda: project.record("quick"))
    before = project.record("quick").read_bytes()
    ask("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    shown = project.finish(workflow)
    assert "SLURM status is: 'TIMEOUT'" in shown
    assert project.record("quick").read_bytes() == before
    assert project.scores() == undisturbed.scores()
    assert project.tries("slow") == 2


def test_after_snakemake_was_killed_no_run_is_made_twice(project, undisturbed):
    workflow = project.workflow()
    job = project.job_of("slow")
    administered("scontrol", "suspend", job)
    workflow.send_signal(signal.SIGKILL)
    workflow.communicate()
    project.finish(project.workflow("--unlock"))
    workflow = project.workflow()
    project.wait_until(lambda: "waits for it" in project.logs())
    ask("scontrol", "resume", job)
    project.finish(workflow)
    assert f"(Slurm job {job}): waits for it" in project.logs()
    assert project.scores() == undisturbed.scores()
    assert project.tries("slow") == 1


def test_a_run_goes_on_at_another_node_when_its_own_goes_down(project, undisturbed):
    workflow = project.workflow()
    job = project.job_of("slow")
    node = ask("squeue", "--noheader", "--job", job, "--format", "%N").stdout.strip()
    administered("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    try:
        project.finish(workflow)
    finally:
        ask("scontrol", "update", f"NodeName={node}", "State=RESUME")
    assert project.scores() == undisturbed.scores()
    assert project.tries("slow") == 2


def test_a_job_whose_gpu_does_not_compute_is_tried_on_another_node(project):
    """Stand-in GPUs, with which no torch can compute; nothing is said to have failed."""
    if "gpu" not in ask("sinfo", "--noheader", "--format", "%G").stdout:
        pytest.skip("this cluster has no GPUs")
    project.profile(train={"gpu": 1}, retries=1)
    shown, _ = (workflow := project.workflow()).communicate()
    if project.record("quick"):
        pytest.skip("the GPUs of this cluster compute")
    assert workflow.returncode != 0
    assert not project.files("results/runs/*/*/*/result-*.json")
    assert project.logs().count("this run was promised a GPU") == 4, shown  # two runs, twice each
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
    code, shown = undisturbed.module("benchmarks.runs.status", *options)
    assert (code != 0) == bool(sentence) and sentence in shown, shown
