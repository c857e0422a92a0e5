"""Causal language models of transformers' own classes, tiny and random, in all of a run."""

import json
import types

import huggingface_hub
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from baselines.common.lora import LoraSettings, add_lora
from benchmarks import backbones, streams
from benchmarks.backbones import causal_lms
from benchmarks.backbones import models as models_module
from benchmarks.backbones.models import LanguageModel
from benchmarks.common.files import DataError, write_json
from benchmarks.costs import memory
from benchmarks.runs import evaluate
from benchmarks.runs import run as runner
from benchmarks.runs.suite import load_suite
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
        own = streams.of(spec).content | {"path": str(file.parent / "tasks")}
        folder = runner.RESOURCES / "streams" / streams.place(spec)
        streams.prepare("text", folder, data, **own)
        name = asked.spec["backbone"]["name"]
        out = runner.RESOURCES / "backbones" / name
        write_json(out / "manifest.json", backbones.prepare(name, out, data))
        path = file.parent / "out" / asked.key / "spec.json"
        write_json(path, {"key": asked.key, "spec": asked.spec})
        records.append(runner.make(path))
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
    for kind in ("strange", "vit", None, ["llama"]):
        with pytest.raises(DataError, match=f"of the type {kind!r}".replace("[", r"\[")):
            causal_lms.build({"model_type": kind})
    for name in ("hf-no/such", "hf-..", "hf-", "hf-a b", "hf-a--b@main", f"hf-{'é' * 150}"):
        with pytest.raises(DataError, match="should be hf- and the name of a folder"):
            backbones.find(name)
    with pytest.raises(DataError, match="names no commit.*TREELORA_DATA.*40 digits"):
        backbones.find("hf-tiny-llama")
    folder = save(data, "llama")
    with pytest.raises(DataError, match="did you mean hf-tiny-llama"):
        backbones.find("hf-tiny-lama")
    with pytest.raises(DataError, match="tiny-llama is not llama-2-7b.*2 layers and.* 32"):
        causal_lms.check_model("llama-2-7b-chat", 32, folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="tokenizer in .*tiny-llama"):
        backbones.prepare("hf-tiny-llama", tmp_path, data)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(DataError, match="holds no model.safetensors"):
        backbones.prepare("hf-tiny-llama", tmp_path, data)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_hidden_layers": 10**30}, "num_hidden_layers"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"hidden_size": "wide"}, "'llama' is damaged"),
        ({"vocab_size": 10**30}, "llama"),
        ({"pad_token_id": 300}, "llama"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised .gptq."),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised .awq."),
        ({"quantization_config": {"load_in_4bit": True}}, "quantised"),
    ],
)
def test_a_configuration_that_cannot_be_is_named_in_the_plan(changes, named, data):
    file = save(data, "llama") / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(DataError, match=named):
        backbones.fingerprint("hf-tiny-llama", data)


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 10**5, "\xff"])
def test_a_configuration_that_is_none_is_named(text, data):
    (save(data, "llama") / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match="tiny-llama/config.json"):
        backbones.find("hf-tiny-llama")


CODE = """
from pathlib import Path
Path({marker!r}).write_text("ran")
class Evil: config_class = model_type = None
"""


@pytest.mark.parametrize("kind", ["vit", "of-its-own", "llama"])
def test_a_models_own_code_never_runs_and_nobody_is_asked(kind, data, tmp_path, monkeypatch):
    folder = save(data, "llama")
    marker = tmp_path / "marker"
    (folder / "evil.py").write_text(CODE.format(marker=str(marker)))
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate/generate.py").write_text(CODE.format(marker=str(marker)))
    auto = {f"Auto{part}": "evil.Evil" for part in ("Config", "ModelForCausalLM")}
    for name, own in (
        ("config.json", {"model_type": kind, "auto_map": auto, "_name_or_path": str(folder)}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}),
    ):
        file = folder / name
        file.write_text(json.dumps(json.loads(file.read_text()) | own))
    monkeypatch.setattr("builtins.input", lambda *question: pytest.fail("asked"))
    if kind == "llama":  # transformers has a class of its own for it
        backbones.fingerprint("hf-tiny-llama", data)
        causal_lms.load(folder, None).generate(torch.ones(1, 2, 3, dtype=torch.long), 2)
    else:
        with pytest.raises(DataError, match=f"of the type '{kind}'.*no.* from.* outside is run"):
            backbones.fingerprint("hf-tiny-llama", data)
        with pytest.raises(DataError):
            causal_lms.load(folder, None)
    assert not marker.exists()


