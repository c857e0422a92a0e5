"""Records, what gathers them, and what they say of a plan."""

import dataclasses
import errno
import json
import lzma
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

import baselines
from analysis.records import reading
from benchmarks.common import files
from benchmarks.common.data_dir import data_dir
from benchmarks.common.errors import DataError
from benchmarks.common.files import read_json, write_bytes, write_json
from benchmarks.common.progress import Progress
from benchmarks.runs import published, results, sources
from benchmarks.runs.forecast import Forecast, Machine
from benchmarks.runs.plan import load_plan
from benchmarks.runs.status import describe
from tests.small_runs import make, plan_of

pytestmark = pytest.mark.slow


def test_a_data_directory_that_is_none_is_one_sentence(project, monkeypatch):
    monkeypatch.setenv("TREELORA_DATA", "no-such-folder")
    with pytest.raises(DataError, match="no-such-folder is no folder: correct TREELORA_DATA"):
        plan_of({"seqlora": {}})


def test_seeds_of_a_row_go_together_whatever_is_done(project, whole):
    plan = plan_of({"seqlora": {}, "gem": {}}, seeds=(0, 1, 2, 3))
    seeds = [[run.seed for run in batch.runs] for batch in plan.batches(3)]
    assert seeds == [[0, 1, 2], [3]] * 2
    assert all(len({run.label for run in batch.runs}) == 1 for batch in plan.batches(3))
    names = [batch.name for batch in plan.batches(3)]
    assert len(set(names)) == 4
    (first,) = (batch for batch in plan.batches(3) if batch.runs[0].key == whole["key"])
    write_json(Path(first.runs[0].record), whole)
    assert [batch.name for batch in plan.batches(3)] == names
    assert [run.seed for run in first.open_runs()] == [1, 2]
    for bad in (0, "two", True, 1.5):
        with pytest.raises(DataError, match=f"TOGETHER.*{bad!r}"):
            plan.batches(bad)


def test_a_plan_tells_what_is_recorded_from_what_is_estimated(project, monkeypatch, whole):
    monkeypatch.setattr(reading, "PUBLISHED", project / "none")
    plan = plan_of({"seqlora": {}, "gem": {}}, seeds=(0, 1))
    (one,) = (run for run in plan.runs if run.key == whole["key"])
    write_json(Path(one.record), whole)
    lines = {line.split()[0]: line for line in Forecast(plan, Machine()).text().splitlines()}
    assert re.search(r"1 of 2 done .* \d+ (s|min) each$", lines["seqlora"])
    assert "0 of 2 done" in lines["gem"] and "~" in lines["gem"]
    assert re.search(r" 1 run, \d+ (s|min) as recorded on a CPU\b", lines["to"])
    assert re.search(r" 2 runs, ~\d+ (s|min) as estimated for a CPU\b", lines["to"])
    assert "0.05 (0.05 in bf16) TFLOP/s" in lines["~"]
    assert Forecast(plan, Machine()).text(each=True).count("results/runs/") == 4
    assert "at an assumed 60 (60 in bf16) TFLOP/s" in Forecast(plan, Machine(), tflops=60).text()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is no result record"),
        ('{"schema": 99, "status": "done", "error": null, "key": "", "spec": {}}', "has schema 99"),
        (
            '{"schema": 1, "status": "done", "error": null, "key": "abc", "spec": {}}',
            "belongs to run 'abc'",
        ),
        ('{"schema": 1, "schema": 1}', "the key 'schema' stands twice"),
        ("\ufeff{}", "is not valid JSON"),
    ],
)
def test_a_corrupt_or_foreign_record_is_named_and_kept(project, content, sentence):
    (one,) = plan_of({"seqlora": {}}).runs
    path = Path(one.record)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(DataError, match=sentence) as caught:
        make(one)
    assert str(path) in str(caught.value)
    assert path.read_text() == content


def test_a_record_that_is_no_file_is_named(project):
    (one,) = plan_of({"seqlora": {}}).runs
    path = Path(one.record)
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(DataError, match="result-.*.json is no file"):
        one.status()


