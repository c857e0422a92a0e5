"""Methods and models against independent references: autograd by hand, brute force, other code."""

import pytest
import torch
import torch.nn.functional as F

import baselines
from tests import tiny

# EWC


def _loss(method, modality, x, y):
    logits = method.model(x)
    if modality == "language":
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y[:, -2:].reshape(-1))
    allowed = torch.full_like(logits, -torch.inf)
    task = int(y[0]) // tiny.PER_TASK
    allowed[:, task * tiny.PER_TASK : (task + 1) * tiny.PER_TASK] = 0
    return F.cross_entropy(logits + allowed, y)


@pytest.mark.parametrize("modality", tiny.MODALITIES)
@pytest.mark.parametrize("size", [1, 4])
def test_ewc_fisher_and_penalty_equal_autograd_by_hand(modality, size):
    method = tiny.method("ewc", modality, strength=3.0, fisher_batch_size=size)
    first, second, _ = tiny.tasks(modality)
    order = []
    permute = torch.randperm

    def spy(n, **options):
        order.append(permute(n, **options))
        return order[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randperm", spy)
        tiny.learn(method, first)
    method.model.eval()
    trained = {n: p for n, p in method.model.named_parameters() if p.requires_grad}
    fisher = {n: torch.zeros_like(p) for n, p in trained.items()}
    batches = order[-1].split(size)  # the last order drawn is the Fisher's
    for chosen in batches:
        loss = _loss(method, modality, *first.train.batch(chosen))
        grads = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        for name, grad in zip(trained, grads, strict=True):
            if grad is not None:
                fisher[name] += grad**2 / len(batches)
    state = method.state_dict()
    stored = {n.removeprefix("model."): v for n, v in state["importances"][0].items()}
    assert stored.keys() == fisher.keys()
    for name in fisher:
        torch.testing.assert_close(stored[name], fisher[name], atol=1e-8, rtol=1e-4)

    with torch.no_grad():
        drift = {n: 0.1 * torch.randn_like(p) for n, p in trained.items()}
        for name, parameter in trained.items():
            parameter += drift[name]
    loop = method.loop
    loop.loss = torch.zeros(())
    method._ewc.before_backward(loop)
    expected = 3.0 * sum((fisher[n] * drift[n] ** 2).sum() for n in trained)
    torch.testing.assert_close(loop.loss, expected, atol=0, rtol=1e-4)


@pytest.mark.parametrize("modality", tiny.MODALITIES)
def test_ewcs_one_term_is_the_sum_of_avalanches(modality):
    """Penalty and its gradient after three tasks, against one term of each, in double precision."""
    method = tiny.method("ewc", modality, strength=3.0)
    plugin, terms = method._ewc, []
    join = plugin.join

    def spy(task):
        kept = (plugin.importances[task], plugin.saved_params[task])
        terms.append([{n: p.data.double() for n, p in part.items()} for part in kept])
        join(task)

    plugin.join = spy
    for task in tiny.tasks(modality):
        tiny.learn(method, task)
    assert len(terms) == 3 and any((f > 0).any() for f in terms[2][0].values())
    named = list(method.loop.model.named_parameters())
    with torch.no_grad():
        for _, parameter in named:
            parameter += 0.1 * torch.randn_like(parameter)
    method.loop.loss = torch.zeros(())
    plugin.before_backward(method.loop)
    values = [parameter for _, parameter in named]
    found = torch.autograd.grad(method.loop.loss, values)
    own = {n: parameter.detach().double().requires_grad_() for n, parameter in named}
    expected = 3.0 * sum((f[n] * (own[n] - a[n]) ** 2).sum() for f, a in terms for n in own)
    torch.testing.assert_close(method.loop.loss.double(), expected, atol=0, rtol=1e-5)
    by_hand = torch.autograd.grad(expected, list(own.values()))
    for one, other in zip(found, by_hand, strict=True):
        torch.testing.assert_close(
            one.double(), other, atol=1e-5 * other.abs().max().item(), rtol=0
        )
    kept = [len(part) for part in (plugin.importances, plugin.saved_params)]
    assert kept[0] == 1 and sum(map(bool, plugin.saved_params.values())) == 1


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


def test_gem_worked_examples():
    plugin = tiny.method("gem", "vision", memory_strength=0.5)._gem
    plugin.G = torch.tensor([[-0.2, 1.0], [0.0, 1.0]])
    torch.testing.assert_close(
        plugin.solve_quadprog(torch.tensor([1.0, 0.0])),
        torch.tensor([0.9, 1.0]),
        atol=1e-3,
        rtol=0,
    )


# LoRA


def test_split_projections_compute_what_the_fused_one_did():
    torch.manual_seed(0)
    model = tiny.VISION.build(5)
    x = torch.rand(2, 3, 16, 16)
    fused = model(x)
    torch.testing.assert_close(model.split_qkv()(x), fused, atol=1e-6, rtol=1e-5)


# O-LoRA


def test_olora_makes_the_new_adapter_more_orthogonal():
    overlap = []
    for strength in (0.0, 5.0):
        method = tiny.method("olora", "vision", orthogonality=strength)
        for task in tiny.tasks("vision", 2, epochs=10):
            tiny.learn(method, task)
        pairs = zip(method._old, method._new, strict=True)
        overlap.append(sum((o @ a.T).abs().sum().item() for o, (a, _) in pairs))
    assert overlap[1] < 0.5 * overlap[0]


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


def test_l2p_with_pull_zero_never_moves_a_key():
    method = tiny.method("l2p", "vision", pull=0.0)
    before = method.model.pool.keys.detach().clone()
    tiny.learn(method, tiny.tasks("vision")[0])
    assert torch.equal(before, method.model.pool.keys)


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
    from baselines.common.base import ClassificationLoss

    loss = ClassificationLoss(mask, torch.arange(3).repeat_interleave(2))
    loss.task = 1
    logits = torch.randn(4, 6)
    y = torch.tensor([2, 3, 3, 2])
    kept = slice(0, 4) if mask == "seen" else slice(2, 4)
    shifted = y - (0 if mask == "seen" else 2)
    torch.testing.assert_close(loss(logits, y), F.cross_entropy(logits[:, kept], shifted))