def test_transformers_is_always_told_to_run_no_code(data, monkeypatch):
    folder = save(data, "llama")
    told = {}
    for name, method in (
        ("AutoModelForCausalLM", "from_config"),
        ("AutoModelForCausalLM", "from_pretrained"),
        ("AutoTokenizer", "from_pretrained"),
    ):
        cls = getattr(transformers, name)
        own = getattr(cls, method)

        def spy(*arguments, own=own, called=(name, method), **options):
            told[called] = options.get("trust_remote_code")
            return own(*arguments, **options)

        monkeypatch.setattr(cls, method, spy)
    backbones.fingerprint("hf-tiny-llama", data)
    causal_lms.load(folder, None)
    assert len(told) == 3 and set(told.values()) == {False}


def test_a_configuration_decides_the_network_and_nothing_else(data):
    folder = save(data, "llama")
    file = folder / "config.json"
    own = {
        "attn_implementation": "someone/kernel",
        "_attn_implementation": "someone/kernel",
        "experts_implementation": "someone/kernel",
        "transformers_weights": "others.safetensors",
        "auto_map": {"AutoModelForCausalLM": "someone/code--evil.Evil"},
        "return_dict": False,
        "output_attentions": True,
        "output_hidden_states": True,
        "name_or_path": "someone/model",
    }
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    backbones.fingerprint("hf-tiny-llama", data)
    model, ids = causal_lms.load(folder, None), torch.arange(3, 30)[None]
    assert not {key for key in own if getattr(model.network.config, key, None) == own[key]}
    with torch.no_grad():
        found = model.answer_logits(model.hidden(model.embed(ids), 1 + (ids > 8)), 1 + (ids > 8))
        expected = network("llama")(ids).logits[:, -found.shape[1] - 1 : -1]
        torch.testing.assert_close(found, expected)


def test_a_tokenizers_own_code_never_runs(data, tmp_path):
    folder = save(data, "llama")
    marker = tmp_path / "marker"
    (folder / "evil.py").write_text(CODE.format(marker=str(marker)))
    (folder / "tokenizer.json").unlink()
    own = {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    with pytest.raises(DataError, match="tokenizer in"):
        backbones.fingerprint("hf-tiny-llama", data)
    assert not marker.exists()


def with_adapter(data):
    """A folder with merged weights and the files of the adapter that was merged; and the logits."""
    folder = save(data, "llama")
    adapted = get_peft_model(
        network("llama"),
        LoraConfig(r=2, lora_alpha=64, target_modules=["o_proj"], task_type="CAUSAL_LM"),
    )
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(folder)
    merged = adapted.merge_and_unload().eval()
    merged.save_pretrained(folder)
    return folder, merged


def test_a_left_adapter_is_refused_and_never_applied(data):
    folder, merged = with_adapter(data)
    with pytest.raises(DataError, match="adapter_config.json.*merge"):
        backbones.fingerprint("hf-tiny-llama", data)
    loaded = causal_lms.load(folder, None)
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded.network(ids).logits, merged(ids).logits)
    adapted = add_lora(loaded, LoraSettings())
    trained = {n.split(".")[-4] for n, p in adapted.named_parameters() if p.requires_grad}
    assert trained == {"q_proj", "v_proj"}
    (folder / "adapter_config.json").unlink()
    backbones.fingerprint("hf-tiny-llama", data)


def test_an_adapter_alone_is_named(data):
    folder, _ = with_adapter(data)
    (folder / "config.json").unlink()
    with pytest.raises(DataError, match="an adapter without its model: merge it"):
        backbones.find("hf-tiny-llama")


def test_shards_are_those_of_the_index_and_leftovers_are_not_read(data):
    folder = save(data, "llama")
    whole, ids = network("llama"), torch.arange(3, 30)[None]
    single = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    whole.save_pretrained(folder, max_shard_size="20KB")
    before = backbones.fingerprint("hf-tiny-llama", data)
    shards = causal_lms.weight_files(folder)
    assert len(shards) > 1
    (folder / "consolidated.safetensors").write_bytes(b"of another library")
    (folder / "model-00001-of-00099.safetensors").write_bytes(b"of an earlier time")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    assert backbones.fingerprint("hf-tiny-llama", data) == before
    with torch.no_grad():
        found = causal_lms.load(folder, None).network(ids).logits
        torch.testing.assert_close(found, whole(ids).logits)
    (folder / "model.safetensors").write_bytes(single)
    with pytest.raises(DataError, match="two sets of weights"):
        backbones.fingerprint("hf-tiny-llama", data)
    (folder / "model.safetensors").unlink()
    shards[1].unlink()
    with pytest.raises(DataError, match=f"lacks {shards[1].name}"):
        backbones.fingerprint("hf-tiny-llama", data)
    (folder / causal_lms.INDEX).unlink()
    with pytest.raises(DataError, match="no model.safetensors.*but consolidated.safetensors"):
        backbones.fingerprint("hf-tiny-llama", data)


