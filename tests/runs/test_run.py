"""Runs: killed and resumed, failed, refused; records and what gathers them."""

import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from baselines.common.prompts import QueryCache
from baselines.seqlora import SeqLoRA
from benchmarks import backbones
from benchmarks.common import files
from benchmarks.common.files import DataError, read_json, write_bytes, write_json
from benchmarks.common.progress import Progress
from benchmarks.runs import results
from benchmarks.runs import run as runner
from benchmarks.runs import state as states
from benchmarks.runs.evaluate import score
from benchmarks.runs.plan import load_plan
from benchmarks.runs.status import describe
from benchmarks.streams import glyphs
from benchmarks.streams.common.tasks import load_stream

ROOT = Path(__file__).parents[2]
N_TASKS = 3


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a miniature of the prepared glyphs and the smallest backbone."""
    root = tmp_path_factory.mktemp("prepared")
    folder = root / "resources/streams/glyphs"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    labels = np.arange(20).repeat(4)
    images = generator.integers(0, 256, (80, 32, 32), dtype=np.uint8)
    images[:, :4] = (labels * 12)[:, None, None]
    np.savez(
        folder / "data.npz",
        train_images=images,
        train_labels=labels,
        test_images=images[::2],
        test_labels=labels[::2],
    )
    tasks = [
        {"name": f"script{t}", "group": f"group{t % 2}", "classes": ["a", "b"]} for t in range(10)
    ]
    manifest = {"modality": "vision", "fingerprint": glyphs.DIGEST, "tasks": tasks}
    write_json(folder / "manifest.json", manifest)
    weights = root / "resources/backbones/micro-vit"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        backbone = backbones.find("micro-vit").prepare(weights, None)
    backbone["weights"] = str(ROOT / backbone["weights"])
    write_json(weights / "manifest.json", backbone)
    return root


@pytest.fixture
def project(prepared, tmp_path, monkeypatch):
    """A working directory in which runs can be made."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def plan_of(methods, seeds=(0,), **train):
    document = {
        "label": "a test",
        "seeds": list(seeds),
        "experiments": [
            {
                "stream": {"name": "glyphs", "n_tasks": N_TASKS},
                "backbone": {"name": "micro-vit"},
                "train": {"epochs": 3, "batch_size": 4, "mask": "all"} | train,
                "methods": methods,
            }
        ],
    }
    Path("own.yaml").write_text(yaml.safe_dump(document))
    return load_plan("own.yaml")


