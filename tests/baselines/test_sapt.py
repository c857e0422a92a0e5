"""SAPT: worked examples of its attention and divergence, and what each task may change."""

import pytest
import torch

from baselines.sapt import divergence, pool
from tests import tiny


def learnt(n_tasks, shared=None, **config):
    method = tiny.method("sapt", "language", shared=shared, **config)
    for task in tiny.tasks("language", n_tasks):
        tiny.learn(method, task)
    return method


def test_attention_and_divergence_of_a_worked_example():
    scores = torch.tensor([[2.0, 0.0]])
    torch.testing.assert_close(
        scores.softmax(dim=1), torch.tensor([[0.8808, 0.1192]]), atol=1e-4, rtol=0
    )
    target = torch.tensor([[0.0, 1.0]])
    assert divergence(scores, target).item() == pytest.approx(2.1269, abs=1e-4)


def test_the_maximum_is_over_prompt_tokens_whatever_the_padding_and_the_answer():
    embedded = torch.tensor([[[9.0, 9], [1, -4], [-3, -2], [9, 9]]])
    mask = torch.tensor([[0, 1, 1, 2]])
    assert pool(embedded, mask).tolist() == [[1, -2]]
    more = torch.cat([torch.full((1, 3, 2), 50.0), embedded], dim=1)
    assert torch.equal(
        pool(more, torch.cat([torch.zeros(1, 3), mask], dim=1)), pool(embedded, mask)
    )


def test_on_the_first_task_it_is_lora():
    method = tiny.method("sapt", "language")
    plain = tiny.method("seqlora", "language")
    with torch.no_grad():
        for name, parameter in method.model.backbone.named_parameters():
            if name.endswith(".0") and ".lora_" in name:
                other = name.removesuffix(".0") + ".default.weight"
                plain.model.get_parameter(other).copy_(parameter)
    before = [p.detach().clone() for p in (*method.model.query.parameters(), method.model.keys[0])]
    for each in (method, plain):
        tiny.learn(each, tiny.tasks("language")[0])
    torch.testing.assert_close(tiny.outputs(method, "language"), tiny.outputs(plain, "language"))
    after = (*method.model.query.parameters(), method.model.keys[0])
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_kept_features_are_a_share_of_the_prompts_and_mean_attention_sums_to_one():
    method = learnt(2, replay_share=0.25)
    assert [len(kept) for kept in method._kept] == [3, 3]
    assert [len(target) for target in method._targets] == [1, 2]
    for target in method._targets:
        assert target.sum().item() == pytest.approx(1, abs=1e-6)
    data = tiny.samples("language", 1)
    pooled = pool(method.model.backbone.embed(data.x[:, 0]), data.x[:, 1])
    assert all((pooled == kept).all(dim=1).any() for kept in method._kept[1])
    mean = method.model.scores(pooled).softmax(dim=1).mean(dim=0)
    torch.testing.assert_close(method._targets[1], mean.detach())


def test_replay_keeps_the_attention_of_earlier_tasks():
    def drift(**config):
        method = learnt(3, {"learning_rate": 0.05}, **config)
        data = tiny.samples("language", 1)
        pooled = pool(method.model.backbone.embed(data.x[:, 0]), data.x[:, 1])
        attention = method.model.scores(pooled).softmax(dim=1).mean(dim=0)
        return (attention[:2] - method._targets[1]).abs().sum().item() + attention[2].item()

    assert drift(kappa=100.0, replay_share=1.0) < 0.5 * drift(replay="none")


def test_without_replay_nothing_is_kept_of_the_prompts():
    method = learnt(2, replay="none")
    assert method._kept == [] and method.penalty(torch.zeros(())) == 0


def test_the_inferred_task_is_that_of_the_largest_weight():
    method = learnt(2)
    assert tiny.method("sapt", "language").model.inferred is None
    x = tiny.samples("language", 1).x
    method.model.eval().generate(x[:, :, :-2], 1)
    pooled = pool(method.model.backbone.embed(x[:, 0]), x[:, 1])
    assert torch.equal(method.model.inferred, method.model.scores(pooled).argmax(dim=1))


def test_queries_and_keys_have_a_rate_of_their_own():
    """Adam's first step is the rate wherever there is a gradient."""
    moved = []
    for rate in (None, 1e-4):
        method = tiny.method("sapt", "language", attention_rate=rate)
        first, second, _ = tiny.tasks("language")
        tiny.learn(method, first)
        before = {n: p.clone() for n, p in method.model.named_parameters()}
        tiny.learn(method, second)
        n_steps = 2 * 3  # of task 1: 2 epochs of 3 batches
        change = {n: (p - before[n]).abs().max() for n, p in method.model.named_parameters()}
        moved.append(change)
        if rate:
            for name in ("keys.1", "query.0.weight", "query.3.weight"):
                assert 0 < change[name] <= 1.01 * n_steps * rate
    assert moved[0]["query.0.weight"] > 10 * moved[1]["query.0.weight"]
    factor = next(n for n in moved[1] if ".lora_B.1" in n)
    assert moved[1][factor] > 1e-3  # at the run's