@pytest.mark.parametrize("shards", [None, {}, {"a": ["x"]}, {"a": "../other/model.safetensors"}])
def test_an_index_that_names_no_shard_beside_it_is_refused(shards, data):
    folder = save(data, "llama")
    (folder / causal_lms.INDEX).write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(DataError, match=causal_lms.INDEX):
        backbones.fingerprint("hf-tiny-llama", data)


@pytest.mark.parametrize("file", ["quantize_config.json", "quant_config.json"])
def test_quantisers_that_leave_a_file_are_named_by_it(file, data):
    (save(data, "llama") / file).write_text(json.dumps({"bits": 4, "quant_method": "gptq"}))
    with pytest.raises(DataError, match="quantised .gptq."):
        backbones.fingerprint("hf-tiny-llama", data)


def test_ids_beyond_the_models_vocabulary_are_named_in_the_plan(data):
    folder = save(data, "llama")
    own = transformers.AutoTokenizer.from_pretrained(folder)
    own.add_tokens([f"word{i}" for i in range(300 - len(own))])
    own.save_pretrained(folder)
    backbones.fingerprint("hf-tiny-llama", data)  # as many as the model has
    own.add_special_tokens({"pad_token": "[PAD]"})
    own.save_pretrained(folder)
    with pytest.raises(DataError, match=r"'\[PAD\]' has the id 300.*resize_token_embeddings"):
        backbones.fingerprint("hf-tiny-llama", data)
    with pytest.raises(DataError, match=r"'\[PAD\]' has the id 300"):
        causal_lms.load(folder, None)


def test_prompts_and_answers_fit_the_models_positions(data, tmp_path):
    save(data, "llama", max_position_embeddings=16)
    file = suite("llama", tmp_path, stream={"max_prompt_tokens": 12, "max_new_tokens": 5})
    with pytest.raises(DataError, match="suite.yaml, experiment 1: .* 17 tokens.*positions for 16"):
        load_suite(str(file), data)
    file = suite("llama", tmp_path, stream={"max_prompt_tokens": 15})
    [record] = made(file, data)  # what the answers need only the data say
    assert record["status"] == "failed" and "has positions for 16" in record["error"]
    assert record["tasks"] == []


def test_the_key_changes_with_whatever_changes_a_text_or_a_number(data, monkeypatch):
    folder = save(data, "llama")

    def found():
        return backbones.fingerprint("hf-tiny-llama", data)

    known = [found()]
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    known.append(found())
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/default.jinja").write_text("{{ bos_token }}")
    known.append(found())
    for name in ("merges.txt", "special_tokens_map.json", "added_tokens.json"):
        (folder / name).write_text("{}")
        known.append(found())
    settings = json.loads((folder / "generation_config.json").read_text()) | {"eos_token_id": 7}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    known.append(found())
    for left in ("README.md", "optimizer.pt", "pytorch_model.bin", "training_args.bin"):
        (folder / left).write_bytes(b"x")
    (folder / "tokenizer_old").mkdir()
    known.append(found())
    assert len(set(known)) == len(known) - 1 and known[-1] == known[-2]
    monkeypatch.setattr(causal_lms, "READING", causal_lms.READING + 1)
    causal_lms._checked_digest.cache_clear()
    assert found() not in known


def test_the_reading_is_part_of_the_key_of_a_commit_and_of_no_embedded_model(monkeypatch):
    names = ("smollm2-135m-instruct", "micro-llama")
    outside, here = (backbones.fingerprint(name, None) for name in names)
    monkeypatch.setattr(causal_lms, "READING", causal_lms.READING + 1)
    assert backbones.fingerprint(names[0], None) != outside
    assert backbones.fingerprint(names[1], None) == here
    # of the records in benchmarks/published
    assert here == "d467bfab94bfde664c223ce28f380143d8ec5a0aac644982ab8fb7485457c5ec"


