"""Adapters where a user wants them: the MLP, and projections in one matrix."""

import pytest
import torch

from baselines.common.lora import LoraSettings, add_lora
from baselines.common.mixture import MixedLinear, add_branches
from benchmarks.backbones.language import LanguageModel
from tests import tiny
from tests.outside import network

MLP = {"vision": ["fc1", "mlp.fc2"], "language": ["down_proj", "mlp.gate_proj"]}


def phi3(seed=0):
    """A network whose attention has one matrix for query, key and value."""
    torch.manual_seed(seed)
    return LanguageModel(network("phi3", vocab_size=40))


def adapted(model):
    """Names of the matrices with an adapter, in the order of the network."""
    names = [n for n, p in model.named_parameters() if ".lora_A." in n and p.requires_grad]
    return [name.partition(".lora_A.")[0] for name in names]


@pytest.mark.parametrize("modality", tiny.MODALITIES)
def test_an_adapter_on_the_mlp_learns_and_the_rest_stays(modality):
    method = tiny.method("treelora", modality, target_modules=MLP[modality], depth=3)
    names = adapted(method.model)
    assert len(names) == 4 and all(".mlp." in name for name in names)
    before = {n: p.clone() for n, p in method.model.named_parameters()}
    for task in tiny.tasks(modality)[:2]:
        tiny.learn(method, task)
    changed = [n for n, p in method.model.named_parameters() if not torch.equal(p, before[n])]
    assert changed and all(".lora_" in name or name.startswith("head.") for name in changed)


def test_fused_projections_are_adapted_by_peft_and_by_branches():
    settings = LoraSettings(rank=3, target_modules=["qkv_proj", "down_proj"], layers=1)
    names = adapted(add_lora(phi3(), settings))
    assert [name.rpartition(".")[2] for name in names] == ["qkv_proj", "down_proj"]
    assert settings.adapted_matrices(4) == 2
    model = phi3()
    add_branches(model, settings, 2)
    branched = [n for n, m in model.named_modules() if isinstance(m, MixedLinear)]
    assert branched == names
    everywhere = LoraSettings(target_modules=["qkv_proj"])
    assert len(adapted(add_lora(phi3(), everywhere))) == 2 == everywhere.adapted_matrices(4)


def test_the_same_matrices_by_either_setting_are_the_same_adapter():
    made = [
        tiny.method("seqlora", "language", **settings)
        for settings in ({}, {"target_modules": ["q_proj", "self_attn.v_proj"]})
    ]
    for method in made:
        tiny.learn(method, tiny.tasks("language")[0])
    torch.testing.assert_close(*(tiny.outputs(m, "language") for m in made), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"target_modules": ["qkv_proj"], "targets": "q"}, "leave one out"),
        ({"target_modules": []}, "names of matrices"),
        ({"target_modules": ["a", "a"]}, "each once"),
    ],
)
def test_settings_that_contradict_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        LoraSettings(**settings)


def test_depth_counts_the_named_matrices():
    from baselines.treelora import TreeLoRA

    config = TreeLoRA.Config(target_modules=["a", "b", "c"], depth=6)
    config.check(4)
    with pytest.raises(ValueError, match="depth .* 3, but is 6"):
        config.check(2)
