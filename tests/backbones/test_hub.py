"""Language models of folders and of the hub: what is read, what is refused, and no code is run."""

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from baselines.common.lora import LoraSettings, add_lora
from benchmarks import backbones
from benchmarks.backbones import hub, model_folder
from benchmarks.common.errors import DataError
from benchmarks.common.files import write_json
from tests.outside import change, network, save

NAME = "hf-tiny-llama"
IDS = torch.arange(3, 30)[None]
QUANTISERS = ("quantize_config.json", "quant_config.json")


def digest(data):
    return backbones.find(NAME).fingerprint(data)


def load(folder):
    return backbones.find(NAME).load({"weights": str(folder)})


def assert_same_logits(model, expected):
    with torch.no_grad():
        torch.testing.assert_close(model.network(IDS).logits, expected(IDS).logits)


def test_names_lead_to_folders_or_say_what_is_missing(data, tmp_path):
    with pytest.raises(DataError, match="hf-tiny-llama.*names no commit.*TREELORA_DATA.*40 digits"):
        backbones.find(NAME)
    folder = save(data)
    assert backbones.find(NAME).adapted_matrices == 4
    with pytest.raises(DataError, match="'hf-tiny-llama'"):
        backbones.find("hf-tiny-lama")
    other = folder.rename(data / "Llama-2-7b-chat-hf")
    with pytest.raises(DataError, match=f"{other} is not llama-2-7b-chat.*2 layers and.* 32"):
        backbones.find("llama-2-7b-chat").fingerprint(data)
    folder = other.rename(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="tokenizer in .*tiny-llama"):
        backbones.find(NAME).prepare(tmp_path, data)
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match="holds no model.safetensors"):
        digest(data)


def test_a_run_needs_no_data_directory(data, monkeypatch):
    out = Path("resources/backbones", NAME)
    save(data)
    out.mkdir(parents=True)
    write_json(out / "manifest.json", backbones.find(NAME).prepare(out, data))
    monkeypatch.delenv("TREELORA_DATA")
    assert backbones.find(NAME).adapted_matrices == 4
    with pytest.raises(DataError, match="names no commit"):  # a plan asks for the folder
        backbones.find(NAME).fingerprint(None)
    (data / "tiny-llama").rename(data / "elsewhere")
    with pytest.raises(DataError, match="names no commit"):
        backbones.find(NAME)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_hidden_layers": 10**30}, "num_hidden_layers"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"hidden_size": "wide"}, "'llama' is damaged"),
        ({"vocab_size": 10**30}, "llama"),
        ({"pad_token_id": 300}, "llama"),
        ({"model_type": None}, "tiny-llama.*of the type None"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised .gptq."),
        ({"quantization_config": {"load_in_4bit": True}}, "quantised"),
    ],
)
def test_a_configuration_that_cannot_be_is_named_in_the_plan(changes, named, data):
    change(save(data) / "config.json", **changes)
    with pytest.raises(DataError, match=named):
        digest(data)


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 10**5, "\xff"])
def test_a_configuration_that_is_none_is_named(text, data):
    (save(data) / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match="tiny-llama/config.json"):
        backbones.find(NAME)


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        *((f, {"quant_method": "gptq"}, "quantised .gptq.") for f in QUANTISERS),
        *(
            (model_folder.INDEX, {"weight_map": shards}, model_folder.INDEX)
            for shards in (None, {}, {"a": ["x"]}, {"a": "../other/model.safetensors"})
        ),
    ],
)
def test_files_of_quantisers_and_an_index_of_nothing_are_named(file, content, named, data):
    (save(data) / file).write_text(json.dumps(content))
    with pytest.raises(DataError, match=named):
        digest(data)


CODE = """
from pathlib import Path
Path({marker!r}).write_text("ran")
class Evil: config_class = model_type = None
"""


@pytest.fixture
def evil(data, tmp_path):
    """A model's folder with code of its own, and the file that the code would write."""
    folder, marker = save(data), tmp_path / "marker"
    (folder / "custom_generate").mkdir()
    for file in ("evil.py", "custom_generate/generate.py"):
        (folder / file).write_text(CODE.format(marker=str(marker)))
    return folder, marker


