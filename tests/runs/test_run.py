"""Runs: made, killed and resumed, failed, refused."""

import dataclasses
import json
import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import processes
import pytest
import torch

from baselines.common.prompts import QueryCache
from baselines.seqlora import SeqLoRA
from benchmarks.common.errors import DataError
from benchmarks.common.files import read_json, write_bytes, write_json
from benchmarks.runs import learning, results, sources
from benchmarks.runs import run as runner
from benchmarks.runs import state as states
from benchmarks.runs.evaluate import answer
from benchmarks.runs.status import describe
from benchmarks.streams.common.tasks import load_stream
from tests.small_runs import N_TASKS, make, plan_of

pytestmark = pytest.mark.slow


def test_a_record_holds_what_was_asked_and_what_happened(project):
    (one,) = plan_of({"treelora": {}}).runs
    record = make(one)
    assert record == read_json(Path(one.record))
    assert record["status"] == "done" and record["spec"] == one.spec
    assert [len(row) for row in record["R"]] == [N_TASKS] * N_TASKS
    for i, row in enumerate(record["R"]):
        assert all(0 <= s <= 1 for s in row[: i + 1]) and row[i + 1 :] == [None] * (N_TASKS - 1 - i)
    task = record["tasks"][0]
    assert (task["steps"], task["samples"], task["n_train"], task["n_test"]) == (6, 24, 8, 4)
    assert task["train_seconds"] > 0 and task["peak_bytes"] > 10**6
    assert len(record["diagnostics"]["trees"]) == N_TASKS
    assert record["footprint"]["state_bytes"] > 1000
    assert record["provenance"]["weights_labels"] == "own"
    assert not one.state.exists()


def test_a_record_states_how_it_was_trained(project):
    options = {"micro_batch_size": 3, "augment": "crop_flip", "precision": "bfloat16"}
    (one,) = plan_of({"seqlora": options}).runs
    (plain,) = plan_of({"seqlora": {}}).runs
    record = make(one)
    assert record["status"] == "done" and one.key != plain.key
    assert {name: record["spec"]["train"][name] for name in options} == options
    assert record["provenance"]["tf32"] is None  # there is none on a CPU


def test_a_spec_from_before_an_option_is_run_without_it(project, whole):
    (one,) = plan_of({"seqlora": {}}).runs
    for name in ("micro_batch_size", "compile", "augment"):
        del one.spec["train"][name]
    assert make(one)["R"] == whole["R"]


def test_the_learning_curve_is_measured_and_changes_nothing(project):
    # with dropout, as a model that a test leaves in evaluation would learn on without it
    plans = [plan_of({"seqlora": {"curve_tests": n, "dropout": 0.3}}) for n in (0, 3)]
    records = [make(plan.runs[0]) for plan in plans]
    assert records[0]["R"] == records[1]["R"] and not records[0]["test_curve"]
    points = records[1]["test_curve"]
    for task in range(N_TASKS):
        own = [point for point in points if point["task"] == task]
        assert len(own) == 4 and own[0]["samples"] == 0
        assert own[-1]["samples"] == records[1]["tasks"][task]["samples"]
        assert own[-1]["score"] == records[1]["R"][task][task]


@pytest.mark.parametrize("file", ["seqlora.py", "glyphs.py", "ewc.py"])
def test_a_run_of_a_file_that_no_commit_has_is_uncommitted(project, monkeypatch, file):
    facts = runner.provenance() | {"dirty": False}
    monkeypatch.setattr(runner, "provenance", lambda: facts)
    monkeypatch.setattr(runner, "is_committed", lambda path: path.name != file)
    (one,) = plan_of({"seqlora": {}}, epochs=1).runs
    assert make(one)["provenance"]["dirty"] == (file != "ewc.py")