def test_one_fine_tuned_matrix_of_a_large_file_changes_the_key(data, monkeypatch):
    monkeypatch.setattr(causal_lms, "_N_PROBES", 100)
    monkeypatch.setattr(causal_lms, "_PROBE_BYTES", 64)
    folder = save(data, "llama")
    assert next(folder.glob("*.safetensors")).stat().st_size > 100 * 64
    before = backbones.fingerprint("hf-tiny-llama", data)
    other = network("llama")
    other.model.layers[0].self_attn.q_proj.weight.data.add_(1)
    other.save_pretrained(folder)
    assert backbones.fingerprint("hf-tiny-llama", data) != before


@pytest.fixture
def hub(data, tmp_path, monkeypatch):
    """A repository with more than one set of weights, and the list of what is fetched of it."""
    folder = save(data, "llama").rename(tmp_path / "repository")
    for other in ("consolidated.safetensors", "pytorch_model.bin", "onnx/model.safetensors"):
        (folder / other).parent.mkdir(exist_ok=True)
        (folder / other).write_bytes(b"large")
    fetched = []

    def snapshot_download(repo_id, revision, allow_patterns, local_dir):
        paths = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
        for path in huggingface_hub.utils.filter_repo_objects(paths, allow_patterns=allow_patterns):
            (local_dir / path).parent.mkdir(parents=True, exist_ok=True)
            (local_dir / path).write_bytes((folder / path).read_bytes())
            fetched.append(path)
        return str(local_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda filename, **_: folder / filename)
    return folder, fetched


COMMIT = 40 * "0"


@pytest.mark.parametrize("sharded", [False, True])
def test_of_a_repository_no_weights_are_fetched_that_are_not_used(sharded, hub, tmp_path):
    folder, fetched = hub
    if sharded:
        (folder / "model.safetensors").unlink()
        network("llama").save_pretrained(folder, max_shard_size="20KB")
    manifest = backbones.prepare(f"hf-tiny--llama@{COMMIT}", tmp_path / "out", None)
    weights = {path for path in fetched if path.endswith((".safetensors", ".bin"))}
    assert weights == {path.name for path in causal_lms.weight_files(folder)}
    assert len(weights) > 1 or not sharded
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        found = backbones.load(manifest, 0, None).network(ids).logits
        torch.testing.assert_close(found, network("llama")(ids).logits)


def test_what_a_repository_lacks_is_said_before_its_weights_are_fetched(hub, tmp_path):
    folder, fetched = hub
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(DataError, match="adapter_config.json"):
        backbones.prepare(f"hf-tiny--llama@{COMMIT}", tmp_path / "out", None)
    (folder / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "x"}}))
    with pytest.raises(DataError, match=f"hf-tiny--llama@{COMMIT} are quantised .x."):
        backbones.find(f"hf-tiny--llama@{COMMIT}")
    assert not [path for path in fetched if path.endswith(".safetensors")]


@pytest.mark.parametrize("name", ["a--b--c", "a..b", "a-", "x" * 100])
def test_what_the_hub_would_not_take_for_a_name_is_said(name, data):
    with pytest.raises(DataError, match="names no repository of the hub"):
        backbones.find(f"hf-{name}@{COMMIT}")


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
        "stream": {"max_prompt_tokens": 1024, "n_tasks": 8},
        "train": {"batch_size": 4, "micro_batch_size": None, "precision": "float32"},
        "method": {"name": "seqlora", "config": {"rank": 8}},
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
    assert causal_lms.load(folder, None).ends == [2, 7]
    settings = json.loads((folder / "generation_config.json").read_text()) | {
        "eos_token_id": [9, 2, 8]
    }
    (folder / "generation_config.json").write_text(json.dumps(settings))
    assert causal_lms.load(folder, None).ends == [2, 8, 9]
    (folder / "generation_config.json").unlink()
    assert causal_lms.load(folder, None).ends == [2, 7]


PENALTIES = {
    "repetition_penalty": 0.01,
    "no_repeat_ngram_size": 1,
    "suppress_tokens": list(range(100, 200)),
    "begin_suppress_tokens": list(range(200, 300)),
    "forced_eos_token_id": 5,
    "min_length": 12,
    "max_length": 3,
    "num_beams": 3,
    "num_return_sequences": 2,
    "do_sample": True,
    "temperature": 3.0,
    "top_k": 7,
    "bad_words_ids": [[5]],
    "sequence_bias": [[[9], -10.0]],
    "guidance_scale": 2.0,
    "exponential_decay_length_penalty": [1, 2.0],
    "cache_implementation": "static",
    "stop_strings": ["a"],
}


