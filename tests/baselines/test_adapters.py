"""What methods keep as one adapter, and the folders of it; `test_contract` compares outputs."""

import json
import shutil
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from baselines.common.lora import LoraMethod
from benchmarks.backbones.vision import joined_qkv
from benchmarks.common.errors import DataError
from benchmarks.common.files import read_json
from benchmarks.runs import adapters, model_card
from tests import kept, tiny

# Those of which one adapter is all that is tested, on each modality that they run on.
ONE_ADAPTER = {
    *("derpp", "ewc", "gem", "inflora", "joint", "magmax", "ogd", "olora", "sdlora", "seqlora"),
    *("tasl", "treelora"),
}


def learnt(place, modality, n_tasks=2, **config):
    method = tiny.method(place, modality, **config)
    for task in tiny.tasks(modality, n_tasks, epochs=1):
        tiny.learn(method, task)
    return method


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What is kept of SeqLoRA, a LoRA on images and on text, and of a method that is none."""
    out, found = tmp_path_factory.mktemp("kept"), {}
    with pytest.MonkeyPatch.context() as patch:
        for place, modality in (("seqlora", "vision"), ("seqlora", "language"), ("l2p", "vision")):
            method = learnt(place, modality)
            folder = kept.write(out / f"{place}-{modality}", method, place, patch)
            found[place, modality] = SimpleNamespace(method=method, folder=folder)
    return found


@pytest.fixture
def copied(folders, tmp_path):
    """A copy of the folder of SeqLoRA on text."""
    return shutil.copytree(folders["seqlora", "language"].folder, tmp_path / "copy")


def test_methods_of_one_adapter_keep_it():
    found = {pair: tiny.method(*pair).adapter() is not None for pair in tiny.pairs()}
    assert found == {(name, modality): name in ONE_ADAPTER for name, modality in found}


def test_adapters_side_by_side_are_one_of_their_ranks_together():
    ranks = []
    method = tiny.method("olora", "language", rank=3)
    for task in tiny.tasks("language", epochs=1):
        tiny.learn(method, task)
        adapter = method.adapter()
        ranks.append({len(A) for A, _ in adapter.factors.values()})
        assert adapter.scale == 16 / 3
    assert ranks == [{3}, {6}, {9}]


def test_an_adapter_of_the_whole_network_or_of_a_wrapped_one_is_none():
    class Wrapped(LoraMethod):
        def adapt(self, backbone):
            return nn.Sequential(super().adapt(backbone), nn.Linear(6, 6))

    assert tiny.method(Wrapped, "vision").adapter() is None
    assert tiny.method("ewc", "language", trained="all").adapter() is None


def test_parts_of_a_fused_projection_are_one_change_of_it():
    torch.manual_seed(0)
    x, A, other = torch.randn(5, 4), torch.randn(2, 4), torch.randn(3, 4)
    key, value, query = torch.randn(4, 2), torch.randn(4, 2), torch.randn(4, 3)
    factors = {"0.qkv.k_proj": (A, key), "0.qkv.v_proj": (A, value), "1.fc": (other, query)}
    joined = joined_qkv(factors)
    assert joined.keys() == {"0.qkv", "1.fc"}
    whole, expected = joined["0.qkv"], [torch.zeros(5, 4), x @ A.T @ key.T, x @ A.T @ value.T]
    assert len(whole[0]) == 2  # what both read is there once
    torch.testing.assert_close(x @ whole[0].T @ whole[1].T, torch.cat(expected, dim=1))
    whole = joined_qkv(factors | {"0.qkv.q_proj": (other, query)})["0.qkv"]
    expected[0] = x @ other.T @ query.T
    torch.testing.assert_close(x @ whole[0].T @ whole[1].T, torch.cat(expected, dim=1))


def test_a_classifier_has_the_classes_that_were_learnt(tmp_path, monkeypatch):
    method = learnt("seqlora", "vision")
    folder = kept.write(tmp_path / "a", method, "seqlora", monkeypatch, tasks=["first", "second"])
    assert adapters.read(folder).seen == ["alef", "bet", "gimel", "dalet"]
    model = kept.stock("vision", n_classes=4)
    adapters.add(folder, model)
    x, _ = tiny.samples("vision", 1).batch(torch.arange(12))
    with torch.no_grad():
        found, expected = model.eval()(x), method.model.eval()(x)
    torch.testing.assert_close(found, expected[:, :4], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("targets", ["q", "qkv"])
def test_ranks_may_differ_from_matrix_to_matrix(targets, tmp_path, monkeypatch):
    """As those of a change of full rank do where matrices differ in their inputs."""
    method = learnt("seqlora", "language", n_tasks=1, targets=targets, layers=1)
    adapter = method.adapter()
    first = next(iter(adapter.factors))
    cut = {first: (adapter.factors[first][0][:3], adapter.factors[first][1][:, :3])}
    cut = type(adapter)(adapter.factors | cut, adapter.scale)
    monkeypatch.setattr(method, "adapter", lambda: cut)
    folder = kept.write(tmp_path / "a", method, "seqlora", monkeypatch)
    model = kept.stock("language")
    adapters.add(folder, model)
    x = torch.randn(2, 32)
    for name, (A, B) in cut.factors.items():
        layer = model.get_submodule(name)
        change = layer(x) - layer.base_layer(x)
        torch.testing.assert_close(change, x @ A.T @ B.T * cut.scale, atol=1e-6, rtol=1e-4)


def test_a_card_is_what_the_hub_reads(folders):
    for (place, modality), made in folders.items():
        card = (made.folder / adapters.CARD).read_text()
        _, front, text = card.split("---\n", 2)
        front = yaml.safe_load(front)
        assert front["pipeline_tag"].startswith("image" if modality == "vision" else "text")
        assert front.get("library_name") == ("peft" if place == "seqlora" else None)
        assert "base_model" not in front  # it is not on the hub
        assert "| second | " in text and "| – |" in text and "25.0" in text
        assert ("PEFT does not read it" in text) == (place == "l2p") == ("## Tensors" in text)
        if place == "l2p":
            with safe_open(made.folder / adapters.STATE, "pt") as file:
                rows = text.replace("\\", "")
                assert all(f"| {name} |" in rows for name in file.keys())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf-org--model@" + "a" * 40, ("org/model", "a" * 40)),
        ("vit-ti", ("timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", "20ea349")),
        ("micro-vit", (None, None)),
    ],
)
def test_a_backbone_of_the_hub_is_named_by_its_repository(name, expected):
    from benchmarks import backbones

    backbone = backbones.BACKBONES.get(name)
    if backbone is None:
        options = {"architecture": {}, "pretraining": "a test's", "revision": "a" * 40}
        backbone = backbones.HubModel(name=name, repo="org/model", **options)
    assert model_card.repository(backbone) == expected


def test_text_from_outside_is_text_in_a_card(tmp_path, monkeypatch):
    hostile = "<b>|x|</b> `y` \x1b[31m\n# z"
    names = [[hostile, "b"], ["c", "d"], ["e", "f"]]
    made = learnt("seqlora", "vision", n_tasks=1)
    changes = {"tasks": [hostile], "metrics": ["accuracy"], "scores": [0.5], "classes": names}
    folder = kept.write(tmp_path / "a", made, "seqlora", monkeypatch, **changes)
    card = (folder / adapters.CARD).read_text()
    assert "<b>" not in card and "\x1b" not in card and "\n# z" not in card
    assert adapters.read(folder).tasks == [hostile]


def test_names_of_tasks_are_safe_names_of_folders(tmp_path):
    places = [
        adapters.place(tmp_path, n, 12, name)
        for n, name in ((1, "../a b"), (12, "…"), (3, "é" * 99))
    ]
    assert [p.name for p in places] == ["01-a-b", "12", "03-" + "é" * 50]
    assert {p.parent for p in places} == {tmp_path}


def test_what_cannot_be_saved_leaves_what_was_there(folders, tmp_path, monkeypatch):
    made = folders["seqlora", "language"]
    folder = shutil.copytree(made.folder, tmp_path / "adapters-x" / made.folder.name)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*arguments):
        raise DataError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(adapters, "write_bytes", full)
        with pytest.raises(DataError, match="no room"):
            kept.write(folder.parent, made.method, "seqlora", monkeypatch)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    kept.write(folder.parent, made.method, "seqlora", monkeypatch)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert not list(tmp_path.glob(".*"))


def test_a_state_comes_back_as_it_was(folders):
    made = folders["l2p", "vision"]
    flat, tensors = adapters._flat({"a": [1, None, (torch.ones(2), "b")], 3: {"c": 0.5, 4: True}})
    found = adapters._nested(json.loads(json.dumps(flat)), tensors)
    assert torch.equal(found["a"][2].pop(0), torch.ones(2))
    assert found == {"a": [1, None, ["b"]], 3: {"c": 0.5, 4: True}}
    state = adapters.read_state(made.folder)
    assert state.keys() == made.method.state_dict().keys()
    assert asdict(adapters.read(made.folder))["spec"]["method"]["name"] == "l2p"


def test_what_lacks_a_part_is_refused(copied):
    weights = copied / adapters.WEIGHTS
    whole = load_file(weights)
    name = next(iter(whole))
    save_file({n: t for n, t in whole.items() if n != name}, weights)
    with pytest.raises(DataError, match="cannot be read.*missing adapter keys"):
        adapters.add(copied, kept.stock("language"))
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read"):
        adapters.add(copied, kept.stock("language"))
    weights.unlink()
    with pytest.raises(DataError, match="lacks adapter_model.safetensors"):
        adapters.add(copied, kept.stock("language"))


def test_a_configuration_names_no_code_to_be_run(copied):
    """Of PEFT's many settings those are read that are written; others could import a module."""
    config = read_json(copied / adapters.CONFIG)
    hostile = {"megatron_config": {"a": 1}, "megatron_core": "os", "init_lora_weights": "pissa"}
    (copied / adapters.CONFIG).write_text(json.dumps(config | hostile))
    adapters.add(copied, kept.stock("language"))


@pytest.mark.parametrize("change", [{"tasks": "first"}, {"classes": None}, {"more": 1}])
def test_a_damaged_description_is_refused(copied, change):
    content = read_json(copied / adapters.RUN) | change
    (copied / adapters.RUN).write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"run\.json"):
        adapters.read(copied)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no kept adapter: name"):
        adapters.read(tmp_path)