def make(one):
    """The record of a run, which is made again if it has failed before."""
    if one.status() == "failed":
        Path(one.record).unlink()
    return runner.make(Path(one.write_spec()))


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    """The record of a run of SeqLoRA, made once."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return make(plan_of({"seqlora": {}}).runs[0])


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
    assert not (Path(one.directory) / "state.pt").exists()


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


def test_a_record_says_how_often_the_task_of_an_image_was_inferred(project, monkeypatch, whole):
    (one,) = plan_of({"hidelora": {}}).runs
    monkeypatch.setattr(
        "baselines.common.hide.TwoPass.infer", lambda self, x: torch.ones(len(x)).long()
    )
    shares = [task["task_accuracy"] for task in make(one)["tasks"]]
    assert shares == [[0.0], [0.0, 1.0], [0.0, 1.0, 0.0]]
    assert not any("task_accuracy" in task for task in whole["tasks"])


def test_a_data_directory_that_is_none_is_one_sentence(project, monkeypatch):
    monkeypatch.setenv("TREELORA_DATA", "no-such-folder")
    with pytest.raises(DataError, match="no-such-folder is no folder: correct TREELORA_DATA"):
        plan_of({"seqlora": {}})


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


def test_runs_of_one_process_that_is_killed_end_with_the_same_scores(project, monkeypatch, capsys):
    """What is done stays as it is, and the run in the middle continues at its last task."""
    plan = plan_of({"ewc": {}}, seeds=(0, 1), epochs=8, learning_rate=0.001)
    alone = [make(one) for one in plan.runs]
    shutil.rmtree("results")
    specs = [one.write_spec() for one in plan.runs]
    done, (cut, state) = (
        Path(plan.runs[0].record),
        (Path(plan.runs[1].directory, name) for name in ("result.json", "state.pt")),
    )
    command = [sys.executable, "-m", "benchmarks.runs.run", *specs]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not state.exists():
        time.sleep(0.005)
    process.kill()
    process.wait()
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
    calls = []

    def cut(*arguments, **options):
        calls.append(1)
        if len(calls) > 1 + 2:  # after the first task, after the second
            raise KeyboardInterrupt
        return score(*arguments, **options)

    monkeypatch.setattr(runner, "score", cut)
    with pytest.raises(KeyboardInterrupt):
        make(one)
    monkeypatch.setattr(runner, "score", score)
    saved = Path(one.directory) / "state.pt"
    old = torch.load(saved, weights_only=True)
    old["record"]["curve"] = [{"task": 0, "samples": 8, "loss": 1.5}]
    torch.save(old, saved)
    record = make(one)
    assert "continues after task 2 of 3" in capsys.readouterr().err
    assert record["R"] == whole["R"] and record.keys() == whole.keys()
    assert record["diagnostics"] == whole["diagnostics"]


def test_records_of_earlier_versions_lose_the_losses_of_their_steps(project, whole):
    plan = plan_of({"seqlora": {}})
    (one,) = plan.runs
    write_json(Path(one.record), whole | {"curve": [{"task": 0, "samples": 8, "loss": 1.5}]})
    assert one.status() == "done"
    results.collect(plan, Path("runs.jsonl"))
    assert "curve" not in json.loads(Path("runs.jsonl").read_text())


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


def test_a_failed_run_leaves_a_record_and_can_be_retried(project):
    plan = plan_of({"seqlora": {}}, learning_rate=1e30, clip_norm=None, epochs=30)
    (one,) = plan.runs
    record = make(one)
    assert record["status"] == "failed"
    assert "loss became" in record["error"] and "\n" not in record["error"]
    assert one.status() == "failed"
    assert "loss became" in describe(plan, brief=True)
    assert results.forget_failed(plan) == 1
    assert one.status() in ("open", "started")


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
    monkeypatch.setattr("benchmarks.runs.status.PUBLISHED", project / "none")
    plan = plan_of({"seqlora": {}, "gem": {}}, seeds=(0, 1))
    (one,) = (run for run in plan.runs if run.key == whole["key"])
    write_json(Path(one.record), whole)
    lines = {line.split()[0]: line for line in describe(plan).splitlines()}
    assert "1 of 2 done" in lines["seqlora"] and lines["seqlora"].endswith(" s each")
    assert "0 of 2 done" in lines["gem"] and "~" in lines["gem"]
    assert re.search(r"1 runs of \d+ minutes .*, 2 runs of ~", lines["to"])
    assert "30 (300 in bf16) TFLOP/s" in lines["~"]
    assert describe(plan, each=True).count("results/runs/") == 4
    assert "at an assumed 60 TFLOP/s" in describe(plan, tflops=60)


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
        ('{"schema": 18446744073709551616}', "more than 64 bits"),
        ('{"schema": 1e999}', "is not finite"),
        ('{"schema": NaN}', "is not finite"),
        ("[" * 10**5, "nested too deeply"),
        ("\ufeff{}", "is not valid JSON"),
        ("9" * 5000, "more than 64 bits"),
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
    with pytest.raises(DataError, match="result.json is no file"):
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
        describe(plan, brief=True)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"status": "done"}', '{"status": "done", "spec": 1}']
)
def test_a_damaged_record_of_another_suite_does_not_stop_a_plan(
    project, monkeypatch, capsys, content
):
    monkeypatch.setattr("benchmarks.runs.status.PUBLISHED", project / "published")
    published = project / "published/other.jsonl"
    alien = Path("results/runs/other/seqlora/s0-abc/result.json")
    for path in (published, alien):
        path.parent.mkdir(parents=True)
        path.write_text(f"{content}\n")
    assert "1 runs: 1 open" in describe(plan_of({"seqlora": {}}))
    said = capsys.readouterr().err
    assert said.count(str(alien)) == 1 and said.count(str(published)) == 1


def test_text_from_outside_does_not_steer_the_terminal(project, capsys):
    plan = plan_of({"seqlora": {}})
    (one,) = plan.runs
    object.__setattr__(plan, "label", "a\x1b[2Jb\nc")
    record = {"schema": 1, "status": "failed", "key": one.key, "spec": one.spec}
    write_json(Path(one.record), record | {"error": "x\x1b]0;y\x07\u202e"})
    lines = describe(plan, brief=True)
    Progress("z\x1b[1m", 1, "steps").say("task \x1b[31m")
    for text in (lines, str(DataError("\x1b[2J\n")), capsys.readouterr().err):
        assert not set(text) & set("\x1b\x07\u202e") and "\\x1b" in text
    assert len(lines.splitlines()) == 3


def test_a_corrupt_state_is_named(project):
    (one,) = plan_of({"seqlora": {}}).runs
    state = Path(one.directory) / "state.pt"
    state.parent.mkdir(parents=True)
    torch.save({"key": one.key, "method": {"a": torch.ones(1000)}, "record": {}}, state)
    whole = state.read_bytes()
    flipped = whole.replace(np.ones(1000, np.float32).tobytes(), bytes(4000))
    assert flipped != whole
    for content in (b"not a state", whole[:-100], flipped):
        state.write_bytes(content)
        record = make(one)
        assert record["status"] == "failed"
        assert "state.pt is corrupt: delete it" in record["error"]
        assert state.read_bytes() == content


def test_a_value_that_could_not_be_read_again_is_refused_when_it_is_saved(project, monkeypatch):
    (one,) = plan_of({"seqlora": {}}).runs
    kept = {"norms": {"of": [1.0, np.ones(2)]}}
    state_dict = SeqLoRA.state_dict
    monkeypatch.setattr(SeqLoRA, "state_dict", lambda self: state_dict(self) | kept)
    record = make(one)
    assert record["status"] == "failed" and not (Path(one.directory) / "state.pt").exists()
    assert "['norms']['of'][1] is a numpy.ndarray" in record["error"]
    for value in (np.float64(1), {1.5: {Path("a")}}, np.str_("a"), lambda: 0):
        kept["norms"] = value
        assert "cannot be saved" in make(one)["error"]
    kept["norms"] = {"a": (1, 2.0, None, True, "b", b"c", {3}, torch.ones(1))}
    assert make(one)["status"] == "done"


def test_a_whole_state_is_not_called_corrupt(project, monkeypatch):
    (one,) = plan_of({"seqlora": {}}).runs
    state = Path(one.directory) / "state.pt"
    state.parent.mkdir(parents=True)
    torch.save({"key": one.key, "method": np.ones(2), "record": {}}, state)
    assert "is whole, but holds more than tensors" in make(one)["error"]
    torch.save([1], state)
    assert "is no state of a run" in make(one)["error"]

    def no_memory(*arguments, **options):
        raise torch.OutOfMemoryError("there is no memory")

    monkeypatch.setattr(torch, "load", no_memory)
    error = make(one)["error"]
    assert "there is no memory" in error and "corrupt" not in error


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


@pytest.mark.parametrize("content", ["[]", "{}", '{"spec": {}}'])
def test_a_spec_that_is_none_is_named(project, content):
    Path("spec.json").write_text(content)
    with pytest.raises(DataError, match="spec.json"):
        runner.make(Path("spec.json"))


def test_only_what_was_published_is_restored(project, monkeypatch, whole):
    plan = plan_of({"seqlora": {}})
    (one,) = plan.runs
    monkeypatch.setattr(results, "PUBLISHED", project / "published")
    path = Path(one.record)
    write_json(path, whole | {"provenance": whole["provenance"] | {"dirty": False}})
    published = results.publish(plan, Path("runs.jsonl"))
    path.unlink()
    assert results.restore(plan) == 1 and one.status() == "done"
    path.unlink()
    published.write_text(published.read_text().replace('"seed": 0', '"seed": 00'))
    with pytest.raises(DataError, match="own.jsonl has the digest"):
        results.restore(plan)
    assert not path.exists()


def test_of_a_run_of_several_suites_the_own_record_is_restored(project, monkeypatch, whole):
    plan = plan_of({"seqlora": {}})
    (one,) = plan.runs
    monkeypatch.setattr(results, "PUBLISHED", project / "published")
    path = Path(one.record)
    for threads, suite in ((7, plan), (8, dataclasses.replace(plan, name="another"))):
        facts = whole["provenance"] | {"dirty": False, "threads": threads}
        write_json(path, whole | {"provenance": facts})
        results.publish(suite, Path("runs.jsonl"))
    path.unlink()
    assert results.restore(plan) == 1
    assert read_json(path)["provenance"]["threads"] == 7


def test_other_data_than_asked_is_refused(project):
    (one,) = plan_of({"seqlora": {}}).runs
    manifest = Path("resources/streams/glyphs/manifest.json")
    write_json(manifest, read_json(manifest) | {"fingerprint": "0" * 64})
    assert "is not what this run asks for" in make(one)["error"]


def test_limits_beyond_the_data_are_refused(project):
    plan = plan_of({"seqlora": {}})
    plan.runs[0].spec["stream"]["train_per_class"] = 99
    assert "train_per_class asks for 99" in make(plan.runs[0])["error"]


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
    assert (Path(one.directory) / "state.pt").exists()
    Path(one.record).unlink()
    assert make(one)["status"] == "done"


def test_only_complete_suites_from_committed_code_are_published(project, monkeypatch, whole):
    plan = plan_of({"seqlora": {}})
    path = Path(plan.runs[0].record)
    monkeypatch.setattr(results, "PUBLISHED", project / "published")

    def stored(**changes):
        write_json(path, whole | changes)
        return plan, Path("runs.jsonl")

    with pytest.raises(DataError, match="run from uncommitted code"):
        results.publish(*stored(provenance=whole["provenance"] | {"dirty": True}))
    with pytest.raises(DataError, match="failed .no.: only complete"):
        results.publish(*stored(status="failed", error="no"))
    target = results.publish(*stored(provenance=whole["provenance"] | {"dirty": False}))
    assert target.read_text().count("\n") == 1
    assert "own.jsonl" in (project / "published" / "SHA256SUMS").read_text()
