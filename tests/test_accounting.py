"""Operations and parameters counted without weights: against known totals and closed forms."""

import json
import sys

import pytest

from analysis import accounting as analysed
from benchmarks import accounting
from benchmarks.accounting import Model, adapted, build, extras, flops, row

TOTALS = {  # parameters as the models' owners publish them; of the ViT without its classifier
    "gemma-2b": 2_506_172_416,
    "llama-2-13b": 13_015_864_320,
    "llama-2-7b": 6_738_415_616,
    "llama-3.2-1b": 1_235_814_400,
    "mistral-7b-v0.3": 7_248_023_552,
    "vit-b16": 85_798_656,
}
TINY = {
    **{"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 64},
    "tie_word_embeddings": False,
}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    monkeypatch.setattr(accounting, "ARCHITECTURES", tmp_path)
    monkeypatch.setitem(accounting.SHAPES, "language", (16, 4))
    return "tiny"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TOTALS)
def test_every_architecture_has_its_known_number_of_parameters(name):
    model, _ = build(name)
    assert sum(p.numel() for p in model.parameters()) == TOTALS[name]


def test_adapters_have_the_closed_forms_size():
    model = adapted(build("llama-2-7b")[0], rank=8)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == 64 * 8 * (4096 + 4096)


def test_the_count_is_the_closed_form_and_needs_no_weights(tiny):
    model, modality = build(tiny)
    length, layers = 16, 2
    weights = sum(p.numel() for n, p in model.named_parameters() if "proj" in n or "lm_head" in n)
    attention = layers * 2 * length * 32  # scores and values, of all heads, per token
    assert flops(model, modality, False) == 2 * length * (weights + attention)
    real = type(model)(model.config)
    assert flops(real, modality, True) == flops(model, modality, True)


def test_a_frozen_network_saves_the_gradients_of_its_weights(tiny):
    whole = flops(build(tiny)[0], "language", True)
    lora = flops(adapted(build(tiny)[0], 1), "language", True)
    forward = flops(build(tiny)[0], "language", False)
    assert 2 * forward < lora < whole


@pytest.mark.filterwarnings("ignore")
def test_olora_grows_with_the_tasks_and_treelora_does_not(tiny):
    model = accounting.count(tiny, 4)
    cost = {
        method: [row(tiny, model, method, task, 4)["step_flops_per_token"] for task in (2, 10, 18)]
        for method in accounting.METHODS
    }
    assert cost["olora"][2] - cost["olora"][1] == pytest.approx(cost["olora"][1] - cost["olora"][0])
    assert cost["olora"][1] > 1.05 * cost["olora"][0]
    assert cost["treelora"][2] < 1.01 * cost["treelora"][0]
    assert cost["seqlora"][0] == cost["seqlora"][2]
    # the branch of a past adapter: forward and the gradient of its input, in A and in B
    entries = model.adapter // 4
    assert model.branch == pytest.approx(2 * 2 * entries * 16, rel=0.3)


MODEL = Model("language", 1000, 80, 40, 4, 100, 300, 200, 10)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("seqlora", 0),
        ("ewc", 7 * 80 * 2),
        ("gem", 2 * (200 * 4 + 160)),
        ("olora", 6 * 40 * 8 * 2),
        ("treelora", 5 * 80 + 10 * 4 * 3),
        ("ogd", 4 * 1000 * 2),
    ],
)
def test_extras_at_the_third_task(method, expected):
    assert extras(MODEL, method, 3, 8) == expected


@pytest.mark.filterwarnings("ignore")
def test_the_file_leads_to_the_papers_tables(tiny, tmp_path, monkeypatch):
    out = tmp_path / "accounting.json"
    command = ["accounting", "--out", str(out), "--models", tiny, "--tasks", "1", "10"]
    monkeypatch.setattr(sys, "argv", command)
    accounting.main()
    data = analysed.load(out)
    made = analysed.tables(data)
    assert {"operations", "disk"} == set(made)
    table = made["operations"].markdown()
    assert all(f"| tiny | {method} |" in table for method in accounting.METHODS)
    assert analysed.findings(data) == {"flops": {}, "disk": {}}
    out.write_text(json.dumps({"kind": "other"}))
    with pytest.raises(ValueError, match="no accounting file"):
        analysed.load(out)
