"""What a plan says of time and memory."""

import sys

import pytest
import yaml

from benchmarks.runs import status

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        *((0.2, "1 s"), (42, "42 s"), (59.8, "1 min"), (90, "2 min"), (3599, "1 h 00 min")),
        *((12_060, "3 h 21 min"), (36_000, "10 h"), (972_000, "270 h")),
    ],
)
def test_a_duration_is_in_units_that_one_thinks_in(seconds, told):
    assert status.duration(seconds) == told


@pytest.fixture
def plan(project, monkeypatch, capsys):
    """What the command says of one method on a language model from outside, and its exit status."""
    stream = {"name": "docs", "n_tasks": 2, "max_prompt_tokens": 256}
    experiment = {
        "stream": stream,
        "backbone": {"name": "llama-2-7b-chat", "weights": "bfloat16"},
        "train": {"epochs": 1, "batch_size": 8},
        "methods": {"seqlora": {}, "small": {"method": "seqlora", "test_batch_size": 1}},
    }
    document = {"label": "a test", "seeds": [0, 1], "experiments": [experiment]}
    (project / "own.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.setattr(status, "PUBLISHED", project / "none")
    monkeypatch.setattr("benchmarks.common.devices.find", lambda: "cpu")

    def plan(*options: str) -> tuple[str, object]:
        monkeypatch.setattr(sys, "argv", ["status", "own.yaml", *options])
        code = None
        try:
            status.main()
        except SystemExit as stopped:
            code = stopped.code
        return capsys.readouterr().out, code

    return plan


def test_a_plan_refuses_the_rows_that_do_not_fit_and_says_what_would(plan):
    said, code = plan("--gib", "300", "--at-once", "2")
    assert code is None and "too large" not in said
    rows = {line.split()[0]: line for line in said.splitlines()}
    assert " GiB" in rows["seqlora"] and " GiB" in rows["small"]
    assert "to do, 2 runs at once: about " in said
    said, code = plan("--gib", "24")
    refused = said.partition("too large for the device:\n")[2].splitlines()
    assert len(refused) == 2
    assert all(
        "the device has 24.0 GiB: set " in line and "which takes" in line for line in refused
    )
    assert "2 of its rows do not fit into 24.0 GiB" in code


def test_a_machine_without_a_gpu_may_plan_what_it_cannot_run(plan, monkeypatch):
    monkeypatch.setattr("benchmarks.costs.memory.available_bytes", lambda device: 2**30)
    said, code = plan()
    assert code is None
    assert said.count("the device has 1.0 GiB") == 2 and "--gib N" in said


@pytest.mark.parametrize("option", ["--gib=0", "--gib=nan", "--at-once=0"])
def test_an_impossible_machine_is_refused(plan, option, capsys):
    assert plan(option)[1] == 2