def test_a_method_is_made_ready_before_each_test_of_a_curve(project, monkeypatch):
    calls = []
    ready = "baselines.common.base.Method.ready_to_test"
    monkeypatch.setattr(ready, lambda self: calls.append(self))
    record = make(plan_of({"seqlora": {"curve_tests": 2}}).runs[0])
    assert len(calls) == len(record["test_curve"]) + N_TASKS  # and where each task ends


def test_a_record_says_how_often_the_task_of_an_image_was_inferred(project, monkeypatch, whole):
    (one,) = plan_of({"hidelora": {}}).runs
    monkeypatch.setattr(
        "baselines.common.hide.TwoPass.infer", lambda self, x: torch.ones(len(x)).long()
    )
    shares = [task["task_accuracy"] for task in make(one)["tasks"]]
    assert shares == [[0.0], [0.0, 1.0], [0.0, 1.0, 0.0]]
    assert not any("task_accuracy" in task for task in whole["tasks"])


@pytest.mark.parametrize("method", ["l2p", "hidelora"])
def test_tests_can_be_left_to_the_end_and_no_score_changes(project, method):
    whole, final = (make(plan_of({method: {"evaluate": when}}).runs[0]) for when in (None, "final"))
    rows = enumerate(whole["R"])
    asked = [[s if i in (j, N_TASKS - 1) else None for j, s in enumerate(row)] for i, row in rows]
    assert final["R"] == asked and whole["key"] != final["key"]
    if method == "hidelora":
        shares = [task["task_accuracy"] for task in final["tasks"]]
        assert shares[1][0] is None and shares[1][1] == whole["tasks"][1]["task_accuracy"][1]
        assert shares[2] == whole["tasks"][2]["task_accuracy"]


def test_training_samples_lie_in_random_order_with_their_labels(project):
    (one,) = plan_of({"seqlora": {}}).runs
    tasks, _ = load_stream(one.spec["stream"], seed=0)
    manifest = read_json(Path("resources/streams/glyphs/manifest.json"))
    names = [task["name"] for task in manifest["tasks"]]
    for t, task in enumerate(tasks):
        y = task.train.y.tolist()
        assert sorted(y) == [2 * t] * 4 + [2 * t + 1] * 4
        own = [2 * names.index(task.name) + label - 2 * t for label in y]
        assert task.train.x[:, 0, 0].tolist() == [12 * label for label in own]
    assert any(task.train.y.tolist() != sorted(task.train.y.tolist()) for task in tasks)


def test_the_joint_learner_fills_the_last_row_only(project):
    (one,) = plan_of({"joint": {}}).runs
    record = make(one)
    assert record["R"][:-1] == [[None] * N_TASKS] * (N_TASKS - 1)
    assert all(isinstance(s, float) for s in record["R"][-1])
    assert len(record["tasks"]) == 1
    assert record["tasks"][0]["samples"] == N_TASKS * 8 * 3


def made_by_command(monkeypatch, *specs):
    """The exit status of the command that makes these runs."""
    monkeypatch.setattr(sys, "argv", ["run", *map(str, specs)])
    try:
        return runner.main()
    except SystemExit as stopped:
        return stopped.code


def test_a_run_that_killed_its_process_goes_last(project, monkeypatch):
    """Or what kills it, such as a lack of memory, would keep the others from being made."""
    first, second = (Path(one.write_spec()) for one in plan_of({"seqlora": {}}, seeds=(0, 1)).runs)
    made = []

    def killed(run):
        made.append(run.key)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.Run, "make", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            made_by_command(monkeypatch, first, second)
    assert made == [read_json(first)["key"], read_json(second)["key"]]


