"""EWC and GEM through Avalanche's plugins: worked examples, padding, answer tokens, memories."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import baselines
from baselines.common.task import Task
from benchmarks.streams.common.tasks import Samples
from tests import tiny

pytestmark = pytest.mark.slow


def ragged(task: int) -> Samples:
    """Texts whose prompts and answers differ in length, with padding in all of them."""
    made = tiny.samples("language", task)
    longer = torch.arange(12) % 3 == 0
    made.x[longer, 1, -4:] = 2
    made.y[longer, -4:] = made.x[longer, 0, -4:]
    padding = torch.zeros(12, 2, 5, dtype=torch.long)
    nothing = torch.full((12, 5), -100)
    return Samples(torch.cat([padding, made.x], dim=2), torch.cat([nothing, made.y], dim=1))


def tasks(n: int) -> list[Task]:
    return [Task(t, f"task{t}", ragged(t), 2) for t in range(n)]


def token_losses(method, x: torch.Tensor) -> torch.Tensor:
    """(A,) cross-entropies of the answer tokens of one text (2, L), without its padding.

    From every position's logits of the network itself, whose positions then count from 0.
    """
    ids = x[0, x[1] > 0]
    n_answer = int((x[1] == 2).sum())
    logits = method.model.network(input_ids=ids[None]).logits[0]
    return F.cross_entropy(logits[-n_answer - 1 : -1], ids[-n_answer:], reduction="none")


def trained(method) -> dict[str, nn.Parameter]:
    return {n: p for n, p in method.model.named_parameters() if p.requires_grad}


def gradients(method, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    parameters = trained(method)
    return dict(zip(parameters, torch.autograd.grad(loss, parameters.values()), strict=True))


# GEM


def gem(strength: float):
    return tiny.method("gem", "language", memory_strength=strength)._gem


@pytest.mark.parametrize(
    ("g", "G", "margin", "expected"),
    [
        ([1, 1], [[-1, 0]], 0, [9.990e-4, 1]),
        ([1, 0], [[-0.2, 1], [0, 1]], 0.5, [0.9, 1.0]),
        ([1, 0], [[-0.2, 1], [0, 1]], 0, [0.96158, 0.19212]),
    ],
)
def test_gradients_that_raise_a_memorys_loss_are_projected(g, G, margin, expected):
    assert _projected(gem(margin), g, G) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("margin", [0, 0.5])
def test_a_gradient_that_raises_no_memorys_loss_stays(margin):
    assert _projected(gem(margin), [-1, 1], [[-1, 0]]) == [-1, 1]
    # all tensors together: the second tensor makes up for the first
    assert _projected(gem(margin), [1, 1, 1, 1], [[-1, 0, 3, 0]], sizes=(2, 2)) == [1, 1, 1, 1]


def _projected(plugin, g, G, sizes=None) -> list[float]:
    """The gradient that the plugin leaves of g, spread over tensors of those sizes."""
    parameters = [nn.Parameter(torch.zeros(n)) for n in sizes or (len(g),)]
    for p, part in zip(
        parameters, torch.tensor(g, dtype=torch.float).split(sizes or len(g)), strict=True
    ):
        p.grad = part.clone()
    plugin.G = torch.tensor(G, dtype=torch.float)
    plugin.after_backward(
        SimpleNamespace(
            clock=SimpleNamespace(train_exp_counter=len(G)),
            model=SimpleNamespace(parameters=lambda: iter(parameters)),
            device="cpu",
        )
    )
    return torch.cat([p.grad for p in parameters]).tolist()


def test_gems_memory_holds_whole_texts_of_the_task():
    method = tiny.method("gem", "language", memory_per_task=5)
    for task in tasks(2):
        tiny.learn(method, task)
    for t in range(2):
        x, y = method._gem.memory_x[t], method._gem.memory_y[t]
        samples = ragged(t)
        length = int((x[:, 1] > 0).sum(dim=1).max())
        assert x.shape == (5, 2, length) and y.shape == (5, length)  # without shared padding
        own = samples.x[:, :, -length:]
        rows = [int((own == row).all(dim=(1, 2)).nonzero()[0]) for row in x]
        assert len(set(rows)) == 5
        assert torch.equal(y, samples.y[rows, -length:])
        assert x.untyped_storage().nbytes() == x.nbytes


def test_gems_reference_gradient_is_that_of_the_mean_over_the_memorys_answer_tokens():
    """And with one memory the quadratic programme has a closed form."""
    method = tiny.method("gem", "language", memory_per_task=7)
    first, second = tasks(2)
    tiny.learn(method, first)
    plugin, violations = method._gem, []
    compute, project = plugin.before_training_iteration, plugin.after_backward

    def compare(strategy, **kwargs):
        compute(strategy, **kwargs)
        losses = [token_losses(method, x) for x in plugin.memory_x[0]]
        assert {len(loss) for loss in losses} == {2, 4}
        hand = gradients(method, torch.cat(losses).mean())
        expected = torch.cat([g.flatten() for g in hand.values()])
        torch.testing.assert_close(plugin.G[0], expected, atol=1e-5, rtol=1e-3)

    def product() -> float:
        g = torch.cat([p.grad.flatten() for p in trained(method).values()])
        return float(g @ plugin.G[0])

    def check(strategy, **kwargs):
        before, square = product(), float(plugin.G[0].square().sum())
        project(strategy, **kwargs)
        if before < 0:
            violations.append(before)
            before += square * max(0.05, -before / (square + 1e-3))
        assert product() == pytest.approx(before, abs=1e-5)

    plugin.before_training_iteration, plugin.after_backward = compare, check
    assert tiny.learn(method, second)["steps"] == 6
    assert violations


RATE = 0.01


def one_step_on_the_second_task(name, seed=0, **shared):
    """The method, and how far each row of its classifier moved (6, 24)."""
    shared = {"batch_size": 12, "clip_norm": None, "learning_rate": RATE} | shared
    method = tiny.method(name, "vision", seed=seed, shared=shared)
    first, second = tiny.tasks("vision", 2, epochs=1)
    tiny.learn(method, first)
    before = method.model.head.weight.detach().clone()
    tiny.learn(method, second)
    return method, (method.model.head.weight.detach() - before).abs()


@pytest.mark.parametrize(("mask", "compared"), [("current", [0, 1]), ("seen", [0, 1, 2, 3])])
def test_a_memory_compares_its_own_classes_or_all_that_were_seen(mask, compared):
    method, _ = one_step_on_the_second_task("gem", mask=mask)
    start, place = 0, None
    for name, parameter in method.loop.model.named_parameters():
        if name.endswith("head.weight"):
            place = slice(start, start + parameter.numel())
        start += parameter.numel()
    gradient = method._gem.G[0, place].view(6, 24)
    assert gradient.any(dim=1).nonzero().flatten().tolist() == compared


def test_a_violation_moves_the_rows_of_earlier_tasks_by_whole_steps():
    def moved(name):
        steps = [one_step_on_the_second_task(name, seed)[1][:2] for seed in range(4)]
        return torch.stack(steps).amax(dim=(1, 2))

    assert not moved("seqlora").any()
    violated = moved("gem")
    assert violated.any()  # not with every seed
    whole = torch.full_like(violated, RATE)
    torch.testing.assert_close(violated, torch.where(violated > 0, whole, 0))


# EWC


def test_the_fisher_information_and_penalty_of_a_linear_model():
    """Half the squared error of w x at w = 1, x 1 and 2, y 0: gradients 1 and 4."""
    plugin = tiny.method("ewc", "language", strength=1.0)._ewc
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    x = torch.tensor([[1.0], [2.0]])
    data = Samples(x, torch.zeros(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss(output, y):
        return 0.5 * (output[:, 0] - y).square().mean()

    fisher = plugin.compute_importances(model, loss, optimizer, data, "cpu", 2)
    assert fisher["weight"].data.item() == pytest.approx(8.5)
    whole = tiny.method("ewc", "language", fisher_batch_size=2)._ewc
    squared_mean = whole.compute_importances(model, loss, optimizer, data, "cpu", 2)
    assert squared_mean["weight"].data.item() == pytest.approx(6.25)

    from avalanche.training.utils import copy_params_dict

    plugin.update_importances(fisher, 0)
    plugin.saved_params[0] = copy_params_dict(model)
    nn.init.constant_(model.weight, 1.5)
    clock = SimpleNamespace(train_exp_counter=1)
    strategy = SimpleNamespace(clock=clock, model=model, device="cpu", loss=torch.tensor(0.0))
    plugin.before_backward(strategy)
    assert strategy.loss.item() == pytest.approx(2.125)  # strength 1 without the factor 1/2


@pytest.mark.parametrize("which", ["adapter", "all"])
def test_fisher_information_of_texts_is_that_of_each_alone_without_padding(which):
    method = tiny.method("ewc", "language", trained=which)
    task = tasks(1)[0]
    tiny.learn(method, task)
    expected = {n: torch.zeros_like(p) for n, p in trained(method).items()}
    for x in task.train.x:
        for n, g in gradients(method, token_losses(method, x).mean()).items():
            expected[n] += g.square() / len(task.train)
    found = {n: kept.data for n, kept in method._ewc.importances[0].items()}
    assert [n.removeprefix("model.") for n in found] == list(expected)
    for (name, fisher), hand in zip(found.items(), expected.values(), strict=True):
        assert hand.max() > 0
        torch.testing.assert_close(fisher, hand, atol=1e-4 * hand.max().item(), rtol=1e-3, msg=name)


def test_ewc_and_gem_pass_no_padding_in_vain(monkeypatch):
    """Each text of the Fisher alone; a memory as long as its longest."""
    for name in ("ewc", "gem"):
        method, seen = tiny.method(name, "language"), []
        tiny.learn(method, tasks(1)[0])
        monkeypatch.setattr(method.model, "embed", spy(method.model.embed, seen))
        method.loop.experience = SimpleNamespace(dataset=tasks(1)[0].train)
        if name == "ewc":
            method._ewc.after_training_exp(method.loop)
            assert len(seen) == 12 and len({ids.shape for ids in seen}) > 1
        else:
            method.loop.clock.train_exp_counter = 1
            method._gem.before_training_iteration(method.loop)
            assert len(seen) == 1
        assert all((ids[:, 0] > 0).any() for ids in seen)  # no token of the texts is 0


def spy(function, seen: list):
    def called(ids):
        seen.append(ids)
        return function(ids)

    return called


@pytest.mark.parametrize("modality", tiny.MODALITIES)
def test_ewc_of_the_whole_network_trains_and_pulls_every_parameter(modality):
    free, pulled = (
        tiny.method("ewc", modality, trained="all", strength=s, shared={"learning_rate": 1e-3})
        for s in (0.0, 1e3)
    )
    n_values = sum(p.numel() for p in tiny.network(modality).parameters())
    moved = []
    for method in (free, pulled):
        assert not any("lora" in n for n, _ in method.model.named_parameters())
        assert method.footprint()["trainable_parameters"] == n_values
        start = {n: p.detach().clone() for n, p in method.model.named_parameters()}
        first, second, _ = tiny.tasks(modality)
        tiny.learn(method, first)
        anchor = {n: p.detach().clone() for n, p in method.model.named_parameters()}
        fisher = {n: method._ewc.importances[0][f"model.{n}"].data for n in anchor}
        # a key bias changes no attention, so that its gradient is 0 but for rounding
        assert all(
            not torch.equal(p, start[n]) for n, p in anchor.items() if not n.endswith("k_proj.bias")
        )
        tiny.learn(method, second)
        moved.append(
            sum(
                float((fisher[n] * (p.detach() - anchor[n]).square()).sum())
                for n, p in method.model.named_parameters()
            )
        )
        assert method.footprint()["stored_values"] == n_values * 3  # whatever the tasks
    assert moved[1] < 0.5 * moved[0]


@pytest.mark.parametrize("modality", tiny.MODALITIES)
def test_ewc_of_the_whole_network_is_restored_exactly(modality):
    whole, stopped, fresh = (tiny.method("ewc", modality, trained="all") for _ in range(3))
    first, second, third = tiny.tasks(modality)
    for method, learnt in ((whole, (first, second, third)), (stopped, (first, second))):
        for task in learnt:
            tiny.learn(method, task)
    fresh.load_state_dict(stopped.state_dict())
    assert fresh._ewc.constant == stopped._ewc.constant > 0
    tiny.learn(fresh, third)
    assert fresh._ewc.constant == whole._ewc.constant
    assert torch.equal(tiny.outputs(fresh, modality), tiny.outputs(whole, modality))


def test_micro_batches_of_a_network_with_tied_embeddings_make_the_same_steps():
    """The embedding is the output layer too, and has one gradient of both."""
    both = []
    for size in (None, 2):
        shared = {"micro_batch_size": size, "clip_norm": None}
        method = tiny.method("ewc", "language", trained="all", shared=shared)
        method.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.05)
        network = method.model.network
        assert network.lm_head.weight is network.get_input_embeddings().weight
        for task in tasks(2):
            tiny.learn(method, task)
        both.append(trained(method))
    for n, value in both[0].items():
        torch.testing.assert_close(both[1][n], value, atol=2e-5, rtol=1e-3, msg=n)


def test_a_whole_network_in_bfloat16_is_trained_in_float32():
    network, load = tiny.network("language").bfloat16(), baselines.load("ewc")
    method = load(network, load.Config(trained="all"), tiny.setting("language"))
    assert {p.dtype for p in method.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("middle", "tolerance"), [(0, 1e-5), (100, 0.01)])
def test_ewcs_one_term_is_the_sum_of_all_tasks_terms(middle, tolerance):
    """Differences of sums such as S theta^2 would lose all their digits around 100, where the
    anchors themselves are rounded to 8e-6."""
    from avalanche.training.utils import ParamData

    plugin = tiny.method("ewc", "vision")._ewc
    generator = torch.Generator().manual_seed(0)
    anchors = middle + 0.01 * torch.rand(5, 50, generator=generator)
    fishers = torch.rand(5, 50, generator=generator) ** 8
    fishers[:, :5] = 0
    for t, (fisher, anchor) in enumerate(zip(fishers, anchors, strict=True)):
        plugin.importances[t] = {"p": ParamData("p", init_tensor=fisher.clone())}
        plugin.saved_params[t] = {"p": ParamData("p", init_tensor=anchor.clone())}
        plugin.join(t)
    theta = middle + 0.01 * torch.rand(50, generator=generator)
    total, mean = (part[4]["p"].data for part in (plugin.importances, plugin.saved_params))
    distance = (theta - anchors).double()
    expected = (fishers.double() * distance**2).sum()
    found = (total * (theta - mean) ** 2).double().sum() + plugin.constant
    assert found.item() == pytest.approx(expected.item(), rel=tolerance)
    assert plugin.constant > 0.1 * expected.item()
