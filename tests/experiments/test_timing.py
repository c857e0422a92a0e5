"""Times of the loop, of TreeLoRA's part of a step and of the paper's schedules."""

import json
import sys

import pytest
import torch

from benchmarks.backbones import language
from benchmarks.common import devices
from benchmarks.experiments import timing
from benchmarks.experiments.timing import EPOCHS, schedule_seconds
from benchmarks.experiments.timing_page import as_markdown

pytestmark = pytest.mark.slow

PARTS = {
    "loop": "--batch-size 2 --steps 1 --rounds 1 --finished-tasks 1",
    "penalty": "--finished-tasks 3 5 --rounds 1 --steps 1 --batch-size 1",
    "sharing": "--backbone micro-vit --runs-per-gpu 1 --batch-size 2 --steps 1 --rounds 1",
    "schedules": "--backbone micro-llama --methods seqlora gem --rounds 1 --steps 2 --scale 0.02",
}


@pytest.fixture(scope="module")
def small():
    """Smaller shapes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "SHAPES", {"ViT, small": (4, 32), "other": (6, 64)})
        patch.setattr(timing, "VIT", "micro-vit")
        yield patch


def measure(out, part, arguments):
    with pytest.MonkeyPatch.context() as patch:
        threads = str(torch.get_num_threads())
        command = ["timing", "--out", str(out), "--threads", threads, part, *arguments.split()]
        patch.setattr(sys, "argv", command)
        timing.main()
    return json.loads(out.read_text())["parts"]


@pytest.fixture(scope="module")
def out(small, tmp_path_factory):
    """A file with all parts, measured on the CPU."""
    file = tmp_path_factory.mktemp("timing") / "timing.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        for part, arguments in PARTS.items():
            measure(file, part, arguments)
    return file


def test_every_part_says_where_and_how_it_was_measured_and_the_page_shows_it(out):
    parts = json.loads(out.read_text())["parts"]
    assert parts.keys() == PARTS.keys()
    for part in parts.values():
        assert part["device"] == devices.name(devices.find()) and part["torch"]
        assert part["rounds"] == 1 and part["provenance"]["commit"]
    assert [row["backbone"] for row in parts["loop"]["rows"]] == ["micro-vit", "micro-llama"]
    assert all(row["plain_ms_per_step"] > 0 for row in parts["loop"]["rows"])
    assert [row["finished_tasks"] for row in parts["penalty"]["rows"]] == [3, 5] * 2
    assert parts["penalty"]["vit_step_ms"] > 0
    (alone,) = parts["sharing"]["rows"]
    assert alone["runs"] == alone["gain"] == 1 and alone["ms_per_step"] > 0
    seqlora, gem = parts["schedules"]["rows"]
    assert seqlora["over_seqlora"] == {"median": 1, "low": 1, "high": 1}
    for row in (seqlora, gem):
        assert row["long_s"] > row["short_s"] > 0 and row["peak_bytes"] is None
    lines = as_markdown([{"parts": parts}]).splitlines()
    shown = sum(len(part["rows"]) for part in parts.values())
    assert sum(line.startswith("| ") for line in lines) == shown + 2 * len(PARTS)
    (row,) = (line for line in lines if line.startswith("| micro-vit |"))
    assert f"| {parts['loop']['rows'][0]['plain_ms_per_step']:.1f} |" in row


@pytest.mark.gpu
@pytest.mark.parametrize("part", ["loop", "penalty", "schedules"])  # sharing spawns
def test_a_gpu_has_its_name_and_its_peak(part, gpu, small, tmp_path):
    if gpu is not None:
        pytest.skip("a pretended GPU has no times")
    found = measure(tmp_path / "timing.json", part, PARTS[part])[part]
    assert found["device"] == torch.cuda.get_device_name()
    assert all(row["peak_bytes"] > 0 for row in found["rows"] if "peak_bytes" in row)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--threads", "0", "loop"], "--threads is at least 1, but is 0"),
        (["penalty", "--rounds", "0"], "--rounds is at least 1, but is 0"),
        (["loop"], "holds no times"),
    ],
)
def test_what_cannot_be_measured_is_said_before(arguments, said, tmp_path, monkeypatch):
    (tmp_path / "other.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["timing", "--out", str(tmp_path / "other.json"), *arguments])
    with pytest.raises(SystemExit, match=said):
        timing.main()


def test_schedules_are_compared_with_seqlora(tmp_path):
    with pytest.raises(SystemExit, match="seqlora"):
        measure(tmp_path / "timing.json", "schedules", "--methods gem")


def test_a_model_from_outside_has_random_weights(small):
    shrink = {"num_hidden_layers": 1, "hidden_size": 72, "intermediate_size": 8}
    build = language.build
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language, "build", lambda a, *rest: build(a | shrink, *rest))
        model = timing.network_of("smollm2-135m-instruct", weights="bfloat16")
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("cpu", torch.bfloat16)}


def test_a_schedule_is_steps_times_their_seconds():
    per_task = [1.0] * 7 + [2.0]
    assert schedule_seconds(per_task, EPOCHS["long"], 4) == 125 * (33 + 2 * 7)
    assert schedule_seconds(per_task, EPOCHS["short"], 3) == 167 * (13 + 2 * 3)


def test_ratios_are_those_within_a_round():
    assert timing.ratio([2.0, 3.0, 9.0], [1.0, 3.0, 4.5]) == {"median": 2, "low": 1, "high": 2}


def test_none_is_always_the_first_and_the_first_round_does_not_count():
    calls = []
    found = timing.turns({name: lambda n=name: calls.append(n) or len(calls) for name in "abc"}, 3)
    assert [sorted(calls[i : i + 3]) for i in (0, 3, 6, 9)] == [list("abc")] * 4
    assert len(set(calls[::3])) == 3
    assert all(min(times) > 3 and len(times) == 3 for times in found.values())
