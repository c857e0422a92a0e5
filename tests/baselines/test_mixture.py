"""Branches side by side against PEFT's adapters and against merged weights."""

import copy

import pytest
import torch

import baselines
from baselines.common.lora import LoraSettings, add_lora
from baselines.common.mixture import MixedLinear, Mixture, add_branches
from tests import tiny

SETTINGS = LoraSettings(rank=3, alpha=5.0)
WEIGHTS = torch.tensor([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0], [0.9, 0.1, 0.0], [1.0, 0.0, 0.0]])


def mixed(settings=SETTINGS, network=None):
    """A tiny language model with branches of 3 tasks, all factors random."""
    network = network or tiny.network("language")
    mixture = add_branches(network, settings, 3)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    return network, mixture


def branched(network):
    return {n: m for n, m in network.named_modules() if isinstance(m, MixedLinear)}


def merged(network, weights):
    """The plain model whose projections have one row's mixture added to their weights."""
    plain = tiny.network("language")
    for name, module in branched(network).items():
        parts = [
            w * b.detach() @ a.detach()
            for w, a, b in zip(weights, module.lora_A, module.lora_B, strict=True)
        ]
        plain.get_submodule(name).weight.data += 5.0 / 3 * sum(parts)
    return plain


def prompts(n=4):
    return tiny.samples("language", 0).x[:n]


def _same(network, plain):
    """Equal logits, in double precision, which leaves no room for a processor's rounding."""
    both = (model.double()(prompts()) for model in (network, plain))
    torch.testing.assert_close(*both, atol=1e-12, rtol=0)


def test_without_branches_in_use_it_is_the_frozen_model():
    network, _ = mixed()
    _same(network, tiny.network("language"))


def test_new_branches_change_nothing_and_start_as_lora():
    network = tiny.network("language")
    mixture = add_branches(network, SETTINGS, 3)
    mixture.use(range(3), WEIGHTS)
    _same(network, tiny.network("language"))
    for module in branched(network).values():
        bound = module.base.in_features**-0.5
        for a in module.lora_A:
            assert 0.8 * bound < a.abs().max() <= bound


@pytest.mark.parametrize("targets", ["qv", "qkv", "k"])
def test_one_branch_is_the_adapter_of_peft(targets):
    settings = LoraSettings(rank=3, alpha=5.0, targets=targets, layers=1)
    network, mixture = mixed(settings)
    adapted = add_lora(tiny.network("language"), settings)
    assert len(branched(network)) == len(targets)
    for name, module in branched(network).items():
        layer = adapted.get_submodule(name)
        layer.lora_A["default"].weight.data.copy_(module.lora_A[1])
        layer.lora_B["default"].weight.data.copy_(module.lora_B[1])
    expected = adapted(prompts())
    mixture.use([1])
    torch.testing.assert_close(network(prompts()), expected)
    one_hot = torch.eye(3)[[1, 1, 1, 1]]
    mixture.use(range(3), one_hot)
    torch.testing.assert_close(network(prompts()), expected)


