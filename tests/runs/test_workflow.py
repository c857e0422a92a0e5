"""The workflow from end to end, on a copy of the working tree."""

import json
import os
import re
import shutil
import signal
import time
from collections import Counter

import processes
import pytest
import yaml

from tests.checkout import ROOT, Checkout, asking, scheduled, suite, trained

# All tests share a checkout, which each leaves as it was but for the one that is killed.
pytestmark = pytest.mark.slow

NAME = "my suite's (1).yaml"  # what a shell would not take for one word
OUT = "results/my suite's (1)"


def mine() -> dict:
    """The smoke suite with two seeds and few methods, one of which fails and one is new."""
    changed = suite("smoke") | {"seeds": [0, 1]}
    vision, language = changed["experiments"]
    diverging = {"method": "seqlora", "learning_rate": 1e30, "clip_norm": None}
    vision["methods"] = {"diverging": diverging, "anchor": {}}
    language["methods"] = {"treelora": {"strength": 0.5}}
    return changed


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, prepared_stream):
    """A checkout in which the suite has been run, in a folder whose name has a space.

    The example of a method has been added to it as docs say: its file, and its name in the suite.
    The docs, which take long, are there already; the glyphs are prepared by the workflow, of arrays
    that were drawn for other tests.
    """
    checkout = Checkout(tmp_path_factory.mktemp("a checkout"))
    shutil.copy(ROOT / "examples/anchor.py", checkout.folder / "baselines")
    (checkout.folder / NAME).write_text(yaml.safe_dump(mine()))
    shutil.copytree(prepared_stream("docs"), checkout.folder / "resources/streams/docs")
    glyphs, file = prepared_stream("glyphs"), checkout.folder / "benchmarks/streams/glyphs.py"
    drawn = ", ".join(
        f"dict(np.load({str(glyphs / part)!r}))" for part in ("data.npz", "pretrain.npz")
    )
    build, text = "data, pretrain = build()", file.read_text()
    assert build in text
    file.write_text(text.replace(build, f"data, pretrain = {drawn}"))
    checkout.first = checkout.snakemake(suite=NAME)
    return checkout


def record_of(checkout, run):
    """The file of a run's record, the run as stream/method/seed."""
    (path,) = checkout.files(f"results/runs/{run}-*/result-*.json")
    return path


def test_a_suite_leaves_every_file_and_a_failed_run_is_reported(checkout):
    """Seeds of a method go through one process; the other runs go on where one fails."""
    assert scheduled(checkout.first)["train"] == 3 and len(trained(checkout.first)) == 6
    records = [json.loads(line) for line in open(checkout.folder / OUT / "runs.jsonl")]
    failed = [r["spec"]["method"]["label"] for r in records if r["status"] == "failed"]
    assert len(records) == 6 and failed == ["diverging"] * 2
    for pattern in ("summary.csv", "tables/*.md", "tables/*.tex", "tables/*.csv", "figures/*.svg"):
        found = checkout.files(f"{OUT}/{pattern}")
        assert found and all(path.stat().st_size for path in found), pattern
    page = (checkout.folder / OUT / "report/index.html").read_text()
    assert all(word in page for word in ("treelora", "anchor", "diverging", "lower learning_rate"))
    code, shown = checkout.module("benchmarks.runs.status", NAME, "--complete")
    assert code != 0 and "2 of 6 runs failed" in shown and "6 runs are still open" not in shown
    assert "lower learning_rate" in shown and f"{OUT}/report/index.html" in shown
    for said in (checkout.first, checkout.first.rpartition("Finished jobid")[2]):
        assert "diverging/s0-" in said and "failed" in said
    told = re.findall(r"^(\d) of 6 runs: (\S+) on \S+, seed \d: (\w+)", checkout.first, re.M)
    assert [int(n) for n, *_ in told] == [1, 2, 3, 4, 5, 6]
    ends = {("anchor", "ACC"): 2, ("diverging", "failed"): 2, ("treelora", "OP"): 2}
    assert Counter((label, end) for _, label, end in told) == ends
    assert checkout.first.count(" left\n") == 5


def test_what_was_answered_scores_as_recorded(checkout):
    """On images and on text; the run that failed has answered nothing."""
    code, shown = checkout.module("benchmarks.runs.rescore", NAME)
    assert code == 0 and "All 20 scores of R that were kept are the recorded ones" in shown
    assert "anchor" in shown and "treelora" in shown and "diverging" not in shown


def test_a_second_run_schedules_nothing_from_any_folder_and_in_any_batches(checkout, tmp_path):
    options = ("--snakefile", str(checkout.folder / "Snakefile"))
    shown = checkout.snakemake(*options, suite=NAME, config=("together=1",), cwd=tmp_path)
    assert scheduled(shown) == {}
    assert [path.name for path in tmp_path.iterdir()] == [".snakemake"]  # its log


