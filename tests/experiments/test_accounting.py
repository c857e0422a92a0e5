"""Operations and parameters counted without weights: known totals, closed forms, real methods."""

import dataclasses
import functools
import json
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from analysis.records import accounting as analysed
from analysis.records.reading import PUBLISHED
from baselines.common.lora import LoraSettings, add_lora
from baselines.l2p import L2P
from benchmarks import backbones
from benchmarks.costs.operations import Passes, network, passes, run
from benchmarks.experiments import accounting
from benchmarks.experiments.accounting import Step, added, row
from tests import tiny as small
from treelora import TreeRegulariser

pytestmark = pytest.mark.slow

TOTALS = {  # parameters as the models' owners publish them; of the ViT without its classifier
    "gemma-2b": 2_506_172_416,
    "llama-2-13b": 13_015_864_320,
    "llama-2-7b": 6_738_415_616,
    "llama-3.2-1b": 1_235_814_400,
    "mistral-7b-v0.3": 7_248_023_552,
    "vit-b16": 85_798_656,
}
LENGTH, BATCH, RANK = 16, 4, 8
# Two layers, four query heads and two of key and value: v maps 32 to 16.
ENTRIES_A, ENTRIES_B = 2 * RANK * (32 + 32), 2 * RANK * (32 + 16)
ENTRIES = ENTRIES_A + ENTRIES_B


@pytest.fixture
def tiny(monkeypatch):
    """The tests' language backbone, under the name of the model in Table 8."""
    pool = dataclasses.replace(accounting.POOL, **L2P.small)
    monkeypatch.setitem(backbones.BACKBONES, accounting.MODELS["llama-2-7b"], small.LANGUAGE)
    monkeypatch.setattr(accounting, "POOL", pool)
    monkeypatch.setattr(accounting, "STEPS", {"language": Step(LENGTH, BATCH, RANK, memory=5)})
    return "llama-2-7b"


@functools.cache
def tiny_counts():
    return accounting.count(small.LANGUAGE)


@pytest.fixture
def counts(tiny):
    return tiny_counts()


@pytest.mark.parametrize("name", TOTALS)
def test_every_architecture_has_its_known_number_of_parameters(name):
    backbone = backbones.find(accounting.MODELS[name])
    model = network(backbone)
    assert sum(p.numel() for p in model.parameters()) == TOTALS[name]
    if backbone.modality == "vision":
        assert run(model, "vision", 0).shape[1] == accounting.STEPS["vision"].tokens


@pytest.mark.parametrize("wrong", [("--tasks", "0"), ("--models", "gpt")])
def test_wrong_options_are_refused(wrong, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["accounting", "--out", "x.json", *wrong])
    with pytest.raises(SystemExit):
        accounting.main()
    assert wrong[0] in capsys.readouterr().err


def test_the_published_file_is_what_is_counted_today():
    published = json.loads((PUBLISHED / "accounting.json").read_text())
    counted = accounting.count(backbones.find("llama-3.2-1b-instruct"))
    for method in accounting.METHODS:
        assert row("llama-3.2-1b", counted, method, 10) in published["rows"]