def greedily(own, ids, ends, n):
    """The likeliest continuation, token by token and without any cache; its end left out."""
    new = []
    while len(new) < n:
        likeliest = int(own(torch.tensor([ids + new])).logits[0, -1].argmax())
        if likeliest in ends:
            break
        new.append(likeliest)
    return new


@pytest.mark.parametrize("where", ["generation_config.json", "config.json", "memory"])
def test_answers_are_those_of_the_network_whatever_the_checkpoint_says(where, data):
    """Of any number together, and however long the padding is."""
    folder = save(data, "llama")
    own = network("llama")
    with torch.no_grad():  # some answers end early, by either end
        own.get_output_embeddings().weight[2] *= 3
        own.get_output_embeddings().weight[7] *= 3
    own.save_pretrained(folder)
    for name in {"generation_config.json", where} - {"memory"}:
        settings = json.loads((folder / name).read_text()) | {"eos_token_id": [2, 7]}
        (folder / name).write_text(json.dumps(settings | (PENALTIES if name == where else {})))
    model, tokenizer = causal_lms.load(folder, None), causal_lms.tokenizer(folder)
    if where == "memory":
        own.generation_config.update(**PENALTIES)
        model = LanguageModel(own, [2, 7])
    generator = torch.Generator().manual_seed(1)
    prompts = torch.zeros(10, 2, 24, dtype=torch.long)
    for i in range(10):
        prompts[i, 0, 2 * i :] = torch.randint(8, 300, (24 - 2 * i,), generator=generator)
        prompts[i, 1, 2 * i :] = 1
    tokenizer.decode = list
    with torch.no_grad():
        expected = [greedily(own, x[0, 2 * i :].tolist(), (2, 7), 8) for i, x in enumerate(prompts)]
    assert 1 < len({len(answer) for answer in expected}) and max(map(len, expected)) == 8
    for size in (1, 3, 10):
        assert evaluate.generate(model, prompts, 8, "cpu", tokenizer, batch_size=size) == expected
    padded = torch.nn.functional.pad(prompts, (30, 0))
    new = model.generate(padded, 8).tolist()
    assert [[i for i in row if i != 2] for row in new] == expected
    model.decoding = "released"
    drawn = [
        evaluate.generate(model, x, 8, "cpu", tokenizer, batch_size=size)
        for x in (prompts, padded)
        for size in (1, 3, 10)
    ]
    assert drawn[1:] == drawn[:-1] and drawn[0] != expected


def test_released_answers_are_drawn_at_temperature_a_tenth_from_the_likeliest_fifty():
    draw = models_module._Draw()
    logits = torch.linspace(0, 0.5, 60)[torch.randperm(60)]
    drawn = torch.stack([draw(None, logits[None])[0].argmax() for _ in range(4000)])
    found = torch.bincount(drawn, minlength=60) / 4000
    expected = (logits / 0.1).masked_fill(logits < logits.topk(50).values[-1], -torch.inf)
    torch.testing.assert_close(found, expected.softmax(0), atol=0.02, rtol=0)
    assert (found[logits < logits.topk(50).values[-1]] == 0).all()


def test_the_estimate_counts_what_is_there():
    """Weights and what Adam keeps, against the tensors of a real network."""
    spec = {
        "backbone": {"name": "smollm2-135m-instruct"},
        "stream": {"max_prompt_tokens": 1, "max_answer_tokens": 1, "n_tasks": 8},
        "train": {
            "batch_size": 1,
            "micro_batch_size": None,
            "precision": "float32",
            "test_batch_size": 1,
        },
        "method": {"name": "seqlora", "config": {"rank": 8}},
    }
    built = causal_lms.build(causal_lms.architecture(backbones.find("smollm2-135m-instruct")))
    n = sum(p.numel() for p in built.parameters())
    least = 4 * n + 16 * 8 * 30 * (2 * 576 + 576 + 192)
    assert least < memory.needed_bytes(spec) < 1.05 * least


def test_a_tokenizer_without_an_end_is_refused(tmp_path):
    config("llama").save_pretrained(tmp_path)
    save_tokenizer(tmp_path, eos_token=None)
    with pytest.raises(DataError, match="no token that ends a text"):
        causal_lms.tokenizer(tmp_path)


def test_ids_of_special_tokens_come_from_the_tokenizer(tmp_path):
    config("llama").save_pretrained(tmp_path)
    save_tokenizer(tmp_path, pad_token=None)
    found = causal_lms.tokenizer(tmp_path)
    assert (found.pad, found.begin, found.end) == (2, None, 2)  # it has a bos_token, but adds none
    assert found.template is None
    assert isinstance(found.encode, types.FunctionType)
