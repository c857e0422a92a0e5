"""Weights in 4 bits: what cannot be is said; methods learn on them where bitsandbytes is."""

import pytest
import torch

import baselines
from benchmarks import backbones
from benchmarks.backbones import causal, language
from benchmarks.common.errors import DataError
from benchmarks.runs import learning
from benchmarks.runs.plan import load_plan, require_packages
from benchmarks.runs.suite import load_suite
from tests import tiny
from tests.outside import made, save, suite

NF4 = {"weights": "nf4"}
WIDE = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 128}


@pytest.mark.parametrize(
    ("backbone", "methods", "said"),
    [
        ({}, {"ewc": {"trained": "all"}}, "method ewc: trained: all .* weights: nf4 are frozen"),
        ({"name": "micro-llama"}, {"seqlora": {}}, "nf4 is for .* from outside, but micro-llama"),
        ({"weights": "int4"}, {"seqlora": {}}, "weights must .*'bfloat16' or 'nf4'"),
    ],
)
def test_what_cannot_be_quantised_is_said_in_the_plan(backbone, methods, said, data, tmp_path):
    save(data)
    file = suite("llama", tmp_path, backbone=NF4 | backbone, methods=methods)
    with pytest.raises(DataError, match=said):
        load_suite(str(file), data)


def test_a_missing_package_and_a_missing_gpu_are_said_before_any_work(data, tmp_path, monkeypatch):
    save(data)
    file = suite("llama", tmp_path, backbone=NF4)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="package bitsandbytes.* pip install .*bitsandbytes=="):
        require_packages(load_plan(str(file)).runs)
    monkeypatch.setattr(learning, "require_bitsandbytes", lambda: None)
    monkeypatch.setattr(causal.CausalModel, "load", lambda *arguments: pytest.fail("loaded"))
    [record] = made(file, data)
    assert record["status"] == "failed" and "nf4 needs a GPU" in record["error"]
    assert record["tasks"] == []


def test_the_key_tells_the_weights_apart(data, tmp_path):
    save(data)
    options = ({}, {"weights": "bfloat16"}, NF4)
    keys = {
        load_suite(str(suite("llama", tmp_path, backbone=own)), data).runs[0].key for own in options
    }
    assert len(keys) == 3


def test_bytes_are_those_of_the_precision():
    network = tiny.network("language").network
    every = sum(p.numel() for p in network.parameters())
    inside = sum(p.numel() for n, p in network.named_parameters() if n.endswith("_proj.weight"))
    assert language.weight_bytes(network, None) == 4 * every
    assert language.weight_bytes(network, "bfloat16") == 2 * every
    assert language.weight_bytes(network, "nf4") == round(inside * 0.515869140625) + 2 * (
        every - inside
    )


@pytest.mark.parametrize("name", ["treelora", "magmax", "sapt", "l2p"])
def test_methods_learn_on_quantised_weights_and_leave_them(name, data):
    pytest.importorskip("bitsandbytes")
    folder = save(data, **WIDE)
    backbone, manifest = backbones.find("hf-tiny-llama"), {"weights": str(folder)}
    plain, network = (backbone.load(manifest, weights=weights) for weights in (None, "nf4"))
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        far = (plain.network(ids).logits - network.network(ids).logits).abs().max()
    assert 0 < far < 0.2 * plain.network(ids).logits.abs().max()
    stored = sum(p.numel() * p.element_size() for p in network.parameters())
    assert 0.95 * stored < language.weight_bytes(plain.network, "nf4") < 1.05 * stored
    before = [p.clone() for p in network.parameters() if p.dtype == torch.uint8]
    cls = baselines.load(name, "language")
    method = cls(network, cls.Config(**cls.small), tiny.setting("language"))
    for task in tiny.tasks("language")[:2]:
        tiny.learn(method, task)
    parameters = list(method.model.parameters())
    assert all(p.dtype == torch.float32 for p in parameters if p.requires_grad)
    after = [p for p in parameters if p.dtype == torch.uint8]
    assert len(before) == 14 and all(map(torch.equal, before, after))


@pytest.mark.gpu
def test_a_run_learns_on_quantised_weights(gpu, data, tmp_path, monkeypatch):
    if gpu is not None:
        pytest.skip("a pretended GPU runs no kernels of bitsandbytes")
    pytest.importorskip("bitsandbytes")
    save(data, **WIDE)
    load, in_4_bits = causal.CausalModel.load, set()

    def watched(*arguments, **options):
        network = load(*arguments, **options)
        in_4_bits.add(sum(p.dtype == torch.uint8 for p in network.parameters()))
        return network

    monkeypatch.setattr(causal.CausalModel, "load", watched)
    methods = {"seqlora": {}, "treelora": {}, "ewc": {}}
    for record in made(suite("llama", tmp_path, backbone=NF4, methods=methods), data):
        assert record["status"] == "done", record["error"]
        assert record["provenance"]["device"] == torch.cuda.get_device_name()
    assert in_4_bits == {14}