def test_a_changed_suite_schedules_what_is_new_in_it(checkout):
    """In a copy under another name: a method's new setting, and a seed for all."""
    changed = mine() | {"seeds": [2, 0, 1]}
    changed["experiments"][0]["methods"]["anchor"] = {"learning_rate": 0.00123}
    (checkout.folder / "copy.yaml").write_text(yaml.safe_dump(changed))
    shown = checkout.snakemake("--dry-run", suite="copy.yaml")
    assert trained(shown) == {
        *(("anchor", "glyphs", seed) for seed in (0, 1, 2)),
        *(("diverging", "glyphs", 2), ("treelora", "docs", 2)),
    }
    assert scheduled(shown) == {"train": 3, "collect": 1, "analyse": 1, "all": 1}


def test_open_runs_are_made_whatever_must_be_prepared_anew(checkout):
    """Of the runs that are done none is made again, though their stream is gone as well."""
    moved = [
        record_of(checkout, "glyphs/anchor/s1"),
        record_of(checkout, "docs/treelora/s0"),
        checkout.folder / "resources/streams/docs/manifest.json",
    ]
    for number, path in enumerate(moved):
        path.rename(checkout.folder / str(number))
    shown = checkout.snakemake("--dry-run", "--forcerun", "prepare", "backbone", suite=NAME)
    code, status = checkout.module("benchmarks.runs.status", NAME, "--complete")
    for number, path in enumerate(moved):
        (checkout.folder / str(number)).rename(path)
    assert trained(shown) == {("anchor", "glyphs", 1), ("treelora", "docs", 0)}
    made = scheduled(shown)
    assert (made["prepare"], made["backbone"], made["train"]) == (2, 2, 2)
    assert code != 0 and "2 of 6 runs" in status


def test_an_edited_method_is_made_anew_until_the_edit_is_undone(checkout):
    """And where only a comment or a docstring was edited it is not."""
    path = checkout.folder / "baselines/anchor.py"
    text = path.read_text()
    path.write_text(text.replace("strength: float = 1.0", "strength: float = +1.0"))
    shown = checkout.snakemake("--dry-run", suite=NAME)
    assert trained(shown) == {("anchor", "glyphs", seed) for seed in (0, 1)}
    code, shown = checkout.module("benchmarks.runs.status", NAME)
    assert code == 0 and "baselines/anchor.py changed since 2 runs were made" in shown
    path.write_text(text.replace('"""Anchor', '# Edited\n"""Another', 1))
    shown = checkout.snakemake("--dry-run", suite=NAME)
    path.write_text(text)
    assert scheduled(shown) == {}


def test_an_edited_stream_is_prepared_and_learnt_anew(checkout):
    path = checkout.folder / "benchmarks/streams/glyphs.py"
    text = path.read_text()
    path.write_text(f"{text}\nEDITED = True\n")
    shown = checkout.snakemake("--dry-run", suite=NAME)
    path.write_text(text)
    rows = [(method, "glyphs", seed) for method in ("anchor", "diverging") for seed in (0, 1)]
    assert trained(shown) == set(rows)
    assert scheduled(shown)["prepare"] == 1


def test_deleted_exhibits_are_redrawn_without_training(checkout):
    deleted = [checkout.files(f"{OUT}/{kind}/*")[0] for kind in ("tables", "figures")]
    before = [path.read_bytes() for path in deleted]
    for path in deleted:
        path.unlink()
    assert scheduled(checkout.snakemake(suite=NAME)) == {"analyse": 1, "all": 1}
    assert [path.read_bytes() for path in deleted] == before


def test_a_changed_label_and_changed_analysis_redraw_and_do_not_train(checkout):
    path = checkout.folder / NAME
    written = path.read_text()
    path.write_text(yaml.safe_dump(mine() | {"label": "another"}))
    made = scheduled(checkout.snakemake("--dry-run", suite=NAME))
    path.write_text(written)
    assert made == {"collect": 1, "analyse": 1, "all": 1}
    code = checkout.folder / "analysis/figures/style.py"
    code.write_text(code.read_text() + "\n# another look\n")
    made = scheduled(checkout.snakemake("--dry-run", suite=NAME))
    shutil.copy2(ROOT / "analysis/figures/style.py", code)
    assert made == {"analyse": 1, "all": 1}