def test_passes_are_the_closed_form_and_the_same_with_weights(counts):
    layers, width, vocabulary, kv, mlp = 2, 32, 40, 16, 48
    qo, k, v, rest = width * width, width * kv, width * kv, 3 * width * mlp
    attention = 2 * LENGTH * width  # scores and values, per token and layer
    forward = layers * (2 * qo + k + v + rest + attention) + width * vocabulary
    assert counts.frozen.forward == 2 * LENGTH * forward
    # Gradients of all activations but those before the first layer's q, k and v, and of no weight;
    # each product of attention has two, and that of the first layer's keys is not asked for.
    below_first = qo + k + v + LENGTH * width
    assert counts.frozen.backward == 2 * LENGTH * (forward + layers * attention - below_first)
    # Gradients of A and B and of B's input; of A's input in the second layer only.
    assert counts.lora == Passes(
        2 * LENGTH * ENTRIES, 2 * LENGTH * (ENTRIES + ENTRIES_B + ENTRIES_A // 2)
    )
    assert counts.adapter == ENTRIES
    # A frozen branch has no gradients but its inputs', in the second layer only.
    assert counts.past == Passes(2 * LENGTH * ENTRIES, LENGTH * ENTRIES)
    assert counts.orthogonality == 2 * 2 * 4 * RANK * RANK * width
    weights = network(small.LANGUAGE, device="cpu")
    assert passes(weights, "language", LENGTH) == counts.whole
    weights = add_lora(weights, LoraSettings(rank=RANK))
    lora = [sum(pair) for pair in zip(counts.frozen, counts.lora, strict=True)]
    assert passes(weights, "language", LENGTH) == tuple(lora)


def test_olora_grows_with_the_tasks_and_treelora_does_not(tiny, counts):
    cost = {
        method: [row(tiny, counts, method, task)["step_flops_per_token"] for task in (2, 10, 18)]
        for method in accounting.METHODS
    }
    assert cost["olora"][2] - cost["olora"][1] == pytest.approx(cost["olora"][1] - cost["olora"][0])
    assert cost["olora"][1] > 1.05 * cost["olora"][0]
    assert cost["treelora"][2] < 1.05 * cost["treelora"][0]  # the bounds of more nodes
    assert cost["seqlora"][0] == cost["seqlora"][2] < cost["treelora"][0]


@pytest.mark.parametrize("name", [m for m in accounting.METHODS if m != "ogd"])
def test_what_is_stored_is_what_the_methods_store(name, tiny, counts):
    method = small.method(name, "language")
    for task in small.tasks("language", epochs=1):
        small.learn(method, task)
    kept = method.footprint()
    facts = row(tiny, counts, name, small.N_TASKS)
    samples = values = 0
    if name == "gem":
        kinds = ("memory_x", "memory_y", "memory_tid")
        memory = [x for kind in kinds for x in getattr(method._gem, kind).values()]
        samples = sum(map(len, method._gem.memory_x.values()))
        values = sum(x.numel() for x in memory)
    assert kept["trainable_parameters"] == facts["trainable_parameters"]
    assert kept["stored_values"] - values == facts["stored_parameters"]
    assert samples == facts["stored_samples"]


class Arithmetic(TorchDispatchMode):
    """Counts elementwise operations, one for each entry of the largest tensor in sight."""

    NAMES = "sub abs sum sgn mul add div min max maximum rsqrt".split()
    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__.rstrip("_") in self.NAMES:
            tensors = [t for t in (*args, out) if isinstance(t, torch.Tensor)]
            self.total += max(t.numel() for t in tensors)
        return out


@pytest.mark.parametrize("task", [2, 10])
def test_treeloras_own_operations_are_those_of_its_code(task, counts):
    method = small.method("treelora", "language")
    regulariser = TreeRegulariser(method.model)
    for _ in range(task - 1):
        regulariser.start_task()
        for p in regulariser.layout.parameters:
            p.data.normal_()
        regulariser.end_task()
    regulariser.start_task()
    parameters = regulariser.layout.parameters
    for p in parameters:
        p.grad = torch.zeros_like(p)
    with Arithmetic() as spent:
        regulariser.penalty(torch.ones(())).backward()
    n_levels, width = regulariser.layout.shape
    entries = 5 * n_levels * width + sum(p.numel() for p in parameters)
    search = 10 * n_levels * (2 * (task - 1) - 1)
    assert added(counts, "treelora", task).operations == entries + search
    assert entries < spent.total < entries + search + 40 * n_levels


def test_the_file_is_read_by_the_analysis(tiny, tmp_path, monkeypatch):
    command = ["accounting", "--out", str(tmp_path / "out"), "--models", tiny, "--tasks", "1", "10"]
    monkeypatch.setattr(sys, "argv", command)
    accounting.main()
    data = analysed.load(tmp_path / "out")
    assert data.provenance["commit"] and data.settings["steps"]["language"]["tokens"] == LENGTH
    assert {"model", "method", "task", "step_flops_per_token"} <= set(data.rows)
    found = analysed.findings(data)
    assert ENTRIES == 1792 and found["disk"] == {"llm-7b": 2 * 11 * ENTRIES}  # kept ten times
    assert found["flops"]["llama-2-7b"].keys() == set(accounting.METHODS)
