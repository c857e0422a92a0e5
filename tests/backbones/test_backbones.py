"""The committed backbones: made by the present recipe, as good as they say, and rebuildable."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load

from benchmarks import backbones, streams
from benchmarks.backbones import pretrain
from benchmarks.common.files import DataError

EMBEDDED = ["micro-vit", "micro-llama"]


def metadata(name):
    with safe_open(backbones.PRETRAINED / f"{name}.safetensors", "pt") as file:
        return file.metadata()


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_committed_weights_come_from_the_present_recipe(name):
    assert metadata(name)["recipe"] == pretrain.recipe_digest(backbones.find(name))


def test_the_committed_files_stay_small():
    assert sum(path.stat().st_size for path in backbones.PRETRAINED.iterdir()) < 4 * 2**20


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_number_of_adapted_matrices_is_the_networks(name):
    backbone = backbones.find(name)
    build = backbones.build_vision if backbone.modality == "vision" else backbones.build_language
    names = [n for n, _ in build(backbone, 2).split_qkv().named_modules()]
    adapted = [n for n in names if n.endswith(("q_proj", "v_proj"))]
    assert len(adapted) == backbone.adapted_matrices


def test_the_micro_vit_is_as_accurate_as_its_metadata_says(tmp_path):
    streams.prepare("glyphs", tmp_path, None)
    with np.load(tmp_path / "pretrain.npz") as file:
        images, labels = (torch.from_numpy(file[n])[::10] for n in ("images", "labels"))
    weights = backbones.PRETRAINED / "micro-vit.safetensors"
    model = backbones.load({"name": "micro-vit", "weights": str(weights)}, 1, None).eval()
    # The pre-training classifier is not kept: nearest class mean of features, half against half.
    with torch.no_grad():
        x = (images.float() / 255).unsqueeze(1).expand(-1, 3, -1, -1)
        features = torch.cat([model.encode(model.embed(part))[:, 0] for part in x.split(256)])
    means = torch.stack([features[labels == c][::2].mean(0) for c in labels.unique()])
    tested = torch.cat([features[labels == c][1::2] for c in labels.unique()])
    gold = torch.arange(len(means)).repeat_interleave(len(tested) // len(means))
    accuracy = (torch.cdist(tested, means).argmin(1) == gold).float().mean()
    assert float(metadata("micro-vit")["held_out_accuracy"]) > 0.5
    assert accuracy > 0.5 * float(metadata("micro-vit")["held_out_accuracy"])


def test_the_micro_llama_answers_as_its_metadata_says(tmp_path):
    streams.prepare("docs", tmp_path, None)
    items = json.loads((tmp_path / "pretrain.json").read_text(encoding="utf-8"))
    weights = backbones.PRETRAINED / "micro-llama.safetensors"
    model = backbones.load({"name": "micro-llama", "weights": str(weights)}, 0, None).eval()
    held_out = items[:: pretrain.HELD_OUT["micro-llama"]]
    right = pretrain.answered(model, backbones.tokenizer({"name": "micro-llama"}), held_out)
    assert right > 0.2
    assert right == pytest.approx(float(metadata("micro-llama")["held_out_answers"]), abs=0.02)


def rebuild(name, folder, monkeypatch):
    """Three steps of the recipe on miniature data, in a folder of its own."""
    monkeypatch.chdir(folder)
    data = Path("resources/streams") / backbones.find(name).pretrain_stream
    data.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32), dtype=np.uint8)
    np.savez(data / "pretrain.npz", images=images, labels=np.arange(40) % 4)
    texts = [f"The function number {i} returns the value {i * 7} of its input." for i in range(400)]
    items = [{"text": text, "prompt": f"{text}\nPart:", "answer": "maths"} for text in texts]
    del items[1]["prompt"], items[1]["answer"]  # not every text comes with a question
    (data / "pretrain.json").write_text(json.dumps(items))
    return pretrain.pretrain(name, steps=3)


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_rebuild_makes_the_same_weights_twice(name, tmp_path, monkeypatch):
    first, second = (rebuild(name, tmp_path, monkeypatch) for _ in range(2))
    tensors, again = (load(files["safetensors"]) for files in (first, second))  # metadata may swap
    assert tensors.keys() == again.keys()
    assert all(torch.equal(value, again[key]) for key, value in tensors.items())
    assert first.get("tokenizer.json") == second.get("tokenizer.json")
    weights = tmp_path / "again.safetensors"
    weights.write_bytes(first["safetensors"])
    backbones.load({"name": name, "weights": str(weights)}, 3, None)


def test_weights_from_outside_are_not_pretrained_here():
    with pytest.raises(DataError, match="vit-ti is not pre-trained here"):
        pretrain.pretrain("vit-ti")


def test_the_tokenizer_gives_back_every_byte():
    tokenizer = backbones.tokenizer({"name": "micro-llama"})
    text = "Einschließlich “quotes”, 中文 and\nPart:"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert (tokenizer.pad, tokenizer.begin, tokenizer.end) == (0, 1, 2)
    assert max(tokenizer.encode(text)) < 2048
