"""What runs keep of their tasks, and what answers with it: the same as was tested."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from analysis.records import predictions
from benchmarks.common.errors import DataError
from benchmarks.common.files import read_json
from benchmarks.runs import adapters, answer, kept
from benchmarks.runs import run as runner
from benchmarks.runs.answer import Answerer
from benchmarks.streams.common.tasks import load_stream
from tests import outside
from tests.small_runs import N_TASKS, make, plan_of

pytestmark = pytest.mark.slow
METHODS = {"seqlora": {}, "l2p": {"pool_size": 4, "top_k": 2}}


def asked(monkeypatch, capsys, *arguments):
    """What the command prints, or the sentence that it ends with."""
    monkeypatch.setattr(sys, "argv", ["answer", *map(str, arguments)])
    try:
        answer.main()
    except SystemExit as stopped:
        return stopped.code
    return capsys.readouterr().out.strip("\n")


def folders(record):
    """Those of the tasks of a run, in their order."""
    return sorted(kept.adapters(Path(record)).iterdir())


@pytest.fixture(scope="module")
def images(prepared, tmp_path_factory):
    """A folder with runs on images of a method that is one adapter and of one that is none."""
    folder = tmp_path_factory.mktemp("images")
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        plan = plan_of(METHODS, keep=["adapters"])
        for one in plan.runs:
            make(one)
    return folder, {one.label: one for one in plan.runs}


@pytest.mark.parametrize("method", METHODS)
def test_an_image_is_classified_as_it_was_in_the_last_test(method, images, monkeypatch, capsys):
    folder, runs = images
    monkeypatch.chdir(folder)
    one = runs[method]
    found = folders(one.record)
    assert len(found) == N_TASKS and not one.is_open()
    last = Answerer(found[-1])
    tasks, _ = load_stream(one.spec["stream"], one.spec["seed"])
    cells = predictions.read(kept.predictions(Path(one.record)))[0].cells
    labels = [label for task in tasks for label in task.labels]
    for t, task in enumerate(tasks):
        for x, output in zip(task.test_x, cells[N_TASKS - 1, t].outputs, strict=True):
            Image.fromarray(x.numpy()).save("image.png")
            expected = last.learnt.seen[labels.index(output)]
            assert last.classify(Path("image.png")) == expected
    assert asked(monkeypatch, capsys, found[-1], "image.png") == expected
    shape = (90, 60, 3)  # of another size
    Image.fromarray(np.random.default_rng(0).integers(0, 255, shape, np.uint8)).save("other.png")
    assert asked(monkeypatch, capsys, found[0], "other.png") in last.learnt.seen[:2]


def test_what_cannot_be_answered_is_one_sentence(images, monkeypatch, capsys):
    folder, runs = images
    monkeypatch.chdir(folder)
    found = folders(runs["seqlora"].record)[0]
    Path("text.png").write_text("no image")
    assert "is no file: name an image" in asked(monkeypatch, capsys, found, "nothing.png")
    assert "truncated or no image" in asked(monkeypatch, capsys, found, "text.png")
    assert "is no kept adapter" in asked(monkeypatch, capsys, found.parent, "text.png")
    manifest = Path("resources/backbones/micro-vit/manifest.json")
    monkeypatch.chdir(shutil.copytree(folder, folder.parent / "other weights"))
    manifest.write_text(json.dumps(read_json(manifest) | {"fingerprint": "0"}))
    assert "are not what this run asks for" in asked(monkeypatch, capsys, found, "text.png")
    manifest.unlink()
    assert "manifest.json is missing" in asked(monkeypatch, capsys, found, "text.png")


def test_a_method_from_outside_is_run_for_runs_of_this_folder_only(images, monkeypatch, tmp_path):
    folder, runs = images
    monkeypatch.chdir(folder)
    source = folders(runs["l2p"].record)[0]
    elsewhere = shutil.copytree(source, tmp_path / "downloaded")
    content = read_json(elsewhere / adapters.RUN)
    (tmp_path / "evil.py").write_text("raise SystemExit('run')")
    method = content["spec"]["method"]
    for place in ({"origin": str(tmp_path / "evil.py")}, {"name": str(tmp_path / "evil.py")}):
        content["spec"]["method"] = method | place
        (elsewhere / adapters.RUN).write_text(json.dumps(content))
        with pytest.raises(DataError, match=r"needs the method .*evil\.py.*if you trust it"):
            Answerer(elsewhere)


def test_the_code_in_a_card_loads_the_adapter(images, monkeypatch):
    folder, runs = images
    monkeypatch.chdir(folder)
    found = folders(runs["seqlora"].record)[-1]
    weights = read_json(Path("resources/backbones/micro-vit/manifest.json"))["weights"]
    shutil.copy(weights, "micro-vit.safetensors")
    code = re.search(r"```python\n(.*?)```", (found / adapters.CARD).read_text(), re.DOTALL)[1]
    names = {}
    exec(code.replace("FOLDER", str(found)), names)
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = Answerer(found).model(x)
        logits = names["model"]((x - 0.5) / 0.5)
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=1e-5)


def test_adapters_are_kept_once_they_are_asked_for(project, whole):
    """A run that has kept none is made again, whether it was over or in the middle."""
    plan = plan_of({"seqlora": {}})
    assert make(plan.runs[0])["R"] == whole["R"]
    (one,) = plan_of({"seqlora": {}}, keep=["adapters"]).runs
    assert one.key == plan.runs[0].key and one.is_open() and not plan.runs[0].is_open()
    assert make(one)["R"] == whole["R"]
    assert len(folders(one.record)) == N_TASKS and not one.is_open()
    shutil.rmtree(folders(one.record)[1])
    assert one.is_open()


@pytest.mark.parametrize("lacking", [False, True])
def test_a_run_that_is_killed_keeps_each_adapter(project, monkeypatch, capsys, lacking):
    (one,) = plan_of({"seqlora": {}}, keep=["adapters"]).runs
    learn, done = runner.Run.learn, []

    def killed(self, task):
        done.append(task.index)
        if len(done) == 3:
            raise KeyboardInterrupt
        learn(self, task)

    monkeypatch.setattr(runner.Run, "learn", killed)
    with pytest.raises(KeyboardInterrupt):
        make(one)
    first, second = folders(one.record)
    if lacking:
        shutil.rmtree(first)
    before = (second / adapters.WEIGHTS).read_bytes()
    make(one)
    assert ("starts over" in capsys.readouterr().err) == lacking
    assert done == [0, 1, 2, *(range(3) if lacking else [2])]
    assert len(folders(one.record)) == N_TASKS
    assert (second / adapters.WEIGHTS).read_bytes() == before  # also where it was learnt again


@pytest.mark.parametrize("method", ["olora", "hidelora"])
def test_a_prompt_is_answered_as_it_was_in_the_last_test(
    method, data, tmp_path, monkeypatch, capsys
):
    """By a model of a folder, with one adapter and with one for each task."""
    outside.save(data)
    changes = {"stream": {"max_prompt_tokens": 24, "max_new_tokens": 6}, "keep": ["adapters"]}
    file = outside.suite("llama", tmp_path, methods={method: {"rank": 2}}, **changes)
    [record] = outside.made(file, data)
    [path] = tmp_path.glob("out/*/result-*.json")
    found = folders(path)
    cells = predictions.read(kept.predictions(path))[0].cells
    prompts = [json.loads(f.read_text()) for f in sorted(tmp_path.glob("tasks/*/test.json"))]
    last = Answerer(found[-1])
    assert last.learnt.spec["stream"]["path"] == "tasks"  # not the way there
    for t, items in enumerate(prompts):
        answers = [last.answer(item["prompt"]) for item in items]
        assert answers == cells[1, t].outputs
    said = asked(monkeypatch, capsys, found[-1], prompts[-1][-1]["prompt"])
    assert said == "\n".join(answers[-1].splitlines())
    assert record["status"] == "done" and "FOLDER" in (found[0] / adapters.CARD).read_text()
