"""Causal language models of transformers' own classes, tiny and random, in all of a run."""

import json
import types

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from benchmarks import backbones, causal_lms, evaluate, memory, streams
from benchmarks import run as runner
from benchmarks.config import load_suite
from benchmarks.files import DataError, write_json
from benchmarks.models import LanguageModel
from tests import tiny

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
KINDS = ("llama", "mistral", "gemma", "qwen2")


def config(kind, **changes):
    return transformers.AutoConfig.for_model(kind, **(SHAPE | changes))


def network(kind, **changes):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config(kind, **changes)).eval()


def save_tokenizer(folder, **special):
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet
    )
    own.train_from_iterator(["Say yes or no. Is it so?\nAnswer: yes"], trainer)
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"} | special
    transformers.PreTrainedTokenizerFast(tokenizer_object=own, **tokens).save_pretrained(folder)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data directory that the environment names, and a working directory beside it."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("TREELORA_DATA", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def save(data, kind, **changes):
    folder = data / f"tiny-{kind}"
    network(kind, **changes).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_answers_are_the_networks_own(kind):
    own = network(kind)
    model = LanguageModel(own)
    x = tiny.samples("language", 0).x[:4]
    with torch.no_grad():
        for row in x:
            start = int((row[1] == 0).sum())
            ids = row[0, start:]
            whole = own(input_ids=ids[None]).logits[0]
            torch.testing.assert_close(model(row[None])[0], whole[-3:-1], atol=1e-4, rtol=1e-4)
        prompts = x[:, :, :-2]
        together = model.generate(prompts, 4)
        for row, prompt in zip(together.tolist(), prompts, strict=True):
            start = int((prompt[1] == 0).sum())
            alone = own.generate(
                input_ids=prompt[None, 0, start:], max_new_tokens=4, do_sample=False
            )[0, prompt.shape[1] - start :].tolist()
            assert row[: len(alone)] == alone


def test_released_decoding_draws_the_same_answers_and_leaves_other_draws_alone():
    model = LanguageModel(network("llama"))
    prompts = tiny.samples("language", 0).x[:, :, :-2]
    greedy = model.generate(prompts, 6)
    model.decoding = "released"
    model.network.get_output_embeddings().weight.data.mul_(0.01)  # so that the draw decides
    torch.manual_seed(5)
    first = model.generate(prompts, 6)
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), after)
    assert torch.equal(model.generate(prompts, 6), first)
    assert not torch.equal(first, greedy)


@pytest.mark.parametrize("micro", [None, 2])
@pytest.mark.parametrize("name", ["seqlora", "hidelora", "l2p"])
def test_checkpointing_changes_no_step(name, micro):
    both = []
    for checkpointing in (False, True):
        method = tiny.method(name, "language", shared={"micro_batch_size": micro})
        language = next(m for m in method.model.modules() if isinstance(m, LanguageModel))
        if checkpointing:
            language.save_memory()
        tiny.learn(method, tiny.tasks("language")[0])
        both.append(tiny.outputs(method, "language"))
    torch.testing.assert_close(*both, atol=1e-6, rtol=1e-5)


def suite(kind, path, **changes):
    item = {"prompt": "Say yes or no.\nIs it {}?\nAnswer:", "answer": "yes"}
    for t, task in enumerate(("first", "second")):
        for part, n in (("train", 8), ("test", 3)):
            items = [
                item | {"prompt": item["prompt"].format(f"{task} {part} {i}"), "answer": answer}
                for i, answer in enumerate((["yes", "no"] * n)[t : n + t])
            ]
            if task == "second" and part == "test":
                items.append(item | {"prompt": item["prompt"].format("second train 0")})  # leaks
            (path / "tasks" / task).mkdir(parents=True, exist_ok=True)
            (path / "tasks" / task / f"{part}.json").write_text(json.dumps(items))
    document = {
        "label": "test",
        "seeds": [0],
        "experiments": [
            {
                "stream": {
                    "name": "text",
                    "path": str(path / "tasks"),
                    "tasks": {"first": "first_line", "second": "rouge_l"},
                    "order": "fixed",
                }
                | changes.get("stream", {}),
                "backbone": {"name": f"hf-tiny-{kind}"} | changes.get("backbone", {}),
                "train": {"epochs": 1, "batch_size": 4} | changes.get("train", {}),
                "methods": changes.get("methods", {"seqlora": {}}),
            }
        ],
    }
    file = path / "suite.yaml"
    file.write_text(json.dumps(document))
    return file