@pytest.mark.parametrize("changes", [{"status": "lost"}, {"spec": {}}, {"status": "failed"}])
def test_a_damaged_record_is_named_before_anything_is_made(project, changes):
    plan = plan_of({"seqlora": {}})
    (one,) = plan.runs
    whole = {"schema": 1, "status": "done", "error": None, "key": one.key, "spec": one.spec}
    path = Path(one.record)
    write_json(path, whole)
    assert not one.is_open()
    write_json(path, whole | changes)
    with pytest.raises(DataError, match="is damaged") as caught:
        describe(plan)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"status": "done"}', '{"status": "done", "spec": 1}']
)
def test_a_damaged_record_of_another_suite_does_not_stop_a_plan(
    project, monkeypatch, capsys, content
):
    monkeypatch.setattr(reading, "PUBLISHED", project / "published")
    published = project / "published/other.runs.jsonl.xz"
    alien = Path("results/runs/other/seqlora/s0-abc/result.json")
    for path, pack in ((published, lzma.compress), (alien, bytes)):
        path.parent.mkdir(parents=True)
        path.write_bytes(pack(f"{content}\n".encode()))
    assert "1 runs: 1 open" in Forecast(plan_of({"seqlora": {}}), Machine()).text()
    said = capsys.readouterr().err
    assert said.count(str(alien)) == 1 and said.count(str(published)) == 1


def test_text_from_outside_does_not_steer_the_terminal(project, capsys):
    plan = plan_of({"seqlora": {}})
    (one,) = plan.runs
    object.__setattr__(plan, "label", "a\x1b[2Jb\nc")
    record = {"schema": 1, "status": "failed", "key": one.key, "spec": one.spec}
    write_json(Path(one.record), record | {"error": "x\x1b]0;y\x07\u202e"})
    lines = describe(plan)
    Progress("z\x1b[1m", 1, "steps").say("task \x1b[31m")
    for text in (lines, str(DataError("\x1b[2J\n")), capsys.readouterr().err):
        assert not set(text) & set("\x1b\x07\u202e") and "\\x1b" in text
    assert len(lines.splitlines()) == 5


def test_a_folder_that_cannot_be_written_is_one_sentence(project, monkeypatch):
    Path("blocked").write_text("a file")
    for call in (
        lambda: files.check_writable("fine", "blocked"),
        lambda: write_json(Path("blocked/a.json"), {}),
    ):
        with pytest.raises(DataError, match="blocked"):
            call()

    def read_only(**options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files.tempfile, "TemporaryFile", read_only)
    with pytest.raises(DataError, match="fine .Read-only file system.: make the folder writable"):
        files.check_writable("fine")


def test_a_damaged_spec_is_written_anew(project):
    (one,) = plan_of({"seqlora": {}}).runs
    spec = Path(one.write_spec())
    whole = spec.read_bytes()
    spec.write_bytes(whole[:100])
    assert one.write_spec() == str(spec) and spec.read_bytes() == whole


def test_the_same_suite_collects_to_the_same_bytes(project, whole):
    plan = plan_of({"treelora": {}, "seqlora": {}}, seeds=(1, 0))
    for one in plan.runs:
        write_json(Path(one.record), whole | {"key": one.key, "spec": one.spec})
    results.collect(plan, Path("a.jsonl"))
    results.collect(plan, Path("b.jsonl"))
    assert Path("a.jsonl").read_bytes() == Path("b.jsonl").read_bytes()
    rows = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    places = [(r["spec"]["method"]["label"], r["spec"]["seed"]) for r in rows]
    assert places == [("seqlora", 0), ("seqlora", 1), ("treelora", 0), ("treelora", 1)]
    assert "4 runs: 4 done" in describe(plan)


def test_collected_records_have_the_names_that_the_suite_has_now(project, whole):
    plan = dataclasses.replace(plan_of({"seqlora": {"title": "Sequential"}}), reference="seqlora")
    write_json(Path(plan.runs[0].record), whole)  # of another title
    results.collect(plan, Path("runs.jsonl"))
    record = json.loads(Path("runs.jsonl").read_text())
    assert record["suite"]["reference"] == "seqlora"
    assert record["spec"]["method"]["title"] == "Sequential"
    results.collect(plan_of({"seqlora": {}}), Path("runs.jsonl"))
    record = json.loads(Path("runs.jsonl").read_text())
    assert "reference" not in record["suite"] and "title" not in record["spec"]["method"]


