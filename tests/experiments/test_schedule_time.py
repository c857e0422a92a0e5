"""The split of a speed-up into method and schedule."""

import argparse
import sys

import pytest
import torch

from benchmarks.backbones import language
from benchmarks.experiments import schedule_time
from benchmarks.experiments.schedule_time import SCHEDULES, schedule_seconds, table


def test_a_schedule_is_steps_times_their_seconds():
    per_task = [1.0] * 7 + [2.0]
    assert schedule_seconds(per_task, SCHEDULES["long"], 4) == 125 * (33 + 2 * 7)
    assert schedule_seconds(per_task, SCHEDULES["short"], 3) == 167 * (13 + 2 * 3)


def test_ratios_are_those_within_a_round():
    options = argparse.Namespace(
        **{"backbone": "x", "weights": None, "scale": 1, "batch_size": 4, "threads": 1},
        **{"rounds": 2, "steps": 1},
    )
    measured = {"seqlora": [[1.0] * 8, [3.0] * 8], "other": [[2.0] * 8, [3.0] * 8]}
    last = table(measured, {"seqlora": 0, "other": 2**31}, options, "cpu").splitlines()[-1]
    assert last == "| other | 12500 | 5000 | 1.500 (1.000 to 2.000) | 2.50 | 2.0 |"


@pytest.mark.parametrize("backbone", ["micro-llama", "smollm2-135m-instruct"])
def test_it_measures_what_methods_learn(backbone, monkeypatch, capsys):
    shrink = {"num_hidden_layers": 1, "hidden_size": 72, "intermediate_size": 8}
    build = language.build
    monkeypatch.setattr(language, "build", lambda a, *rest: build(a | shrink, *rest))
    arguments = ["--backbone", backbone, "--methods", "seqlora", "gem", "--steps", "2"]
    arguments += ["--rounds", "1", "--scale", "0.02", "--threads", str(torch.get_num_threads())]
    monkeypatch.setattr(sys, "argv", ["schedule_time", *arguments])
    schedule_time.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows] == ["| method", "| seqlora", "| gem"]
    assert " 1.000 (1.000 to 1.000) " in rows[1]