def made(file, data):
    """The records of a suite's runs."""
    records = []
    for asked in load_suite(str(file), data).runs:
        spec = asked.spec["stream"]
        own = streams.own_options(spec) | {"path": str(file.parent / "tasks")}
        folder = runner.RESOURCES / "streams" / streams.place(spec)
        streams.prepare("text", folder, data, **own)
        name = asked.spec["backbone"]["name"]
        out = runner.RESOURCES / "backbones" / name
        write_json(out / "manifest.json", backbones.prepare(name, out, data))
        path = file.parent / f"{asked.key}.json"
        write_json(path, {"key": asked.key, "spec": asked.spec})
        records.append(runner.run(path, file.parent / "out" / asked.key))
    return records


@pytest.mark.parametrize("kind", KINDS)
def test_a_local_folder_runs_from_a_suite_file_alone(kind, data, tmp_path, monkeypatch):
    save(data, kind)
    changes = {
        "backbone": {"weights": "bfloat16"},
        "train": {"precision": "bfloat16", "checkpointing": True, "micro_batch_size": 2},
        "stream": {"decoding": "released", "truncation": "left", "max_prompt_tokens": 24},
        "methods": {"treelora": {"rank": 2}, "fix": {}, "hidelora": {"rank": 2}},
    }
    seen = []
    for name in ("save_memory", "generate_from"):
        original = getattr(LanguageModel, name)

        def spy(self, *arguments, name=name, original=original):
            seen.append((name, self.decoding, next(self.network.parameters()).dtype))
            return original(self, *arguments)

        monkeypatch.setattr(LanguageModel, name, spy)
    for record in made(suite(kind, tmp_path, **changes), data):
        assert record["status"] == "done", record["error"]
        assert {(name, what) for name, *_, what in seen} == {
            ("save_memory", torch.bfloat16),
            ("generate_from", torch.bfloat16),
        }
        assert {decoding for name, decoding, _ in seen if name == "generate_from"} == {"released"}
        assert [d["kind"] for d in record["stream"]["defects"]] == ["train prompt in test"]
        assert record["R"][1][0] is not None
        assert [f["task"] for f in record["stream"]["floor"]] == ["first", "second"]
        assert all(len(t["router_accuracy"]) == i + 1 for i, t in enumerate(record["tasks"]))


def test_a_moved_folder_keeps_its_runs_and_other_weights_do_not(data, tmp_path):
    folder = save(data, "llama")
    file = suite("llama", tmp_path)
    before = [r.key for r in load_suite(str(file), data).runs]
    folder.rename(data / "away")
    (data / "away").rename(folder)
    assert [r.key for r in load_suite(str(file), data).runs] == before
    other = network("llama")
    other.get_input_embeddings().weight.data.add_(1)
    other.save_pretrained(folder)
    assert [r.key for r in load_suite(str(file), data).runs] != before


def test_what_cannot_be_adapted_is_refused_before_anything_runs(data, tmp_path):
    gpt2 = transformers.GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4)
    with torch.device("meta"), pytest.raises(DataError, match="no q_proj in its attention.*Llama"):
        causal_lms.check("gpt2", transformers.GPT2LMHeadModel(gpt2))
    capped = transformers.AutoModelForCausalLM.from_config(config("gemma2"))
    with pytest.raises(DataError, match="final_logit_softcapping .30.0., which is not supported"):
        causal_lms.check("gemma2", capped)
    with pytest.raises(DataError, match="'strange' needs code that transformers has not"):
        causal_lms.build({"model_type": "strange"})
    for name in ("hf-no/such", "hf-..", "hf-"):
        with pytest.raises(DataError, match="should be hf- and the name of a folder"):
            backbones.find(name)
    with pytest.raises(DataError, match="names no commit.*TREELORA_DATA.*40 digits"):
        backbones.find("hf-tiny-llama")
    folder = save(data, "llama")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="tokenizer in .*tiny-llama"):
        backbones.prepare("hf-tiny-llama", tmp_path, data)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(DataError, match="holds no .safetensors"):
        backbones.prepare("hf-tiny-llama", tmp_path, data)


def test_damaged_weights_are_named(data):
    folder = save(data, "llama")
    file = next(folder.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="tiny-llama cannot be loaded"):
        causal_lms.load(folder, None)