def test_runs_of_one_process_that_is_killed_end_with_the_same_scores(project, monkeypatch, capsys):
    """What is done stays as it is, and the run in the middle continues at its last task."""
    plan = plan_of({"ewc": {}}, seeds=(0, 1), epochs=8, learning_rate=0.001)
    alone = [make(one) for one in plan.runs]
    shutil.rmtree("results")
    specs = [one.write_spec() for one in plan.runs]
    done, cut, state = Path(plan.runs[0].record), Path(plan.runs[1].record), plan.runs[1].state
    process = processes.start("benchmarks.runs.run", *specs)
    while process.is_alive() and not state.exists():
        time.sleep(0.005)
    process.kill()
    process.join()
    assert not cut.exists(), "the run was over before it could be killed"
    before = done.read_bytes()
    assert not made_by_command(monkeypatch, *specs)
    assert done.read_bytes() == before
    assert "continues after task" in capsys.readouterr().err
    for record, path in zip(alone, (done, cut), strict=True):
        again = read_json(path)
        assert json.dumps(again["R"]) == json.dumps(record["R"])
        assert again["diagnostics"] == record["diagnostics"]
        losses = [[task["last_loss"] for task in r["tasks"]] for r in (again, record)]
        assert losses[0] == losses[1]


def test_a_failed_run_does_not_hurt_the_others_of_its_process(project, monkeypatch, whole):
    plan = plan_of({"seqlora": {}}, seeds=(2, 1, 0))
    failing, damaged, fine = (Path(one.write_spec()) for one in plan.runs)
    asked = read_json(failing)
    asked["spec"]["backbone"]["digest"] = "0" * 64
    write_json(failing, asked)
    damaged.write_text("{")
    assert made_by_command(monkeypatch, failing, damaged, fine) not in (0, None)
    assert [one.status() for one in plan.runs] == ["failed", "open", "done"]
    assert read_json(Path(plan.runs[2].record))["R"] == whole["R"]
    before = Path(plan.runs[0].record).read_bytes()
    plan.runs[1].write_spec()
    assert made_by_command(monkeypatch, failing, damaged, fine) in (0, None)
    assert plan.runs[1].status() == "done"
    assert Path(plan.runs[0].record).read_bytes() == before  # made again on request only


@pytest.mark.parametrize("method", [{"gem": {"memory_per_task": 4}}, {"treelora": {}}])
def test_a_run_continues_after_its_last_task(project, monkeypatch, capsys, method):
    """Also that of an earlier version, whose state has the losses of its steps."""
    (one,) = plan_of(method).runs
    whole = make(one)
    Path(one.record).unlink()
    (answers,) = Path(one.directory).glob("predictions-*")
    answered = answers.read_bytes()
    answers.unlink()
    calls = []

    def cut(*arguments, **options):
        calls.append(1)
        if len(calls) > 1 + 2:  # after the first task, after the second
            raise KeyboardInterrupt
        return answer(*arguments, **options)

    monkeypatch.setattr(learning, "answer", cut)
    with pytest.raises(KeyboardInterrupt):
        make(one)
    monkeypatch.setattr(learning, "answer", answer)
    old = torch.load(one.state, weights_only=True)
    old["record"]["curve"] = [{"task": 0, "samples": 8, "loss": 1.5}]
    torch.save(old, one.state)
    record = make(one)
    assert "continues after task 2 of 3" in capsys.readouterr().err
    assert record["R"] == whole["R"] and record.keys() == whole.keys()
    assert record["diagnostics"] == whole["diagnostics"]
    assert answers.read_bytes() == answered
    assert not list(Path(one.directory).glob("state-*"))


def test_queries_of_test_images_are_kept_from_row_to_row(project, monkeypatch):
    (one,) = plan_of({"l2p": {"pool_size": 4, "top_k": 2}}).runs
    asked, repeated = [], QueryCache.repeated

    def spy(self, test):
        asked.append(test)
        return repeated(self, test)

    monkeypatch.setattr(QueryCache, "repeated", spy)
    assert make(one)["status"] == "done"
    assert asked == [test for row in range(N_TASKS) for test in range(row + 1)]


def test_the_start_of_the_classifier_reaches_the_run(project, whole):
    (one,) = plan_of({"seqlora": {}}, head_init="zero").runs
    assert make(one)["tasks"][0]["last_loss"] != whole["tasks"][0]["last_loss"]