def test_a_killed_workflow_continues_with_the_run_that_was_cut_off(checkout, tmp_path):
    """The record made before stays; of a batch only what is open is made."""
    records = [record_of(checkout, f"glyphs/anchor/s{seed}") for seed in (0, 1)]
    scores = [json.loads(path.read_text())["R"] for path in records]
    for path in records:
        path.unlink()
    process = checkout.fork("snakemake", *asking(NAME), out=tmp_path / "out")
    while process.is_alive() and not records[0].exists():
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert records[0].exists() and not records[1].exists()
    before = records[0].read_bytes()
    checkout.snakemake("--unlock", suite=NAME)
    shown = checkout.snakemake("--until", "train", suite=NAME)
    assert trained(shown) == {("anchor", "glyphs", 1)}
    assert records[0].read_bytes() == before
    assert [json.loads(path.read_text())["R"] for path in records] == scores


def test_a_notebook_gets_a_row_for_each_run_and_draws(checkout):
    """Its method is a file outside, of which the checkout has a copy under the same name."""
    copy, aside = checkout.folder / "baselines/anchor.py", checkout.folder / "aside.py"
    copy.rename(aside)
    command = processes.interpreter(), "examples/notebook.py"
    code, shown = checkout.run(*command, PYTHONPATH=".")
    again = checkout.snakemake("--dry-run", suite="results/first-look.yaml")
    aside.rename(copy)
    runs = [(method, seed) for method in ("seqlora", "anchor") for seed in (0, 1)]
    assert code == 0, shown
    assert trained(shown) == {(method, "glyphs", seed) for method, seed in runs}
    assert not trained(again)
    rows = [line for line in shown.splitlines() if line.endswith(".json")]
    for line, (method, seed) in zip(rows, runs, strict=True):
        spec = json.loads(open(line[line.index("/") :]).read())["spec"]
        assert (spec["method"]["label"], spec["seed"]) == (method, seed)
        assert line.split()[1:3] == [method, str(seed)]
    assert checkout.files("results/first-look/curves.png")


def test_a_backbone_is_pretrained_on_its_stream_without_options(checkout):
    changed = suite("trace_micro") | {"seeds": [0]}
    changed["experiments"][0]["stream"]["scoring"] = "released"
    changed["experiments"][0]["methods"] = {"seqlora": {}}
    (checkout.folder / "released.yaml").write_text(yaml.safe_dump(changed))
    made = scheduled(checkout.snakemake("--dry-run", suite="released.yaml"))
    assert (made["prepare"], made["pretrain"], made["backbone"]) == (2, 1, 1)


def as_a_job(checkout, suite):
    """Options of Snakemake as an executor passes them to the first job of a suite, in which there
    is no suite any more."""
    checkout.snakemake("--dry-run", suite=suite)
    newest = max(checkout.files("results/batches/*.json"), key=lambda path: path.stat().st_mtime)
    job = f"train:batch={newest.stem}"
    return "--mode", "remote", "--target-jobs", job, "--force", "--nolock", "--config", "suite=none"


def test_runs_are_told_of_the_gpu_that_they_were_promised(checkout):
    """By a profile that counts them, if there are any, and by the scheduler that took the job."""
    promises = [
        ("--own-gpu", "0", "--workflow-profile", "profiles/gpu"),
        ("--own-gpu", "0"),  # or several runs would share the first
        ("--threads 1", "", "--workflow-profile", "profiles/gpu"),
        ("--gpus 2", "", "--set-resources", "train:gpu=2", *as_a_job(checkout, "smoke")),
    ]
    for promise, visible, *options in promises:
        options += ["--dry-run", "--printshellcmds"]
        shown = checkout.snakemake(*options, suite="smoke", CUDA_VISIBLE_DEVICES=visible, GPUS="")
        runs = [line for line in shown.splitlines() if "python -m benchmarks.runs.run " in line]
        assert runs and all(f" {promise} 2>> " in line for line in runs), shown


def test_short_runs_share_a_job_and_leave_one_for_each_core(checkout):
    changed = suite("smoke")
    del changed["experiments"][1:]
    (checkout.folder / "short.yaml").write_text(yaml.safe_dump(changed))
    jobs = {}
    for cores in ("1", "2"):
        options = ("--dry-run", "--cores", cores)
        shown = checkout.snakemake(*options, suite="short.yaml", config=("job_minutes=60",))
        jobs[cores] = scheduled(shown)["train"]
    assert jobs["1"] == 1 < jobs["2"] < 4


def test_it_is_written_as_snakemake_advises(checkout):
    code, shown = checkout.module("snakemake", "--lint")
    assert code == 0, shown


def test_an_unknown_suite_is_one_sentence(checkout):
    for asked, near in (("suite=smoek", "smoke"), ("suit=smoke", "'suite'")):
        code, shown = checkout.module("snakemake", "--config", asked)
        assert code and near in shown and "Traceback" not in shown