def test_a_gated_model_says_how_to_get_access(data, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(DataError, match="licensed to those who ask: ask .* https.*HF_TO"):
        backbones.prepare("llama-3.2-1b-instruct", tmp_path, data)


@pytest.mark.parametrize("name", [n for n, b in backbones.BACKBONES.items() if b.repo])
def test_the_papers_models_have_the_shapes_of_their_files(name):
    backbone = backbones.find(name)
    assert len(backbone.revision) == 40
    built = causal_lms.build(causal_lms.architecture(backbone))
    causal_lms.check(name, built)
    adapted = [n for n, _ in built.named_modules() if n.endswith(("q_proj", "v_proj"))]
    assert len(adapted) == backbone.adapted_matrices


def test_a_run_that_does_not_fit_is_refused_with_what_would_help(monkeypatch):
    spec = {
        "backbone": {"name": "llama-2-7b-chat"},
        "stream": {"max_prompt_tokens": 1024},
        "train": {"batch_size": 4, "micro_batch_size": None, "precision": "float32"},
        "method": {"config": {"rank": 8}},
    }
    monkeypatch.setattr(memory, "available_bytes", lambda device: 20 * memory.GIB)
    with pytest.raises(DataError) as refused:
        memory.check(spec, "cuda")
    for remedy in ("weights: bfloat16", "checkpointing: true", "micro_batch_size: 1"):
        assert remedy in str(refused.value)
    small = spec | {"backbone": {"name": "smollm2-135m-instruct"}}
    small["train"] = spec["train"] | {"test_batch_size": 8}
    assert "GiB are needed and 20.0 GiB are free" in memory.check(small, "cuda")


def test_a_run_that_does_not_fit_ends_before_it_loads(data, tmp_path, monkeypatch):
    save(data, "llama")
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1000)
    monkeypatch.setattr(backbones, "load", lambda *arguments: pytest.fail("loaded"))
    [record] = made(suite("llama", tmp_path), data)
    assert record["status"] == "failed" and "does not fit on this" in record["error"]


def test_a_continued_run_knows_the_words_of_earlier_tasks(data, tmp_path, monkeypatch):
    save(data, "llama")
    file = suite("llama", tmp_path)
    [whole] = made(file, data)
    (tmp_path / "out" / whole["key"] / "result.json").unlink()
    calls = []

    def cut(*arguments, **options):
        calls.append(1)
        if len(calls) > 1:  # after the first task
            raise KeyboardInterrupt
        return evaluate.score(*arguments, **options)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(runner, "score", cut)
        made(file, data)
    [continued] = made(file, data)
    for key in ("R", "stream"):
        assert continued[key] == whole[key]
    shares = [[task["router_accuracy"] for task in r["tasks"]] for r in (whole, continued)]
    assert shares[0] == shares[1] == [[1.0], [1.0, 1.0]]


def test_answers_do_not_depend_on_how_many_are_tested_at_a_time():
    method = tiny.method("hidelora", "language")
    for task in tiny.tasks("language"):
        tiny.learn(method, task)
    method.model.eval()
    prompts = torch.cat([tiny.samples("language", t).x[:, :, :-2] for t in (2, 0, 1)])
    both = []
    for size in (128, 5):
        inferred = []
        asked = (method.model, prompts, 3, "cpu", tiny.TOKENIZER, inferred, size)
        both.append((evaluate.generate(*asked), torch.cat(inferred).tolist()))
    assert both[0] == both[1]
    assert len(set(both[0][0])) > 1 and len(set(both[0][1])) > 1


def test_generation_stops_where_answers_end(data):
    """Also where the configuration names another end than the tokenizer."""
    folder = save(data, "llama", eos_token_id=7)
    assert causal_lms.load(folder, None).network.generation_config.eos_token_id == [2, 7]


def test_the_estimate_counts_what_is_there():
    """Weights and what Adam keeps, against the tensors of a real network."""
    spec = {
        "backbone": {"name": "smollm2-135m-instruct"},
        "stream": {"max_prompt_tokens": 1, "max_answer_tokens": 1},
        "train": {
            "batch_size": 1,
            "micro_batch_size": None,
            "precision": "float32",
            "test_batch_size": 1,
        },
        "method": {"config": {"rank": 8}},
    }
    built = causal_lms.build(causal_lms.architecture(backbones.find("smollm2-135m-instruct")))
    n = sum(p.numel() for p in built.parameters())
    least = 4 * n + 16 * 8 * 30 * (2 * 576 + 576 + 192)
    assert least < memory.needed_bytes(spec) < 1.05 * least


def test_a_tokenizer_without_an_end_is_refused(tmp_path):
    save_tokenizer(tmp_path, eos_token=None)
    with pytest.raises(DataError, match="no token that ends a text"):
        causal_lms.tokenizer(tmp_path)


def test_ids_of_special_tokens_come_from_the_tokenizer(tmp_path):
    save_tokenizer(tmp_path, pad_token=None)
    found = causal_lms.tokenizer(tmp_path)
    assert (found.pad, found.begin, found.end) == (2, 1, 2)
    assert found.template is None
    assert isinstance(found.encode, types.FunctionType)