def test_a_failed_run_leaves_a_record_and_can_be_retried(project, monkeypatch, capsys):
    plan = plan_of({"seqlora": {}}, learning_rate=1e30, clip_norm=None, epochs=30)
    (one,) = plan.runs
    record = make(one)
    assert record["status"] == "failed"
    assert "loss became" in record["error"] and "\n" not in record["error"]
    assert one.status() == "failed"
    assert "loss became" in describe(plan)
    monkeypatch.setattr(sys, "argv", ["results", "forget-failed", "own.yaml"])
    results.main()
    assert "1 failed runs will be made again" in capsys.readouterr().out
    assert one.status() in ("open", "started")
    assert results.forget_failed(plan) == 0


def test_a_record_is_not_lost_to_a_failure_in_making_it_again(project, monkeypatch):
    """As for what a suite wants to keep."""
    (one,) = plan_of({"seqlora": {}}).runs
    make(one)
    before = Path(one.record).read_bytes()
    one = dataclasses.replace(one, keep=("adapters",))
    monkeypatch.setattr(SeqLoRA, "state_dict", lambda _: None.detach())
    with pytest.raises(DataError, match="its record stays"):
        make(one)
    assert Path(one.record).read_bytes() == before


def test_what_a_record_cannot_hold_fails_its_run(project, monkeypatch):
    for index, value in enumerate((np.int64(1), float("nan"))):
        (one,) = plan_of({"seqlora": {}}, seeds=(index,)).runs
        monkeypatch.setattr(SeqLoRA, "diagnostics", lambda _, value=value: {"x": value})
        record = make(one)
        assert record["status"] == "failed" and "JSON" in record["error"]


def test_a_failed_run_says_where_in_the_code_and_keeps_its_traceback(project, monkeypatch, capsys):
    """The last line of the project's or the user's own, whatever library raised."""
    plan = plan_of({"seqlora": {}})
    (one,) = plan.runs
    log = Path(one.directory) / "log.txt"
    for attempt, fail in enumerate((lambda _: None.detach(), lambda _: torch.zeros(2).view(3))):
        monkeypatch.setattr(SeqLoRA, "state_dict", fail)
        error = make(one)["error"]
        assert re.search(r"\(tests/runs/test_run.py:\d+, in <lambda>\)$", error)
        assert error in capsys.readouterr().out
        assert log.read_text().count("Traceback (most recent call last)") == attempt + 1
    assert error.startswith("RuntimeError: shape") and "'NoneType' object" in log.read_text()
    shown = describe(plan)
    assert error in shown and str(log) in shown


def other_code(monkeypatch, one, file="baselines/seqlora.py"):
    """As if a file behind a run had been edited."""
    code = one.sources | {file: "0" * 12}
    monkeypatch.setattr(sources, "of", lambda spec: code)


def test_results_of_edited_code_are_outdated_and_kept_for_when_it_is_undone(
    project, monkeypatch, whole
):
    (one,) = plan_of({"seqlora": {}}).runs
    write_json(Path(one.record), whole)
    before = Path(one.record).read_bytes()
    assert whole["provenance"]["sources"] == one.sources
    with monkeypatch.context() as edit:
        other_code(edit, one)
        plan = plan_of({"seqlora": {}})
        (edited,) = plan.runs
        assert edited.status() == "outdated" and edited.is_open() and edited.key == one.key
        said = describe(plan)
        assert "baselines/seqlora.py changed since 1 runs were made" in said
        assert make(edited)["R"] == whole["R"] and edited.status() == "done"
    assert one.status() == "done" and Path(one.record).read_bytes() == before


def test_a_record_that_noted_no_code_is_outdated(project, whole):
    plan = plan_of({"seqlora": {}})
    (one,) = plan.runs
    write_json(Path(one.directory) / "result.json", whole | {"provenance": {}})
    assert one.status() == "outdated" and "the code changed since 1" in describe(plan)


