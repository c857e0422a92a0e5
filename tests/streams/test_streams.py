"""Streams: found by their files, with options of their own; a new one is one new file."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import streams
from benchmarks.common.errors import DataError
from benchmarks.runs.suite import load_suite
from benchmarks.streams import __main__ as command_line
from benchmarks.streams import glyphs
from benchmarks.streams.common import tasks
from tests import bounds
from tests.own_suite import own_suite

ROOT = Path(__file__).resolve().parents[2]
NEEDED = {
    "folder": {"path": "/no/folder", "n_tasks": 2},
    "text": {"path": "/no/folder", "tasks": {"one": "exact"}},
}


@pytest.mark.parametrize("name", streams.names())
def test_every_stream_keeps_the_interface(name):
    stream = streams.make({"name": name, **NEEDED.get(name, {})})
    assert stream.modality in ("vision", "language")
    assert set(stream.content) <= set(stream.content_options)
    bounds.check(type(stream).Options)
    if name not in NEEDED:
        assert stream.n_tasks > 1
        assert re.fullmatch("[0-9a-f]{64}", stream.fingerprint())


def test_preparing_imports_neither_torch_nor_the_packages_that_are_read():
    code = (
        "import sys; from benchmarks import streams; from benchmarks.streams import __main__, docs;"
        "import benchmarks.scoring.without_a_model;"
        "assert all(map(streams.load, streams.names()));"
        "assert len(list(docs._texts('scipy', 'fft'))) > 30;"
        "print({'torch', 'scipy', 'matplotlib'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


@pytest.fixture(params=["a file here", "a path"])
def shades(request, tmp_path, monkeypatch):
    """What a suite names a stream of somebody's own by."""
    monkeypatch.setattr(tasks, "RESOURCES", tmp_path)
    file = ROOT / "examples/shades.py"
    if request.param == "a path":
        yield str(file)
        return
    folder = tmp_path / "dropped"
    folder.mkdir()
    shutil.copy(file, folder)
    monkeypatch.setattr(streams, "__path__", [*streams.__path__, str(folder)])
    yield "shades"
    sys.modules.pop("benchmarks.streams.shades", None)


def runs_of(folder, name, **options):
    return load_suite(str(own_suite(folder, {"name": name, **options}, mask="all"))).runs


def test_a_new_stream_is_one_new_file(shades, tmp_path, capsys):
    """From the suite by way of the command line to tensors."""
    [run] = runs_of(tmp_path, shades, noise=5, train_per_class=5)
    spec = run.spec["stream"]
    place = streams.place(spec)
    assert place == f"shades-{spec['digest'][:8]}" and spec["noise"] == 5
    out = tmp_path / "streams" / place
    command_line.main([*streams.of(spec).arguments, "--out", str(out)])
    assert "shades" in capsys.readouterr().out
    assert json.loads((out / "manifest.json").read_text())["fingerprint"] == spec["digest"]
    data, task_of_class = tasks.load_stream(spec, 0)
    assert [len(task.train) for task in data] == [10, 10]
    assert task_of_class.tolist() == [0, 0, 1, 1]
    assert streams.of(spec).options.train_per_class == 5


def test_a_new_stream_s_options_are_checked_and_its_content_decides_the_key(shades, tmp_path):
    asked = ({}, {"noise": 3}, {"noise": 2}, {"n_tasks": 2})
    keys = [runs_of(tmp_path, shades, **options)[0].key for options in asked]
    assert keys[0] == keys[1] == keys[3] != keys[2]
    for options, named in (
        ({"noise": 30}, "noise"),
        ({"nois": 1}, "'noise'"),
        ({"n_tasks": 3}, "n_tasks"),
        ({"max_prompt_tokens": 9}, "max_prompt_tokens"),
    ):
        with pytest.raises(DataError, match=f"own.yaml: experiment 1: stream: .*{named}"):
            runs_of(tmp_path, shades, **options)


@pytest.mark.parametrize("content", ["", "from benchmarks.streams.glyphs import Glyphs"])
def test_a_file_without_a_stream_is_named(content, tmp_path, monkeypatch):
    (tmp_path / "hollow.py").write_text(content)
    monkeypatch.setattr(streams, "__path__", [*streams.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "benchmarks.streams.hollow", raising=False)
    with pytest.raises(DataError, match="hollow.py"):
        streams.load("hollow")


@pytest.mark.parametrize("name, hint", [("glyph", "'glyphs'"), ("xyz", "cifar100, ")])
def test_an_unknown_stream_is_named_with_a_near_one(name, hint):
    with pytest.raises(DataError, match=f"'{name}'.*{hint}"):
        streams.load(name)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["doc"], "'doc'"),
        (["glyphs", "size"], "'size'"),
        (["trace", "siz=500"], "'size'"),
        (["trace", "size=500", "size=5000"], "'size'"),
        (["trace", "name=order1"], "'name'"),
        (["trace", "out=x"], "'out'"),
        (["trace", "size=many"], "'many'"),
        (["text", "path=x"], "tasks is missing"),
        (["text", "path=2024", 'tasks={"a": "exact"}'], "path 2024 is not there"),
    ],
)
def test_the_command_line_reports_in_one_sentence(arguments, named, tmp_path):
    with pytest.raises(SystemExit) as end:
        command_line.main([*arguments, "--out", str(tmp_path / "out")])
    assert named in str(end.value)


def test_a_failed_preparation_leaves_no_manifest(tmp_path, monkeypatch):
    (tmp_path / "manifest.json").write_text("{}")
    monkeypatch.setattr(glyphs, "build", lambda: ({"a": np.zeros(1)}, {}))
    with pytest.raises(DataError, match=glyphs.DIGEST[:12]):
        streams.prepare("glyphs", tmp_path)
    assert not list(tmp_path.iterdir())