@pytest.mark.parametrize("kind", ["vit", "of-its-own", "llama"])
def test_a_models_own_code_never_runs_and_nobody_is_asked(kind, data, evil, monkeypatch):
    folder, marker = evil
    auto = {f"Auto{part}": "evil.Evil" for part in ("Config", "ModelForCausalLM")}
    own = {"model_type": kind, "auto_map": auto, "_name_or_path": str(folder)}
    change(folder / "config.json", **own)
    own = {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    change(folder / "tokenizer_config.json", **own)
    monkeypatch.setattr("builtins.input", lambda *question: pytest.fail("asked"))
    if kind == "llama":  # transformers has a class of its own for it
        digest(data)
        load(folder).generate(torch.ones(1, 2, 3, dtype=torch.long), 2)
    else:
        with pytest.raises(DataError, match=f"of the type '{kind}'.*no.* from.* outside is run"):
            digest(data)
        with pytest.raises(DataError):
            load(folder)
    assert not marker.exists()


def test_a_tokenizers_own_code_never_runs(data, evil):
    folder, marker = evil
    (folder / "tokenizer.json").unlink()
    own = {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    with pytest.raises(DataError, match="tokenizer in"):
        digest(data)
    assert not marker.exists()


def test_transformers_is_always_told_to_run_no_code(data, monkeypatch):
    folder = save(data)
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
    digest(data)
    load(folder)
    assert len(told) == 3 and set(told.values()) == {False}


def test_a_configuration_decides_the_network_and_nothing_else(data):
    folder = save(data)
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
    change(folder / "config.json", **own)
    digest(data)
    model, mask = load(folder), 1 + (IDS > 8)
    assert not {key for key in own if getattr(model.network.config, key, None) == own[key]}
    with torch.no_grad():
        found = model.answer_logits(model.hidden(model.embed(IDS), mask), mask)
        expected = network()(IDS).logits[:, -found.shape[1] - 1 : -1]
        torch.testing.assert_close(found, expected)


def test_a_left_adapter_is_refused_and_never_applied(data):
    """Beside weights that it was merged into; alone it is named."""
    folder = save(data)
    adapter = LoraConfig(r=2, lora_alpha=64, target_modules=["o_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(network(), adapter)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    backbone = backbones.find(NAME)
    adapted.save_pretrained(folder)
    merged = adapted.merge_and_unload().eval()
    merged.save_pretrained(folder)
    with pytest.raises(DataError, match="adapter_config.json.*merge"):
        backbone.fingerprint(data)
    model = backbone.load({"weights": str(folder)})
    assert_same_logits(model, merged)
    trainable = [
        n for n, p in add_lora(model, LoraSettings()).named_parameters() if p.requires_grad
    ]
    assert {name.split(".")[-4] for name in trainable} == {"q_proj", "v_proj"}
    config = (folder / "config.json").rename(folder.parent / "config.json")
    with pytest.raises(DataError, match="an adapter without its model: merge it"):
        backbones.find(NAME)
    config.rename(folder / "config.json")
    (folder / "adapter_config.json").unlink()
    digest(data)


def test_shards_are_those_of_the_index_and_leftovers_are_not_read(data):
    folder = save(data)
    single = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    network().save_pretrained(folder, max_shard_size="20KB")
    before = digest(data)
    shards = model_folder.weight_files(folder)
    assert len(shards) > 1
    (folder / "consolidated.safetensors").write_bytes(b"of another library")
    (folder / "model-00001-of-00099.safetensors").write_bytes(b"of an earlier time")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    assert digest(data) == before
    assert_same_logits(load(folder), network())
    (folder / "model.safetensors").write_bytes(single)
    with pytest.raises(DataError, match="two sets of weights"):
        digest(data)
    (folder / "model.safetensors").unlink()
    shards[1].unlink()
    with pytest.raises(DataError, match=f"lacks {shards[1].name}"):
        digest(data)
    (folder / model_folder.INDEX).unlink()
    with pytest.raises(DataError, match="no model.safetensors.*but consolidated.safetensors"):
        digest(data)


def test_ids_beyond_the_models_vocabulary_are_named_in_the_plan(data):
    folder = save(data)
    own = transformers.AutoTokenizer.from_pretrained(folder)
    own.add_tokens([f"word{i}" for i in range(300 - len(own))])
    own.save_pretrained(folder)
    digest(data)  # as many as the model has
    own.add_special_tokens({"pad_token": "[PAD]"})
    own.save_pretrained(folder)
    with pytest.raises(DataError, match=r"'\[PAD\]' has the id 300.*resize_token_embeddings"):
        digest(data)
    with pytest.raises(DataError, match=r"'\[PAD\]' has the id 300"):
        load(folder)


def test_answers_end_where_the_tokenizer_and_the_model_say_and_damaged_weights_are_named(data):
    folder = save(data, eos_token_id=7)
    settings, file = folder / "generation_config.json", folder / "model.safetensors"
    assert load(folder).ends == [2, 7]
    change(settings, eos_token_id=[9, 2, 8])
    assert load(folder).ends == [2, 8, 9]
    settings.unlink()
    assert load(folder).ends == [2, 7]
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="tiny-llama cannot be loaded"):
        load(folder)


def test_the_key_changes_with_whatever_changes_a_text_or_a_number(data, monkeypatch):
    folder = save(data)
    known = [digest(data)]
    (folder / "additional_chat_templates").mkdir()
    for name in (
        *("chat_template.jinja", "additional_chat_templates/default.jinja", "merges.txt"),
        *("special_tokens_map.json", "added_tokens.json"),
    ):
        (folder / name).write_text("{}")
        known.append(digest(data))
    change(folder / "generation_config.json", eos_token_id=7)
    known.append(digest(data))
    for left in ("README.md", "optimizer.pt", "pytorch_model.bin", "training_args.bin"):
        (folder / left).write_bytes(b"x")
    (folder / "tokenizer_old").mkdir()
    assert digest(data) == known[-1]
    of_a_commit = backbones.find("smollm2-135m-instruct")
    known.append(of_a_commit.fingerprint(None))
    monkeypatch.setattr(model_folder, "READING", model_folder.READING + 1)
    hub._digests.clear()
    known += digest(data), of_a_commit.fingerprint(None)
    assert len(set(known)) == len(known)


def test_one_fine_tuned_matrix_of_a_large_file_changes_the_key(data, monkeypatch):
    monkeypatch.setattr(model_folder, "_N_PROBES", 100)
    monkeypatch.setattr(model_folder, "_PROBE_BYTES", 64)
    folder = save(data)
    assert (folder / "model.safetensors").stat().st_size > 100 * 64
    before = digest(data)
    other = network()
    other.model.layers[0].self_attn.q_proj.weight.data.add_(1)
    other.save_pretrained(folder)
    assert digest(data) != before


COMMIT = 40 * "0"
PINNED = f"hf-tiny--llama@{COMMIT}"


@pytest.fixture
def repository(data, tmp_path, monkeypatch):
    """One with more than one set of weights, and the list of what is fetched of it."""
    folder = save(data).rename(tmp_path / "repository")
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


@pytest.mark.parametrize("sharded", [False, True])
def test_of_a_repository_no_weights_are_fetched_that_are_not_used(sharded, repository, tmp_path):
    folder, fetched = repository
    if sharded:
        (folder / "model.safetensors").unlink()
        network().save_pretrained(folder, max_shard_size="20KB")
    backbone = backbones.find(PINNED)
    manifest = backbone.prepare(tmp_path / "out", None)
    weights = {path for path in fetched if path.endswith((".safetensors", ".bin"))}
    assert weights == {path.name for path in model_folder.weight_files(folder)}
    assert len(weights) > 1 or not sharded
    assert_same_logits(backbone.load(manifest), network())


def test_what_a_repository_lacks_is_said_before_its_weights_are_fetched(repository, tmp_path):
    folder, fetched = repository
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(DataError, match="adapter_config.json"):
        backbones.find(PINNED).prepare(tmp_path / "out", None)
    (folder / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "x"}}))
    with pytest.raises(DataError, match=f"{PINNED} are quantised .x."):
        backbones.find(PINNED)
    assert not [path for path in fetched if path.endswith(".safetensors")]


@pytest.mark.parametrize("name", ["x--..", "x--.", "x--.."])
def test_no_name_leads_out_of_the_data_directory(name, data):
    (data.parent / "config.json").write_text("{}")
    with pytest.raises(DataError, match="should be hf- and the name of a folder"):
        backbones.find(f"hf-{name}")


@pytest.mark.parametrize("name", ["a--b--c", "a..b", "a-", "x" * 100])
def test_what_the_hub_would_not_take_for_a_name_is_said(name, data):
    with pytest.raises(DataError, match="names no repository of the hub"):
        backbones.find(f"hf-{name}@{COMMIT}")


def test_a_gated_model_says_how_to_get_access(data, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(DataError, match="licensed to those who ask.* https.*HF_TOKEN"):
        backbones.find("llama-3.2-1b-instruct").prepare(tmp_path, data)
