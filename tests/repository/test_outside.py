"""Methods and a stream from outside the checkout: prepared, trained, tabulated and drawn."""

import json
import os
import shutil
from pathlib import Path

import processes
import pytest
import yaml

from analysis.__main__ import main as analyse
from benchmarks import backbones, streams
from benchmarks.common.files import write_json
from benchmarks.runs.plan import load_plan
from benchmarks.runs.results import collect

ROOT = Path(__file__).parents[2]
METHOD = """
from baselines.common.lora import LoraMethod

from ._strength import STRENGTH


class Held(LoraMethod):
    title = "Held & <kept>"

    def penalty(self, loss):
        return STRENGTH * loss
"""


@pytest.mark.slow
def test_what_is_from_outside_is_run_and_drawn(tmp_path, monkeypatch):
    """A method by its path from the suite's file on, another by its module; other processes find
    both."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "held.py").write_text(METHOD)
    (own / "kept.py").write_text(METHOD.replace('"Held & <kept>"', "None"))
    (own / "_strength.py").write_text("STRENGTH = 0.5\n")
    shutil.copy(ROOT / "examples/shades.py", own)
    experiment = {
        "stream": {"name": "./shades.py", "noise": 5},
        "backbone": {"name": "micro-vit"},
        "train": {"epochs": 1, "batch_size": 8, "mask": "all"},
        "methods": {"held": {"method": "./held.py"}, "kept-here": {"method": "own.kept"}},
    }
    suite = {"label": "x", "seeds": [0], "experiments": [experiment]}
    (own / "outside.yaml").write_text(yaml.safe_dump(suite))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, tmp_path))))

    plan = load_plan("own/outside.yaml")
    stream = f"resources/streams/{plan.runs[0].stream}"
    module(
        "benchmarks.streams", *streams.of(plan.runs[0].spec["stream"]).arguments, "--out", stream
    )
    weights = tmp_path / "resources/backbones/micro-vit"
    weights.mkdir(parents=True)
    backbone = backbones.find("micro-vit").prepare(weights, None)
    write_json(weights / "manifest.json", backbone)
    module("benchmarks.runs.run", *(run.write_spec() for run in plan.runs))
    collect(plan, tmp_path / "out/runs.jsonl")
    assert analyse(["out/runs.jsonl", "--out", "out"]) == 0

    records = [json.loads(line) for line in open("out/runs.jsonl", encoding="utf-8")]
    origins = [record["spec"]["method"]["origin"] for record in records]
    assert origins == ["own/held.py", "own.kept"]
    for record in records:
        assert record["status"] == "done", record["error"]
        assert record["spec"]["stream"]["origin"] == "own/shades.py"
        assert None not in record["R"][1]
    table = Path("out/tables/accuracy-shades.md").read_text(encoding="utf-8")
    page = Path("out/report/index.html").read_text(encoding="utf-8")
    assert "kept here" in table and "kept here" in page
    assert "Held" in table and "Held" in page and "<kept>" not in page
    assert list(Path("out/figures").glob("*-shades.svg"))


def module(*command: str) -> None:
    """Run a module of the checkout in a process of its own."""
    process = processes.start(*command, out=Path("said.txt"))
    process.join()
    assert process.exitcode == 0, Path("said.txt").read_text()
