"""General ability: a text's loss before and after, which changes nothing else."""

import json
import math

import pytest
import torch
import torch.nn.functional as F

from benchmarks import backbones
from benchmarks.common.errors import DataError
from benchmarks.common.files import read_json
from benchmarks.runs import general
from benchmarks.runs.plan import BATCHES, Batch, load_plan
from benchmarks.runs.suite import load_suite
from tests import tiny
from tests.outside import made, save, suite
from tests.vocabularies import TEXTS

METHODS = {"seqlora": {"learning_rate": 0.1}, "l2p": {}, "fix": {}, "sapt": {}}


def write(path):
    (path / "held.txt").write_text("\n".join(TEXTS * 20))
    return {"train": {"general": "held.txt"}}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """By method, with the text and without it; and where it all lies."""
    path = tmp_path_factory.mktemp("general")
    (path / "data").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TREELORA_DATA", str(path / "data"))
        patch.chdir(path)
        folder = save(path / "data")
        both = []
        for changes in (write(path), {}):
            found = made(suite("llama", path, methods=METHODS, **changes), path / "data")
            both.append({record["spec"]["method"]["name"]: record for record in found})
        backbone = backbones.find("hf-tiny-llama")
        manifest = {"weights": str(folder)}
        network, tokenizer = backbone.load(manifest), backbone.tokenizer(manifest)
    return *both, network, tokenizer, path


@pytest.mark.slow
def test_before_is_the_backbones_loss_and_after_that_of_what_learnt(records):
    measured, plain, network, tokenizer, path = records
    ids = tokenizer.encode((path / "held.txt").read_text())
    begin = [] if tokenizer.begin is None else [tokenizer.begin]
    step = 128 - len(begin)
    windows = torch.tensor([begin + ids[i : i + step] for i in range(0, len(ids) - step, step)])
    with torch.no_grad():
        logits = network.network(windows[:64]).logits[:, :-1]
    expected = F.cross_entropy(logits.flatten(0, 1), windows[:64, 1:].flatten()).item()
    for name, record in measured.items():
        assert record["status"] == "done", record["error"]
        found = record["general"]
        assert found["before"] == pytest.approx(expected, rel=1e-4)
        assert found["tokens"] == windows[:64, 1:].numel() and found["text"] == "held.txt"
        assert math.isfinite(found["after"])
        assert "general" not in plain[name] and record["R"] == plain[name]["R"]
        assert record["key"] != plain[name]["key"]
    assert measured["seqlora"]["general"]["after"] != measured["seqlora"]["general"]["before"]


def test_the_text_is_in_the_key_and_its_place_is_not(data, tmp_path):
    save(data)
    changes = write(tmp_path)

    def key(**changes):
        return load_suite(str(suite("llama", tmp_path, **changes)), data).runs[0].key

    keys = [key(), key(**changes), key(train={"general": "docs"})]
    (tmp_path / "held.txt").rename(tmp_path / "moved.txt")
    assert key(train={"general": "moved.txt"}) == keys[1]
    (tmp_path / "moved.txt").write_text("another text")
    keys.append(key(train={"general": "moved.txt"}))
    assert len(set(keys)) == len(keys)


def inputs(plan):
    """Of the job of its first run."""
    batch = Batch(plan.runs[:1])
    batch.write_job(1, "")
    return read_json(BATCHES / f"{batch.name}.json")["inputs"]


def test_the_embedded_text_needs_its_stream(data, tmp_path):
    save(data)
    plan = load_plan(str(suite("llama", tmp_path, train={"general": "docs"})))
    assert plan.pretrain_streams == ["docs"]
    assert "resources/streams/docs/manifest.json" in inputs(plan)
    plan = load_plan(str(suite("llama", tmp_path)))
    assert plan.pretrain_streams == []
    assert "resources/streams/docs/manifest.json" not in inputs(plan)


def test_the_embedded_text_is_what_pre_training_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    items = [{"text": " ".join(f"w{3 + i}" for _ in range(9))} for i in range(37)]
    (tmp_path / "resources/streams/docs").mkdir(parents=True)
    (tmp_path / "resources/streams/docs/pretrain.json").write_text(json.dumps(items))
    x = general.windows("docs", general.digest("docs"), tiny.TOKENIZER, 8)
    assert set(x[:, 0].unique().tolist()) == {1, 3, 23} and x.shape[1:] == (2, 8)
    assert x[:, 1].tolist() == len(x) * [[1, *[2] * 7]]


@pytest.mark.parametrize(
    ("place", "content", "said"),
    [
        ("gone.txt", None, "general must be docs or the path of a text file, but gone.txt"),
        ("held.txt", b"\xff\xfe\x00", "held.txt, is no text in UTF-8"),
        (3, None, "general must be a valid string"),
    ],
)
def test_what_is_no_text_is_said_in_the_plan(place, content, said, data, tmp_path):
    save(data)
    if content:
        (tmp_path / place).write_bytes(content)
    with pytest.raises(DataError, match=said):
        load_suite(str(suite("llama", tmp_path, train={"general": place})), data)


def test_a_short_or_changed_text_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "held.txt").write_text("w4 w5 w6")
    with pytest.raises(DataError, match="held.txt, must have 127 tokens or more, but has 3"):
        general.windows("held.txt", general.digest("held.txt"), tiny.TOKENIZER, None)
    with pytest.raises(DataError, match="held.txt, has changed"):
        general.windows("held.txt", "another", tiny.TOKENIZER, None)
