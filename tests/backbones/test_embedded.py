"""The committed backbones: made by the present recipe, as good as they say, and rebuildable."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save_file

from benchmarks import backbones
from benchmarks.backbones import embedded, pretrain
from benchmarks.common.errors import DataError

pytestmark = pytest.mark.slow

EMBEDDED = ["micro-vit", "micro-llama"]


def reached(name):
    """What the weights reached, by their metadata."""
    with safe_open(backbones.find(name).file, "pt") as file:
        return file.metadata()


def own_weights(name):
    backbone = backbones.find(name)
    return backbone.load({"weights": str(backbone.file)}).eval()


def test_the_committed_weights_come_from_the_present_recipe_and_stay_small(monkeypatch, tmp_path):
    assert not any(backbones.find(name).rebuilt for name in EMBEDDED)
    assert sum(path.stat().st_size for path in embedded.COMMITTED.iterdir()) < 4 * 2**20
    monkeypatch.setattr(embedded, "COMMITTED", tmp_path)
    assert backbones.find("micro-vit").rebuilt
    (tmp_path / "micro-vit.safetensors").write_bytes(b"damaged")
    assert backbones.find("micro-vit").file.parent == embedded.REBUILT
    monkeypatch.setattr(embedded, "REBUILT", tmp_path)
    for metadata in (None, {"recipe": "of another time"}):
        with pytest.raises(DataError, match="micro-vit.safetensors is missing.*make pretrain"):
            backbones.find("micro-vit").prepare(tmp_path, None)
        save_file({"weight": torch.zeros(1)}, tmp_path / "micro-vit.safetensors", metadata)
    with pytest.raises(DataError, match="micro-vit.safetensors is missing, damaged or of another"):
        backbones.find("micro-vit").prepare(tmp_path, None)


def test_the_digests_are_those_of_the_published_records():
    digests = [backbones.find(name).fingerprint(None)[:16] for name in EMBEDDED]
    assert digests == ["04acb736e78f028d", "28d244726bea00a4"]


def test_the_micro_vit_is_as_accurate_as_its_metadata_says(prepared_stream):
    with np.load(prepared_stream("glyphs") / "pretrain.npz") as file:
        images, labels = (torch.from_numpy(file[n])[::10] for n in ("images", "labels"))
    model = own_weights("micro-vit")
    # The pre-training classifier is not kept: nearest class mean of features, half against half.
    with torch.no_grad():
        x = (images.float() / 255).unsqueeze(1).expand(-1, 3, -1, -1)
        features = torch.cat([model.encode(model.embed(part))[:, 0] for part in x.split(256)])
    means = torch.stack([features[labels == c][::2].mean(0) for c in labels.unique()])
    tested = torch.cat([features[labels == c][1::2] for c in labels.unique()])
    gold = torch.arange(len(means)).repeat_interleave(len(tested) // len(means))
    accuracy = (torch.cdist(tested, means).argmin(1) == gold).float().mean()
    assert float(reached("micro-vit")["held_out_accuracy"]) > 0.5
    assert accuracy > 0.5 * float(reached("micro-vit")["held_out_accuracy"])


def test_the_micro_llama_answers_as_its_metadata_says(prepared_stream):
    backbone = backbones.find("micro-llama")
    file = prepared_stream("docs") / "pretrain.json"
    items = json.loads(file.read_text(encoding="utf-8"))
    held_out = items[:: backbone.held_out]
    right = pretrain.answered(own_weights("micro-llama"), backbone.tokenizer({}), held_out)
    assert right > 0.2
    assert right == pytest.approx(float(reached("micro-llama")["held_out_answers"]), abs=0.02)


def rebuild(name):
    """Three steps of the recipe on miniature data."""
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
    monkeypatch.chdir(tmp_path)
    first, second = rebuild(name), rebuild(name)
    tensors, again = (load(files["safetensors"]) for files in (first, second))  # metadata may swap
    assert tensors.keys() == again.keys()
    assert all(torch.equal(value, again[key]) for key, value in tensors.items())
    assert first.get("tokenizer.json") == second.get("tokenizer.json")
    weights = tmp_path / "again.safetensors"
    weights.write_bytes(first["safetensors"])
    backbones.find(name).load({"weights": str(weights)})


def test_weights_from_outside_are_not_pretrained_here():
    with pytest.raises(DataError, match="vit-ti is not pre-trained here"):
        pretrain.pretrain("vit-ti")