def test_records_of_earlier_versions_lose_the_losses_of_their_steps(project, whole):
    plan = plan_of({"seqlora": {}})
    (one,) = plan.runs
    write_json(Path(one.record), whole | {"curve": [{"task": 0, "samples": 8, "loss": 1.5}]})
    assert one.status() == "done"
    results.collect(plan, Path("runs.jsonl"))
    assert "curve" not in json.loads(Path("runs.jsonl").read_text())


def test_only_what_was_published_is_restored(project, monkeypatch, whole, capsys):
    plan = plan_of({"seqlora": {}})
    (one,) = plan.runs
    monkeypatch.setattr(reading, "PUBLISHED", project / "published")
    path = Path(one.record)
    write_json(path, whole | {"provenance": whole["provenance"] | {"dirty": False}})
    (file,) = results.publish(plan, Path("runs.jsonl"))
    path.unlink()
    monkeypatch.setattr(sys, "argv", ["results", "restore", "own.yaml"])
    results.main()
    assert "1 of 1" in capsys.readouterr().out and one.status() == "done"
    results.collect(plan, Path("again.jsonl"))
    assert Path("again.jsonl").read_bytes() == Path("runs.jsonl").read_bytes()
    same = {"seqlora-again": {"method": "seqlora"}, "seqlora": {"grid": {"rank": [8]}}}
    assert "2 of 2" in results.restore(plan_of(same))
    path.unlink()
    record = lzma.decompress(file.read_bytes())
    file.write_bytes(lzma.compress(record.replace(b'"seed": 0', b'"seed": 00')))
    with pytest.raises(DataError, match="own.runs.jsonl.xz has the digest"):
        results.restore(plan)
    assert not path.exists()


@pytest.mark.parametrize("suite", reading.published())
def test_published_records_are_those_of_the_suites_as_they_are(suite, tmp_path, monkeypatch):
    """Tried on the first of each."""
    monkeypatch.chdir(tmp_path)
    with lzma.open(reading.published()[suite]) as file:
        key = json.loads(next(file))["key"]
    plan = load_plan(suite)
    only = {suite: reading.published()[suite]}
    monkeypatch.setattr(reading, "published", lambda: only)  # all are read elsewhere
    found = [run for run in plan.runs if run.key == key]
    if not found and not data_dir():
        pytest.skip("the key is that of the files of TREELORA_DATA")
    (one,) = found
    assert "1 of 1" in results.restore(dataclasses.replace(plan, runs=[one]))
    assert one.status() == "done"


def test_what_was_published_by_other_code_is_restored_once_vouched_for(project, monkeypatch, whole):
    plan = plan_of({"seqlora": {}})
    (one,) = plan.runs
    monkeypatch.setattr(reading, "PUBLISHED", project / "published")
    path = Path(one.record)
    write_json(path, whole | {"provenance": whole["provenance"] | {"dirty": False}})
    results.publish(plan, Path("runs.jsonl"))
    path.unlink()
    code = one.sources | {"baselines/common/loop.py": "0" * 12}
    monkeypatch.setattr(sources, "of", lambda spec: code)
    plan = plan_of({"seqlora": {}})
    said = results.restore(plan)
    assert "0 of 1 runs" in said and "baselines/common/loop.py changed since 1 published" in said
    assert plan.runs[0].status() == "open"
    published.vouch({"own": [one.spec]})
    assert "1 of 1 runs" in results.restore(plan) and plan.runs[0].status() == "done"
    assert read_json(Path(plan.runs[0].record))["provenance"]["sources"] == code


