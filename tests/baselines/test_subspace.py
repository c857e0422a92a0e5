"""InfLoRA, SD-LoRA and RanPAC against numpy and loops written by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baselines.inflora import GradientMemory
from baselines.ranpac import RIDGES, best_ridge, solve
from tests import tiny
from tests.references.subspaces import DualGPM

WIDTH, RANK = 24, 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def orthonormal(n_columns, seed=0):
    square = torch.randn(WIDTH, WIDTH, dtype=torch.float64, generator=generator(seed))
    return torch.linalg.qr(square).Q[:, :n_columns]


def moment(seed, decay=1.0):
    """A second moment whose singular values fall off as a power."""
    basis = orthonormal(WIDTH, 100 + seed)
    return basis @ torch.diag(torch.arange(1, WIDTH + 1, dtype=torch.float64) ** -decay) @ basis.T


def learnt(name, n_tasks, shared=None, **config):
    method = tiny.method(name, "vision", shared=shared, **config)
    for task in tiny.tasks("vision", n_tasks):
        tiny.learn(method, task)
    return method


def images(n=12):
    """The samples of all tasks, shuffled together."""
    x = torch.cat([tiny.samples("vision", t, n).batch(torch.arange(n))[0] for t in range(3)])
    return x[torch.randperm(len(x), generator=generator())]


def logits(method, x):
    method.model.eval()
    with torch.no_grad():
        return method.model(x)


# ---- InfLoRA ---------------------------------------------------------------------------------


@pytest.mark.parametrize("retain", [False, True])
def test_a_designed_branch_is_orthonormal_up_to_scale_and_avoids_the_memory(retain):
    both = orthonormal(WIDTH)
    inside, outside = both[:, :9], both[:, 9:]
    memory = GradientMemory(outside if retain else inside, retain)
    A = memory.design(moment(1), RANK)
    assert memory.dimension == 9
    assert (A @ inside).abs().max() < 1e-12
    torch.testing.assert_close(A @ A.T, torch.eye(RANK, dtype=torch.float64) / 3)


@pytest.mark.parametrize("retain", [False, True])
def test_a_designed_branch_spans_the_leading_left_singular_vectors(retain):
    both = orthonormal(WIDTH)
    inside, outside, C = both[:, :9].numpy(), both[:, 9:].numpy(), moment(1).numpy()
    R = outside @ outside.T @ C if retain else C - inside @ inside.T @ C
    expected = np.linalg.svd(R)[0][:, :RANK]
    A = GradientMemory(both[:, 9:] if retain else both[:, :9], retain).design(moment(1), RANK)
    np.testing.assert_allclose(3 * (A.T @ A).numpy(), expected @ expected.T, atol=1e-9)


def test_rows_without_a_free_direction_are_zero():
    A = GradientMemory(orthonormal(WIDTH - 2)).design(moment(1), RANK)
    free = A @ A.T * 3
    torch.testing.assert_close(free, torch.diag(torch.tensor([1.0, 1.0, 0.0]).double()))


@pytest.mark.parametrize("decay", [0.2, 0.5, 1.0])
def test_the_memory_grows_as_dual_gpm(decay):
    memory, reference = GradientMemory(torch.zeros(WIDTH, 0, dtype=torch.float64)), DualGPM()
    dimensions = []
    for task, threshold in enumerate((0.6, 0.7, 0.8, 0.9, 0.95)):
        C = moment(task, decay)
        memory.grow(C, threshold)
        reference.grow(C.numpy(), threshold)
        assert memory.retain == (reference.mode == "retain")
        projector = (memory.basis @ memory.basis.T).numpy()
        np.testing.assert_allclose(projector, reference.M @ reference.M.T, atol=1e-8)
        dimensions.append(memory.dimension)
    assert dimensions == sorted(set(dimensions))
    assert memory.retain or decay == 1.0  # one spectrum stays with the memory itself


def inputs_of(method):
    """One adapted block of the tiny network and a way to its keys and values (n, 2 width)."""
    branch = method._branches[1]
    return branch, lambda x: branch(x.float())[:, WIDTH:].detach()


def test_learning_leaves_keys_and_values_of_the_memory_alone():
    method = tiny.method("inflora", "vision", rank=RANK, lamb=0.9, shared={"learning_rate": 0.1})
    first, second, _ = tiny.tasks("vision")
    tiny.learn(method, first)
    memory = method._memories[1]
    inside = torch.randn(5, memory.dimension, generator=generator()).double()
    x = inside @ orthogonal_complement(memory.free()).T
    outside = memory.free().T[:5]
    _, keys_values = inputs_of(method)
    before = keys_values(x), keys_values(outside)
    tiny.learn(method, second)
    after = keys_values(x), keys_values(outside)
    torch.testing.assert_close(after[0], before[0], atol=1e-4, rtol=0)
    assert (after[1] - before[1]).abs().max() > 1e-2


def orthogonal_complement(basis):
    return torch.linalg.svd(basis)[0][:, basis.shape[1] :]


def test_a_task_starts_where_the_last_one_ended():
    method = learnt("inflora", 1)
    before = logits(method, images())
    method.begin(tiny.tasks("vision")[1])
    assert torch.equal(logits(method, images()), before)
    assert method._branches[0].A.any()


def test_merging_keeps_the_function():
    method = learnt("inflora", 1)
    method.begin(tiny.tasks("vision")[1])
    for branch in method._branches:
        torch.nn.init.normal_(branch.B)
    before = logits(method, images())
    for branch in method._branches:
        branch.merge()
        assert not branch.B.any()
    torch.testing.assert_close(logits(method, images()), before, atol=1e-4, rtol=1e-4)


# ---- SD-LoRA ---------------------------------------------------------------------------------


def test_norms_of_a_finished_direction_do_not_matter():
    scaled, other = learnt("sdlora", 1), learnt("sdlora", 1)
    with torch.no_grad():
        for i, projection in enumerate(scaled._projections):
            projection.B *= 3 + i
            projection.A *= 0.5
    changed = logits(scaled, images())
    for method in (scaled, other):
        method.begin(tiny.tasks("vision")[1])
    torch.testing.assert_close(logits(scaled, images()), logits(other, images()))
    assert not torch.allclose(changed, logits(scaled, images()), atol=1e-3)


def test_only_magnitudes_directions_and_classifier_are_trained():
    method = learnt("sdlora", 1)
    method.begin(tiny.tasks("vision")[1])
    names = {n for n, p in method.model.named_parameters() if p.requires_grad}
    ends = {"magnitudes", "A", "B", "weight", "bias"}
    assert {n.rsplit(".", 1)[-1] for n in names} == ends
    assert {n for n in names if n.endswith(("weight", "bias"))} == {"head.weight", "head.bias"}
    for projection in method._projections:
        torch.nn.init.normal_(projection.B)
    F.cross_entropy(method.model(images()), torch.arange(36) % 6).backward()
    got = {n for n, p in method.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert got == names
    gradient = method._magnitudes.grad
    assert gradient[:2].all() and not gradient[2]


@pytest.mark.parametrize("carry", [False, True])
def test_earlier_directions_are_frozen_and_their_magnitudes_trained(carry):
    method = learnt("sdlora", 1, carry_magnitude=carry)
    first, second, third = tiny.tasks("vision")
    tiny.learn(method, second)
    past = [p.past_A.clone() for p in method._projections]
    magnitudes = method._magnitudes.detach().clone()
    assert magnitudes[0] != 0.8 != magnitudes[1] and magnitudes[2] == 0.8
    tiny.learn(method, third)
    for kept, projection in zip(past, method._projections, strict=True):
        assert torch.equal(projection.past_A[: len(kept)], kept)
        assert len(projection.past_A) == 2 * len(kept)


def test_carried_magnitudes_leave_no_jump_between_tasks():
    jumps = {}
    for carry in (False, True):
        method = learnt("sdlora", 2, carry_magnitude=carry)
        before = logits(method, images())
        method.begin(tiny.tasks("vision")[2])
        jumps[carry] = (logits(method, images()) - before).abs().max()
    assert jumps[True] < 1e-5
    assert jumps[False] > 1e-3


# ---- RanPAC ----------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{"ridge": 0.1}, {"head": "mean"}])
def test_the_order_of_the_tasks_does_not_matter(config):
    methods = [tiny.method("ranpac", "vision", **config) for _ in range(2)]
    tasks = tiny.tasks("vision")
    for method, order in zip(methods, ((0, 1, 2), (2, 0, 1)), strict=True):
        for t in order:
            tiny.learn(method, tasks[t])
    weights = [method.model.weight for method in methods]
    torch.testing.assert_close(*weights, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("n", "width"), [(60, 12), (30, 50)])
def test_the_ridge_is_the_best_on_the_held_out_rows(n, width):
    h = torch.randn(n, width, generator=generator(), dtype=torch.float64)
    noise = torch.randn(n, 3, generator=generator(1), dtype=torch.float64)
    y = h[:, :3] + noise
    n_fit = n * 4 // 5
    fit, rest = h.numpy()[:n_fit], h.numpy()[n_fit:]
    errors = []
    for ridge in RIDGES:
        weight = np.linalg.solve(fit.T @ fit + ridge * np.eye(width), fit.T @ y.numpy()[:n_fit])
        errors.append(((rest @ weight - y.numpy()[n_fit:]) ** 2).mean())
    assert best_ridge(h, y, n_fit) == RIDGES[int(np.argmin(errors))]
    assert 0 < np.argmin(errors) < len(RIDGES) - 1


def test_features_that_are_not_finite_are_named():
    """No ridge would help them, and a larger one would be tried for ever."""
    gram = torch.eye(3, dtype=torch.float64)
    gram[0, 0] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        solve(gram, torch.ones(3, 2, dtype=torch.float64), 1.0)


def test_a_ridge_too_small_to_solve_with_is_raised():
    gram = torch.diag(torch.tensor([1.0, -1e-4], dtype=torch.float64))
    Q = torch.eye(2, dtype=torch.float64)
    weight = solve(gram, Q, 1e-6)
    torch.testing.assert_close(weight[1, 1], torch.tensor(1 / (1e-3 - 1e-4)).double())
    assert math.isclose(gram[1, 1], -1e-4)
