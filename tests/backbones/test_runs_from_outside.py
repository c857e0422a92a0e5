"""Whole runs of a model from outside: from a suite file alone, continued, or refused in time."""

import pytest
import torch

from benchmarks.backbones import HubModel
from benchmarks.backbones.language import LanguageModel
from benchmarks.common.errors import DataError
from benchmarks.costs import memory
from benchmarks.runs import evaluate, learning
from benchmarks.runs.suite import load_suite
from tests.outside import made, network, save, suite

pytestmark = pytest.mark.slow

FUSED = {"rank": 2, "target_modules": ["qkv_proj", "down_proj"]}
RUNS = [
    ("llama", "hidelora", {"rank": 2}),
    ("gemma", "fix", {}),
    ("qwen2", "treelora", {"rank": 2}),
    ("phi3", "treelora", FUSED | {"depth": 3}),
]


@pytest.mark.parametrize(("kind", "method", "settings"), RUNS, ids=lambda value: str(value)[:12])
def test_a_local_folder_runs_from_a_suite_file_alone(
    kind, method, settings, data, tmp_path, monkeypatch
):
    save(data, kind)
    changes = {
        "backbone": {"weights": "bfloat16"},
        "train": {"precision": "bfloat16", "checkpointing": True, "micro_batch_size": 2},
        "stream": {"decoding": "released", "truncation": "left", "max_prompt_tokens": 24},
        "methods": {method: settings},
    }
    seen = []
    for name in ("save_memory", "generate_from"):
        original = getattr(LanguageModel, name)

        def spy(self, *arguments, name=name, original=original):
            seen.append((name, self.decoding, next(self.network.parameters()).dtype))
            return original(self, *arguments)

        monkeypatch.setattr(LanguageModel, name, spy)
    asked, check = [], memory.check
    monkeypatch.setattr(memory, "check", lambda *a: asked.append(a[0]["stream"]) or check(*a))
    [record] = made(suite(kind, tmp_path, **changes), data)
    assert record["status"] == "done", record["error"]
    longest = {asked[0][name] for name in ("max_answer_tokens", "max_new_tokens")}
    assert all(0 < n < memory.ANSWER_TOKENS for n in longest)  # as they are, and not as assumed
    assert {(name, what) for name, *_, what in seen} == {
        ("save_memory", torch.bfloat16),
        ("generate_from", torch.bfloat16),
    }
    assert {decoding for name, decoding, _ in seen if name == "generate_from"} == {"released"}
    assert [d["kind"] for d in record["stream"]["defects"]] == ["train prompt in test"]
    assert record["R"][1][0] is not None
    assert [f["task"] for f in record["stream"]["floor"]] == ["first", "second"]
    assert all(len(t["router_accuracy"]) == i + 1 for i, t in enumerate(record["tasks"]))


@pytest.mark.parametrize(
    ("kind", "method", "settings", "said"),
    [
        ("phi3", "seqlora", {}, "hf-tiny-phi3 has no q_proj in .* qkv_proj, .*target_modules"),
        ("phi3", "l2p", {}, "has no q_proj"),
        ("phi3", "seqlora", {"target_modules": ["qkvproj"]}, "'qkvproj' does not.*'qkv_proj'"),
        ("phi3", "treelora", FUSED | {"depth": 5}, "number of adapted matrices, 4, but is 5"),
        ("llama", "seqlora", {"target_modules": ["norm"]}, "one matrix in each block"),
        ("llama", "seqlora", {"target_modules": ["lm_head"]}, "one matrix in each block"),
        ("llama", "seqlora", {"target_modules": ["1.mlp.up_proj"]}, "one matrix in each block"),
        ("llama", "seqlora", {"target_modules": "q_proj"}, "target_modules must be a valid list"),
        ("llama", "seqlora", {"target_modules": ["up_proj"], "layers": 3}, "layers.* 2, but is 3"),
        ("llama", "l2p", {"target_modules": ["up_proj"]}, "'target_modules' is no setting here"),
    ],
)
def test_names_of_matrices_are_checked_in_the_plan(kind, method, settings, said, data, tmp_path):
    save(data, kind)
    with pytest.raises(DataError, match=f"method {method}: .*{said}"):
        load_suite(str(suite(kind, tmp_path, methods={method: settings})), data)


def test_a_moved_folder_keeps_its_runs_and_other_weights_do_not(data, tmp_path):
    folder = save(data)
    file = suite("llama", tmp_path)
    before = [r.key for r in load_suite(str(file), data).runs]
    folder.rename(data / "away")
    (data / "away").rename(folder)
    assert [r.key for r in load_suite(str(file), data).runs] == before
    other = network()
    other.get_input_embeddings().weight.data.add_(1)
    other.save_pretrained(folder)
    assert [r.key for r in load_suite(str(file), data).runs] != before


def test_prompts_and_answers_fit_the_models_positions(data, tmp_path):
    save(data, "llama", max_position_embeddings=16)
    file = suite("llama", tmp_path, stream={"max_prompt_tokens": 12, "max_new_tokens": 5})
    with pytest.raises(DataError, match="suite.yaml.*experiment 1.* 17 tokens.*positions for 16"):
        load_suite(str(file), data)
    file = suite("llama", tmp_path, stream={"max_prompt_tokens": 15})
    [record] = made(file, data)  # what the answers need only the data say
    assert record["status"] == "failed" and "has positions for 16" in record["error"]
    assert record["tasks"] == []


def test_a_run_that_does_not_fit_ends_before_it_loads(data, tmp_path, monkeypatch):
    save(data)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1000)
    monkeypatch.setattr(HubModel, "load", lambda *arguments: pytest.fail("loaded"))
    [record] = made(suite("llama", tmp_path), data)
    assert record["status"] == "failed" and "does not fit on this" in record["error"]


def test_a_continued_run_knows_the_words_of_earlier_tasks(data, tmp_path, monkeypatch):
    save(data)
    file = suite("llama", tmp_path)
    [whole] = made(file, data)
    [file_of_whole] = tmp_path.glob("out/*/result-*.json")
    file_of_whole.unlink()
    calls = []

    def cut(*arguments, **options):
        calls.append(1)
        if len(calls) > 1:  # after the first task
            raise KeyboardInterrupt
        return evaluate.answer(*arguments, **options)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(learning, "answer", cut)
        made(file, data)
    [continued] = made(file, data)
    for key in ("R", "stream"):
        assert continued[key] == whole[key]
    shares = [[task["router_accuracy"] for task in r["tasks"]] for r in (whole, continued)]
    assert shares[0] == shares[1] == [[1.0], [1.0, 1.0]]