def test_each_row_has_its_own_mixture():
    network, mixture = mixed()
    mixture.use(range(3), WEIGHTS)
    together = network(prompts())
    for row, weights in enumerate(WEIGHTS):
        alone = merged(network, weights)(prompts()[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)


def test_a_mixture_holds_for_all_steps_of_a_generation():
    network, mixture = mixed()
    mixture.use(range(3), WEIGHTS)
    asked = prompts()[:, :, :-2]
    together = network.generate(asked, 6)
    answers = [merged(network, w).generate(x[None], 6) for w, x in zip(WEIGHTS, asked, strict=True)]
    for row, answer in zip(together.tolist(), answers, strict=True):
        assert row[: answer.shape[1]] == answer[0].tolist()
    mixture.off()
    assert not torch.equal(network.generate(asked, 6), together)


def test_gradients_reach_the_branches_in_use_with_their_weights():
    base, mixture = torch.nn.Linear(4, 6), Mixture()
    module = MixedLinear(base, 3, LoraSettings(rank=2, alpha=2.0), mixture)
    for part in (*module.lora_A, *module.lora_B):
        part.data.normal_()
    mixture.use([0, 2], torch.tensor([[0.25, 0.75]]))
    h = torch.randn(1, 5, 4)
    module(h).sum().backward()
    assert module.lora_A[1].grad is None and module.lora_B[1].grad is None
    for i, weight in ((0, 0.25), (2, 0.75)):
        expected = weight * torch.ones(6, 5) @ h[0] @ module.lora_A[i].T
        torch.testing.assert_close(module.lora_B[i].grad, expected)


def test_branches_stay_in_float32_beside_a_bfloat16_model():
    network, mixture = mixed()
    half, half_mixture = mixed(network=copy.deepcopy(tiny.network("language")).to(torch.bfloat16))
    for module, other in zip(branched(half).values(), branched(network).values(), strict=True):
        for name in ("lora_A", "lora_B"):
            for own, theirs in zip(getattr(module, name), getattr(other, name), strict=True):
                assert own.dtype == torch.float32
                assert torch.equal(own, theirs)
    for each in (mixture, half_mixture):
        each.use(range(3), WEIGHTS)
    logits = half(prompts())
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), network(prompts()), atol=0.05, rtol=0.05)
    logits.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in half.parameters() if p.requires_grad)
    assert half.generate(prompts()[:, :, :-2], 2).shape == (4, 2)


def test_dropout_is_on_the_branches_only():
    network, mixture = mixed(LoraSettings(rank=3, alpha=5.0, dropout=0.5))
    network.train()
    plain = network(prompts())
    assert torch.equal(network(prompts()), plain)
    mixture.use([0])
    assert not torch.equal(network(prompts()), network(prompts()))


@pytest.mark.parametrize("name", ["dualprompt", "hidelora", "sapt"])
def test_checkpointing_in_parts_leaves_what_is_learnt(name, monkeypatch):
    """Not with Adam, which makes steps of what is zero but for rounding."""
    monkeypatch.setattr(
        "baselines.common.base.Method.optimizer",
        lambda self, parameters: torch.optim.SGD(parameters, lr=self.setting.learning_rate),
    )
    config = {"contrast": 0.0} if name == "hidelora" else {}  # a part's samples among themselves

    def trained(checkpointing=False, **shared):
        options = {"batch_size": 6, "learning_rate": 0.05} | shared
        network = tiny.network("language")
        if checkpointing:
            network.save_memory()
        cls = baselines.load(name, "language")
        settings = cls.Config(**cls.small, **config)
        method = cls(network, settings, tiny.setting("language", **options))
        for task in tiny.tasks("language", 2):
            tiny.learn(method, task)
        return {n: p.detach() for n, p in method.model.named_parameters() if p.requires_grad}

    before = trained()
    start = dict(tiny.method(name, "language").model.named_parameters())
    assert any(not torch.allclose(value, start[n], atol=1e-3) for n, value in before.items())
    for n, value in trained(checkpointing=True, micro_batch_size=4).items():
        torch.testing.assert_close(value, before[n], atol=2e-5, rtol=1e-3, msg=n)


@pytest.mark.parametrize("name", ["dualprompt", "fix", "hidelora", "sapt"])
def test_a_bfloat16_model_can_be_learnt_with(name):
    cls = baselines.load(name, "language")
    network = tiny.network("language").to(torch.bfloat16)
    settings = cls.Config(**cls.small)
    method = cls(network, settings, tiny.setting("language", precision="bfloat16"))
    for task in tiny.tasks("language", 2):
        tiny.learn(method, task)
    answers = method.model.eval().generate(prompts()[:, :, :-2], 3)
    assert answers.shape[0] == len(method.model.inferred) == 4
    trained = [p for p in method.model.parameters() if p.requires_grad]
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in trained)
