"""What happens to runs on a cluster: jobs end early, nodes fail, Snakemake is killed."""

from tests.cluster.conftest import ask


def node_of(job):
    return ask("squeue", "--noheader", "--job", job, "--format", "%N").stdout.strip()


def made_once(project):
    """How often each finished run was said to be made."""
    return [line for line in project.logs().splitlines() if "task 4 of 4" in line and " s" in line]


def test_a_suite_is_made_as_jobs(undisturbed):
    assert len(undisturbed.records()) == 2
    assert all(record["status"] == "done" for record in undisturbed.records().values())
    assert (undisturbed.folder / "results/own/report/index.html").exists()


def test_a_requeued_job_goes_on(project, undisturbed):
    process = project.workflow()
    project.wait_for_states()
    (job, *_) = project.jobs()
    ask("scontrol", "requeue", job)
    shown, _ = process.communicate()
    assert process.returncode == 0, shown
    assert project.scores() == undisturbed.scores()
    tries = [record["provenance"].get("tries", []) for record in project.records().values()]
    assert max(map(len, tries)) == 2