def test_a_state_of_other_code_is_not_continued(project, monkeypatch, whole, capsys):
    (one,) = plan_of({"seqlora": {}}).runs
    save_state = learning.save_state

    def stop(*arguments):
        save_state(*arguments)
        raise RuntimeError("stop")

    with monkeypatch.context() as patch:
        patch.setattr(learning, "save_state", stop)
        assert make(one)["status"] == "failed" and one.state.exists()
    capsys.readouterr()
    other_code(monkeypatch, one)
    plan = plan_of({"seqlora": {}})
    (edited,) = plan.runs
    assert edited.status() == "outdated"  # and the edit may be the remedy
    assert results.forget_failed(plan) == 1 and edited.status() == "open"
    assert make(edited)["R"] == whole["R"]
    said = capsys.readouterr().err
    assert "starts over" in said and "continues" not in said and not one.state.exists()


@pytest.mark.parametrize("content", ["[]", "{}", '{"spec": {}}'])
def test_a_spec_that_is_none_is_named(project, content):
    Path("spec.json").write_text(content)
    with pytest.raises(DataError, match="spec.json"):
        runner.make(Path("spec.json"))


def test_other_data_than_asked_is_refused(project):
    (one,) = plan_of({"seqlora": {}}).runs
    manifest = Path("resources/streams/glyphs/manifest.json")
    write_json(manifest, read_json(manifest) | {"fingerprint": "0" * 64})
    assert "is not what this run asks for" in make(one)["error"]


def test_limits_beyond_the_data_are_refused(project):
    plan = plan_of({"seqlora": {}})
    plan.runs[0].spec["stream"]["train_per_class"] = 99
    error = make(plan.runs[0])["error"]
    assert "train_per_class" in error and "99" in error


def test_a_truncated_weight_file_is_named(project):
    (one,) = plan_of({"seqlora": {}}).runs
    manifest = Path("resources/backbones/micro-vit/manifest.json")
    facts = read_json(manifest)
    Path("short.safetensors").write_bytes(Path(facts["weights"]).read_bytes()[:5000])
    write_json(manifest, facts | {"weights": "short.safetensors"})
    assert "short.safetensors cannot be read" in make(one)["error"]


def test_the_weights_of_another_architecture_are_refused(project):
    from safetensors.torch import load_file, save_file

    (one,) = plan_of({"seqlora": {}}).runs
    manifest = Path("resources/backbones/micro-vit/manifest.json")
    facts = read_json(manifest)
    weights = load_file(facts["weights"])
    weights["other"] = weights.pop("norm.weight")
    save_file(weights, "other.safetensors")
    write_json(manifest, facts | {"weights": "other.safetensors"})
    assert "missing ['norm.weight'], unexpected ['other']" in make(one)["error"]


def test_a_full_disk_during_a_run_keeps_the_last_state(project, monkeypatch):
    (one,) = plan_of({"seqlora": {}}).runs
    saved = []

    def fill(path, data):
        if len(saved) == 2:
            raise DataError(f"{path} could not be saved (No space left on device): make room")
        saved.append(path)
        write_bytes(path, data)

    monkeypatch.setattr(states, "write_bytes", fill)
    assert "No space left" in make(one)["error"]
    monkeypatch.undo()
    monkeypatch.chdir(project)
    assert one.state.exists()
    Path(one.record).unlink()
    assert make(one)["status"] == "done"


def test_what_cannot_be_saved_or_read_fails_the_run(project, monkeypatch):
    (one,) = plan_of({"seqlora": {}}).runs
    one.state.parent.mkdir(parents=True)
    one.state.write_bytes(b"damaged")
    assert one.state.name in make(one)["error"] and one.state.read_bytes() == b"damaged"
    one.state.unlink()
    monkeypatch.setattr(SeqLoRA, "state_dict", lambda self: {"norms": np.ones(2)})
    assert "['norms'] is a numpy.ndarray" in make(one)["error"] and not one.state.exists()
