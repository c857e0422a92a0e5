"""Methods and models against independent references: autograd by hand, brute force, other code."""

import pytest
import torch
import torch.nn.functional as F

import baselines
from tests import tiny

# EWC


def test_ewcs_one_term_stays_exact_where_anchors_are_large_and_close():
    """Differences of sums such as S theta^2 would lose all their digits here."""
    from avalanche.training.utils import ParamData

    plugin = tiny.method("ewc", "vision")._ewc
    generator = torch.Generator().manual_seed(0)
    anchors = 100 + 0.01 * torch.rand(5, 50, generator=generator)
    fishers = torch.rand(5, 50, generator=generator) ** 8
    fishers[:, :5] = 0
    for t, (fisher, anchor) in enumerate(zip(fishers, anchors, strict=True)):
        plugin.importances[t] = {"p": ParamData("p", init_tensor=fisher.clone())}
        plugin.saved_params[t] = {"p": ParamData("p", init_tensor=anchor.clone())}
        plugin.join(t)
    theta = 100 + 0.01 * torch.rand(50, generator=generator)
    total, mean = (part[4]["p"].data for part in (plugin.importances, plugin.saved_params))
    distance = (theta - anchors).double()
    expected = (fishers.double() * distance**2).sum()
    found = (total * (theta - mean) ** 2).double().sum() + plugin.constant
    assert found.item() == pytest.approx(expected.item(), rel=0.01)  # anchors are rounded to 8e-6
    assert plugin.constant > 0.1 * expected.item()


def test_ewc_looks_at_no_more_samples_than_asked(monkeypatch):
    from avalanche.training.plugins import EWCPlugin

    seen = []
    original = EWCPlugin.compute_importances

    def spy(self, model, criterion, optimizer, dataset, *rest):
        seen.append([dataset[i] for i in range(len(dataset))])
        return original(self, model, criterion, optimizer, dataset, *rest)

    monkeypatch.setattr(EWCPlugin, "compute_importances", spy)
    tiny.learn(tiny.method("ewc", "vision", fisher_samples=5), tiny.tasks("vision")[0])
    assert [len(samples) for samples in seen] == [5]


# GEM


# LoRA


def test_split_projections_compute_what_the_fused_one_did():
    torch.manual_seed(0)
    model = tiny.VISION.build(5)
    x = torch.rand(2, 3, 16, 16)
    fused = model(x)
    torch.testing.assert_close(model.split_qkv()(x), fused, atol=1e-6, rtol=1e-5)


# O-LoRA


# L2P


def test_l2p_worked_example_and_gradients():
    from baselines.common.prompts import PromptPool

    pool = PromptPool(torch.randn(3, 1, 2), top_k=1)
    pool.keys.data = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
    prompts, mismatch = pool(torch.tensor([[0.6, 0.8]]))
    assert torch.equal(prompts[0], pool.prompts[1])
    assert mismatch.item() == pytest.approx(0.2)
    (prompts.sum() + mismatch.sum()).backward()
    assert pool.prompts.grad[[0, 2]].abs().max() == 0 and pool.keys.grad[[0, 2]].abs().max() == 0
    assert pool.prompts.grad[1].abs().min() > 0 and pool.keys.grad[1].abs().max() > 0


@pytest.mark.parametrize("positions", ["cls", "none"])
@pytest.mark.parametrize("head_input", ["prompts", "cls"])
@torch.no_grad()
def test_l2p_prompts_stand_where_the_class_token_stands(positions, head_input):
    """The port's order [class, prompts, patches], each with its row of the position embedding."""
    method = tiny.method("l2p", "vision", positions=positions, head_input=head_input)
    model, network = method.model.eval(), method.model.backbone.network
    x = tiny.samples("vision", 0).batch(torch.arange(5))[0]
    query = model.backbone.encode(model.backbone.embed(x))[:, 0]
    prompts, _ = model.pool(query)
    n = prompts.shape[1]
    patches = network.patch_embed((x - 0.5) / 0.5)
    tokens = torch.cat([network.cls_token.expand(5, -1, -1), prompts, patches], dim=1)
    of_class, of_patches = network.pos_embed.split([1, patches.shape[1]], dim=1)
    of_prompts = of_class.expand(-1, n, -1) * (positions == "cls")
    encoded = tokens + torch.cat([of_class, of_prompts, of_patches], dim=1)
    for block in network.blocks:
        encoded = block(encoded)
    encoded = network.norm(encoded)
    used = encoded[:, 1 : 1 + n].mean(dim=1) if head_input == "prompts" else encoded[:, 0]
    torch.testing.assert_close(model(x), model.backbone.head(used), atol=1e-5, rtol=1e-4)


def test_l2p_starts_where_the_chosen_code_does():
    for preset, (low, high) in {"jax": (0, 0.01), "hide": (-1, 1)}.items():
        pool = tiny.method("l2p", "vision", **baselines.load("l2p").presets[preset]).model.pool
        for values in (pool.prompts, pool.keys):
            assert low <= values.min() < low + 0.1 * (high - low)
            assert high >= values.max() > high - 0.1 * (high - low)


# The language model and its loss


def test_the_language_loss_equals_transformers_own():
    method = tiny.method("seqlora", "language")
    x, y = tiny.samples("language", 0).batch(torch.arange(12))
    own = method.loop._criterion(method.model(x), y)
    theirs = method.model.network(
        input_ids=x[:, 0],
        attention_mask=(x[:, 1] > 0).long(),
        position_ids=((x[:, 1] > 0).long().cumsum(1) - 1).clamp_min(0),
        labels=y,
    ).loss
    torch.testing.assert_close(own, theirs)


def test_left_padding_does_not_change_logits():
    model = tiny.network("language").eval()
    x = tiny.samples("language", 0).x[:1]
    padded = F.pad(x, (3, 0))
    torch.testing.assert_close(model(padded), model(x), atol=1e-5, rtol=1e-4)


def test_only_the_logits_that_predict_an_answer_are_computed():
    model = tiny.network("language").eval()
    x = tiny.samples("language", 0).x[:3]
    every = model.network.lm_head(model.hidden(model.embed(x[:, 0]), x[:, 1]))
    torch.testing.assert_close(model(x), every[:, -3:-1])  # answers are two tokens long
    x[1:, 1, -2] = 1  # a shorter answer beside a longer one
    torch.testing.assert_close(model(x), every[:, -3:-1])
    torch.testing.assert_close(model(x[1:]), every[1:, -2:-1])


@pytest.mark.parametrize("mask", ["seen", "current"])
def test_masked_loss_is_cross_entropy_over_the_classes_left(mask):
    from baselines.common.task import ClassificationLoss

    loss = ClassificationLoss(mask, torch.arange(3).repeat_interleave(2))
    loss.task = 1
    logits = torch.randn(4, 6)
    y = torch.tensor([2, 3, 3, 2])
    kept = slice(0, 4) if mask == "seen" else slice(2, 4)
    shifted = y - (0 if mask == "seen" else 2)
    torch.testing.assert_close(loss(logits, y), F.cross_entropy(logits[:, kept], shifted))