def test_a_change_that_moves_no_number_is_vouched_for(project, monkeypatch, whole, capsys):
    plan = plan_of({"seqlora": {}})
    (one,) = plan.runs
    monkeypatch.setattr(reading, "PUBLISHED", project / "published")
    facts = whole["provenance"] | {"dirty": False}
    write_json(Path(one.record), whole | {"provenance": facts})
    results.publish(plan, Path("runs.jsonl"))
    code = one.sources | {"baselines/seqlora.py": "0" * 12}
    monkeypatch.setattr(sources, "of", lambda spec: code)
    with pytest.raises(DataError, match="git knows no commit nothing-like-it"):
        published.compare("nothing-like-it")
    monkeypatch.setattr(published, "_extract", lambda *_: None)
    for numbers in (lambda code, _: code.name, lambda *_: None):
        monkeypatch.setattr(published, "_numbers", numbers)
        with pytest.raises(DataError, match="not vouched for: seqlora"):
            published.compare("HEAD")
        assert published.differing("own", one.spec) == ["baselines/seqlora.py"]
    monkeypatch.setattr(published, "_numbers", lambda *_: ([[0.5]], {}))
    published.compare("HEAD")
    assert published.differing("own", one.spec) == []
    assert f"{one.key}, seqlora on glyphs: the same numbers" in capsys.readouterr().out


def is_present(spec):
    """Whether the method is still of that version."""
    method = spec["method"]
    return method["version"] == baselines.load(method["name"], spec["modality"]).version


def test_published_records_are_vouched_for_with_the_present_code():
    """Those of an earlier version of a method have other keys, and are marked in tables."""
    found = {
        (suite, file)
        for suite, of_suite in published.records().items()
        for record in of_suite
        if record["status"] == "done" and is_present(record["spec"])
        for file in published.differing(suite, record["spec"])
    }
    assert not found, (
        f"{found} differ from what was published: where no number may have changed, say "
        "`python -m benchmarks.runs.published COMMIT`, with the last commit before the change; "
        "where one has, make the suites anew and publish them"
    )


def test_two_suite_files_of_one_name_do_not_share_results(project):
    plan = plan_of({"seqlora": {}})
    plan.claim_results()
    for folder in ("other", "moved"):
        shutil.copytree(".", folder, ignore=shutil.ignore_patterns("other"))
    with pytest.raises(DataError, match="results/own belongs to the suite own.yaml, and other/own"):
        load_plan("other/own.yaml")
    assert load_plan(str(Path("own.yaml").absolute())).name == "own"
    Path("own.yaml").rename("demo.yaml")
    assert load_plan("other/own.yaml").name == "own"  # the other one is gone
    with pytest.raises(DataError, match="suites/demo.yaml, and demo.yaml has the same name: give"):
        load_plan("demo.yaml")
    os.chdir("moved")  # with its results
    assert load_plan("own.yaml").name == "own"


def test_of_a_run_of_several_suites_the_own_record_is_restored(project, monkeypatch, whole):
    plan = plan_of({"seqlora": {}})
    (one,) = plan.runs
    monkeypatch.setattr(reading, "PUBLISHED", project / "published")
    path = Path(one.record)
    for threads, suite in ((7, plan), (8, dataclasses.replace(plan, file=Path("another.yaml")))):
        facts = whole["provenance"] | {"dirty": False, "threads": threads}
        write_json(path, whole | {"provenance": facts})
        results.publish(suite, Path("runs.jsonl"))
    path.unlink()
    assert "1 of 1" in results.restore(plan)
    assert read_json(path)["provenance"]["threads"] == 7


def test_only_complete_suites_from_committed_code_are_published(project, monkeypatch, whole):
    plan = plan_of({"seqlora": {}})
    path = Path(plan.runs[0].record)
    monkeypatch.setattr(reading, "PUBLISHED", project / "published")

    def stored(**changes):
        write_json(path, whole | changes)
        return plan, Path("runs.jsonl")

    with pytest.raises(DataError, match="run from uncommitted code"):
        results.publish(*stored(provenance=whole["provenance"] | {"dirty": True}))
    with pytest.raises(DataError, match="failed .no.: only complete"):
        results.publish(*stored(status="failed", error="no"))
    (target,) = results.publish(*stored(provenance=whole["provenance"] | {"dirty": False}))
    assert lzma.decompress(target.read_bytes()).count(b"\n") == 1
    assert "own.runs.jsonl.xz" in (project / "published" / "SHA256SUMS").read_text()


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    target = tmp_path / "state.pt"
    write_bytes(target, b"old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DataError, match="could not be saved .No space left on device.: make room"):
        write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
