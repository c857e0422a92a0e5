"""Properties of the tree, the searches, the penalty and what is stored."""

import io
import json
import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from tests.references import trees
from treelora import PRESETS, Node, Options, TreeRegulariser, build_tree
from treelora.options import CHOICES
from treelora.search import RandomSearch, SoftmaxSearch, TreeSearch, draw, flat
from treelora.signature import Layout, adapted_parameters

SIMILARITIES = CHOICES["similarity"]
stacks = st.builds(
    lambda n, seed, values: torch.randint(
        0, values, (n, 3, 4), generator=torch.Generator().manual_seed(seed)
    ).float(),
    st.integers(1, 9),
    st.integers(0, 10**6),
    st.sampled_from([1, 2, 100]),  # 1 makes all tasks equal, 2 many of them
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# The tree


def depth(node: Node) -> int:
    return max((1 + depth(child) for child in node.children), default=0)


@given(stacks, st.sampled_from(SIMILARITIES))
@settings(deadline=None, max_examples=100)
def test_leaves_partition_the_tasks_within_the_depth_bound(rows, similarity):
    tree = build_tree(rows, similarity=similarity)
    leaves = [node for node in tree.walk() if not node.children]
    assert sorted(t for leaf in leaves for t in leaf.tasks) == list(range(len(rows)))
    assert all(len(leaf.tasks) == 1 for leaf in leaves)
    assert depth(tree) <= rows.shape[1] + 1
    for node in tree.walk():
        if node.children:
            assert sorted(t for c in node.children for t in c.tasks) == list(node.tasks)
    assert Node.from_dict(json.loads(json.dumps(tree.to_dict()))) == tree


def assert_same(found, expected):
    assert list(found.tasks) == expected.tasks
    assert found.threshold == pytest.approx(expected.threshold, rel=1e-6)
    for one, other in zip(found.children, expected.children, strict=True):
        assert_same(one, other)


@given(stacks)
@settings(deadline=None, max_examples=50)
def test_the_tree_is_equation_1(rows):
    assert_same(build_tree(rows), trees.tree([list(row) for row in rows], list(range(len(rows)))))


def test_tasks_that_no_level_parts_keep_their_largest_distance():
    corners = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])[:, None]
    tree = build_tree(corners)
    assert [child.tasks for child in tree.children] == [(0,), (1,), (2,), (3,)]
    assert tree.threshold == 0.5


def test_padding_counts_in_no_distance():
    rows = random(5, 2, 3)
    padded = torch.cat([rows, torch.zeros(5, 2, 2)], dim=2)
    assert build_tree(padded, torch.tensor([3, 3])) == build_tree(rows)


# The searches


def play(search, distance, steps):
    """Pull arms with fixed distances (N,) in all matrices; returns the arms pulled, (steps, L)."""
    pulled = []
    for _ in range(steps):
        chosen = search.choose()
        search.observe(chosen, distance[chosen])
        pulled.append(chosen)
    return torch.stack(pulled)


def searches(root, n_levels=1):
    n = len(root.tasks)
    return {
        "lcb": TreeSearch(root, n_levels),
        "lcb_flat": TreeSearch(flat(n), n_levels),
        "softmax": SoftmaxSearch(root, n_levels, steps=10, branch_weight=True),
        "random": RandomSearch(n, n_levels),
    }


def check_equation_2(root, seed, steps=20):
    """The search chooses as the recursion does, at every step."""
    search = TreeSearch(root, n_levels=1)
    generator = torch.Generator().manual_seed(seed)
    observed = []
    for step in range(1, steps):
        chosen = search.choose()
        if observed:
            assert chosen.item() == trees.lower_bound(root, observed, step)[1]
        # the largest residual, by which all are divided, is 1
        residual = torch.rand(1, generator=generator) if observed else torch.ones(1)
        search.observe(chosen, residual)
        observed.append((chosen.item(), residual.double().item()))
    assert search.pulls.sum() == steps - 1


@given(stacks, st.integers(0, 10**6))
@settings(deadline=None, max_examples=60)
def test_the_search_is_equation_2(rows, seed):
    check_equation_2(build_tree(rows / 100), seed)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_so_where_depth_and_number_of_children_differ(seed):
    three = Node((0, 1, 2), 0.1, tuple(Node((task,)) for task in range(3)))
    two = Node((3, 4), 0.1, (Node((3,)), Node((4,))))
    check_equation_2(Node(tuple(range(6)), 0.2, (Node((5,)), three, two)), seed, steps=80)


@given(stacks, st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_with_whole_norms_it_is_equation_2_to_the_letter_in_each_matrix(rows, seed):
    root, entries = build_tree(rows / 100), torch.tensor([1, 7])
    search = TreeSearch(root, 2, entries=entries)
    generator = torch.Generator().manual_seed(seed)
    observed = [[], []]
    for step in range(1, 15):
        chosen = search.choose()
        residual = 9 * torch.rand(2, generator=generator)  # in no way within [0, 1]
        for level, arm in enumerate(chosen.tolist()):
            if step > 1:
                bound = trees.lower_bound(root, observed[level], step, entries[level].item())
                assert arm == bound[1]
            observed[level].append((arm, residual[level].double().item()))
        search.observe(chosen, residual)


@given(st.integers(0, 10**6), st.sampled_from([1.0, 100.0]))
@settings(deadline=None, max_examples=20)
def test_the_bonus_outweighs_relative_residuals_and_not_whole_norms(seed, unit):
    """What the bonus, at most 2 sqrt(log t), cannot make up for is pulled once and no more."""
    steps, n = 120, 6
    distance = 20 * unit * (1 + torch.rand(n, generator=torch.Generator().manual_seed(seed)))
    best = distance.min()
    relative, whole = TreeSearch(flat(n), 1), TreeSearch(flat(n), 1, entries=torch.tensor([9]))
    for search in (relative, whole):
        play(search, distance, steps)
    hopeless = distance - best > 2 * math.sqrt(math.log(steps))
    assert (whole.pulls[hopeless] == 1).all()
    # a half of the largest is their greatest difference, and all are pulled again and again
    assert relative.pulls.min() > steps / n / 3


@pytest.mark.parametrize("name", ["lcb", "lcb_flat"])
def test_the_unit_of_distance_decides_nothing(name):
    pulled = []
    for unit in (1.0, 1024.0):  # a power of two, so that nothing is rounded
        distance = unit * torch.tensor([0.9, 0.5, 0.1, 0.4, 0.7])
        search = searches(build_tree(distance[:, None, None]))[name]
        pulled.append(play(search, distance, 300))
    assert torch.equal(*pulled)


@pytest.mark.parametrize("name", ["lcb", "lcb_flat", "softmax", "random"])
def test_with_one_arm_it_is_that_arm(name):
    search = searches(Node((0,)), n_levels=3)[name]
    assert play(search, torch.tensor([0.5]), 4).tolist() == [[0, 0, 0]] * 4


@pytest.mark.parametrize("name", ["lcb", "lcb_flat"])
def test_the_search_settles_on_the_closest_task(name):
    distance = torch.tensor([0.9, 0.8, 0.1, 0.9, 1.0, 0.7])
    search = searches(build_tree(distance[:, None, None]))[name]
    play(search, distance, 2000)
    assert search.pulls[:, 0].argmax() == 2
    assert search.pulls[2, 0] > 3 * search.pulls[3, 0]


def test_softmax_prefers_far_tasks_only_when_told():
    distance = torch.tensor([5.0, 0.1, 5.0, 0.1])
    often = {}
    for far in (False, True):
        generator = torch.Generator().manual_seed(0)
        search = SoftmaxSearch(flat(4), 8, 50, far=far, draw=lambda p, g=generator: draw(p, g))
        play(search, distance, 400)
        often[far] = search.pulls[[0, 2]].sum() / search.pulls.sum()
    assert often[False] < 0.4 and often[True] > 0.6


def test_the_first_arm_drawn_weights_the_arms_of_its_branch():
    near = Node((0, 2), 0.4, (Node((0,)), Node((2,))))
    root = Node((0, 1, 2), 1.0, (near, Node((1,))))
    for n_levels, weight in ((2, 0.4), (1, 1.0)):  # with one level no branch was split
        seen = []

        def first(probability, seen=seen):
            seen.append(probability)
            return torch.zeros(probability.shape[:-1], dtype=torch.long)

        search = SoftmaxSearch(root, n_levels, 5, far=True, branch_weight=True, draw=first)
        search.observe(torch.zeros(n_levels, dtype=torch.long), torch.full((n_levels,), 3.0))
        search.observe(torch.ones(n_levels, dtype=torch.long), torch.full((n_levels,), 2.0))
        search.observe(torch.full((n_levels,), 2), torch.full((n_levels,), 1.0))
        search.choose()
        bonus = math.sqrt(math.log(2 * 5 * 2)) / math.sqrt(2 + 1e-5)
        score = torch.tensor([3.0, 2.0, 1.0]) + bonus
        score = (score + score.min()) * torch.tensor([weight, 1.0, weight])
        score = score / (score.max() - score.min() + 1e-5)
        torch.testing.assert_close(seen[1][0], score.softmax(dim=0))


def test_draws_follow_their_probabilities():
    probability = torch.tensor([0.1, 0.2, 0.7]).repeat(20_000, 1)
    counts = draw(probability, torch.Generator().manual_seed(0)).bincount() / 20_000
    torch.testing.assert_close(counts, probability[0], atol=0.015, rtol=0)


# The penalty


def fed(n_tasks=3, shape=(3, 4), **options):
    """A regulariser over bare adapters that has finished some tasks of known content."""
    model = tiny.Adapters(*shape)
    tree = TreeRegulariser(model, Options(**options))
    for task in range(n_tasks):
        tree.start_task(steps_per_epoch=4)
        for step in range(4):
            model.fill(random(*shape, seed=10 * task + step))
            total = sum((p**2).sum() for p in model.parameters())
            (total + tree.penalty(total)).backward()
        tree.end_task()
    return model, tree


COMBINED = [
    (similarity, scale, search, layerwise)
    for similarity in SIMILARITIES
    for scale in CHOICES["penalty_scale"]
    for search in ("lcb", "random", "softmax")
    for layerwise in ((False,) if scale in ("mean", "sum") else (False, True))
]


@pytest.mark.parametrize(("similarity", "scale", "search", "layerwise"), COMBINED)
def test_the_gradient_is_the_one_by_hand(similarity, scale, search, layerwise):
    options = {"similarity": similarity, "penalty_scale": scale, "search": search}
    model, tree = fed(**options, layerwise=layerwise, strength=0.3)
    current = random(3, 4, seed=99)
    tree.start_task(steps_per_epoch=4)
    model.fill(current)
    chosen = []
    choose = tree._search.choose
    tree._search.choose = lambda: chosen.append(choose()) or chosen[-1]
    penalty = tree.penalty(torch.tensor(2.0))
    target = tree.adapters[chosen[0], torch.arange(3)]
    if similarity == "l1":
        n = 1 if scale == "sum" else 4
        value, slope = (current - target).abs().sum(dim=1) / n, (current - target).sign() / n
        size = tree.adapters.abs().sum(dim=2).mean(dim=0) / n
    else:
        n = 4 if scale == "mean" else 1
        value, slope = -(current * target).sum(dim=1) / n, -target / n
        size = (tree.adapters**2).sum(dim=2).mean(dim=0) / n
    if not layerwise:
        value, size = value.sum(), size.sum()
    factor = {
        "mean": torch.tensor(1.0),
        "sum": torch.tensor(1.0),
        "loss": 2.0 / (value.abs() + 1e-5),
        "constant": 2.0 / (size + 1e-5),
        "signed_loss": 2.0 / (value + 1e-5) * (1 if similarity == "l1" else -1),
    }[scale]
    torch.testing.assert_close(penalty, 0.3 * (factor * value).sum())
    penalty.backward()
    torch.testing.assert_close(model.gradient(), 0.3 * factor.reshape(-1, 1) * slope)


def test_the_default_rounds_as_the_released_records_did():
    """To the bit: the sum of the matrices' mean distances, divided by itself."""
    model, tree = fed(1, strength=0.3)
    current, loss = random(3, 4, seed=99), torch.tensor(1.7)
    tree.start_task()
    model.fill(current)
    value = ((current - tree.adapters[0]).abs().sum(dim=1) / torch.tensor([4, 4, 4])).sum()
    assert torch.equal(tree.penalty(loss).detach(), 0.3 * (value / (value.abs() + 1e-5) * loss))


def pull(tree, model, entries, loss=2.0):
    """The penalty's gradient at given entries, in a task that is under way."""
    model.fill(entries)
    tree.penalty(torch.tensor(loss)).backward()
    return model.gradient()


@pytest.mark.parametrize("layerwise", [False, True])
def test_a_constant_scale_pulls_near_the_target_as_it_does_far_from_it(layerwise):
    found = {}
    for scale in ("constant", "loss"):
        model, tree = fed(1, penalty_scale=scale, layerwise=layerwise)
        target = tree.adapters[0]
        tree.start_task()
        found[scale] = [pull(tree, model, target + d, loss) for d, loss in ((4, 2.0), (0.25, 1.0))]
    far, near = found["constant"]
    assert far.min() > 0 and torch.equal(far, near)
    far, near = found["loss"]
    torch.testing.assert_close(near, 8 * far, rtol=1e-3, atol=0)  # half the loss, a 16th as far


def test_a_constant_scale_is_made_anew_for_every_task():
    model, tree = fed(1, penalty_scale="constant")
    pulls = []
    for loss in (1.0, 3.0):
        tree.start_task()
        pulls.append(pull(tree, model, tree.adapters[0] + 1, loss))
    torch.testing.assert_close(pulls[1], 3 * pulls[0])


@pytest.mark.parametrize(("scale", "n"), [("largest", 4), ("sum", 1)])
@pytest.mark.parametrize("search", ["lcb", "lcb_flat"])
def test_the_search_observes_whole_norms_or_means_of_entries(search, scale, n):
    model, tree = fed(2, search=search, residual_scale=scale)
    tree.start_task()
    current, seen = random(3, 4, seed=99), []
    model.fill(current)
    observe = tree._search.observe
    tree._search.observe = lambda chosen, residual: seen.append((chosen, residual))
    tree.penalty(torch.tensor(1.0))
    (chosen, residual), *_ = seen
    distance = (current - tree.signatures[chosen, torch.arange(3)]).abs().sum(dim=1)
    torch.testing.assert_close(residual, distance / n)
    observe(chosen, residual)
    assert (tree._search._scale == (1 if scale == "sum" else residual)).all()


def test_the_penalty_reaches_only_the_first_matrices():
    method = tiny.method("treelora", "language", depth=1)
    for task in tiny.tasks("language", 2):
        tiny.learn(method, task)
    for parameter in method.model.parameters():
        parameter.grad = None
    method.regulariser.start_task()
    method.regulariser.penalty(torch.tensor(1.0)).backward()
    first, *others = adapted_parameters(method.model)
    assert all(p.grad is not None and p.grad.any() for p in first)
    everything = {id(p) for p in first}
    assert all(p.grad is None for p in method.model.parameters() if id(p) not in everything)
    assert others


def test_without_search_there_is_no_penalty_but_a_tree():
    _, tree = fed(3, search="none")
    tree.start_task()
    assert tree.penalty(torch.tensor(1.0)) == 0.0
    assert tree.tree.tasks == (0, 1, 2)


def test_the_gradient_signature_is_the_mean_gradient_of_the_loss_alone():
    _, tree = fed(2, signature="gradient", strength=5.0, penalty_scale="mean")
    for task in range(2):  # the loss of `fed` is the sum of squares
        stacks = [random(3, 4, seed=10 * task + step) for step in range(4)]
        expected = 2 * torch.stack(stacks).mean(dim=0)
        torch.testing.assert_close(tree.signatures[task], expected)
        torch.testing.assert_close(tree.adapters[task], stacks[-1])


def test_a_task_that_is_started_again_sees_each_gradient_once():
    model, tree = fed(1, signature="gradient", strength=5.0, penalty_scale="mean")
    stacks = [random(3, 4, seed=step) for step in range(3)]
    for _ in range(2):  # the first is interrupted
        tree.start_task()
        for stack in stacks:
            model.fill(stack)
            total = sum((p**2).sum() for p in model.parameters())
            (total + tree.penalty(total)).backward()
    torch.testing.assert_close(tree.estimate, 2 * torch.stack(stacks).mean(dim=0))


def test_a_factor_that_no_loss_reaches_has_a_gradient_of_zeros():
    model = tiny.Adapters(2, 3)
    tree = TreeRegulariser(model, Options(signature="gradient"))
    tree.start_task()
    next(model.parameters()).sum().backward()
    assert tree.estimate.tolist() == [[1.0] * 3, [0.0] * 3]


def test_gradients_are_averaged_in_single_precision():
    """In bfloat16, 1000 gradients of 1 and 1000 of 3 would be 1 in the mean."""
    model = tiny.Adapters(1, 2).bfloat16()
    tree = TreeRegulariser(model, Options(signature="gradient", budget=1))
    for _ in range(2):
        tree.start_task()
        for slope in (1.0, 3.0):
            for _ in range(1000):
                (slope * next(model.parameters()).sum()).backward()
                next(model.parameters()).grad = None
        torch.testing.assert_close(tree.estimate, torch.tensor([[2.0, 2.0]]))
        tree.end_task()
    assert tree.members == [[0, 1]]


def test_matrices_of_different_size_are_stacked_and_restored():
    method = tiny.method("treelora", "language")  # key-value heads make v smaller than q
    layout = method.regulariser.layout
    assert not layout.uniform
    flat_entries = torch.cat([p.flatten() for p in layout.parameters])
    stack = layout.read()
    assert stack.shape == layout.shape
    assert torch.equal(layout.flat(stack), flat_entries)
    for row, length in zip(stack, layout.lengths.tolist(), strict=True):
        assert not row[length:].any()


def test_signatures_kept_elsewhere_give_the_same_penalty():
    _, here = fed(3)
    model = tiny.Adapters(3, 4)
    there = TreeRegulariser(model, store_on="cpu")
    there.load_state_dict(here.state_dict())
    for tree in (here, there):
        tree.start_task()
    model.fill(here.layout.read().detach())
    loss = torch.tensor(1.0)
    assert torch.equal(here.penalty(loss), there.penalty(loss))


# What is stored


@given(st.integers(1, 4), st.integers(1, 7), st.sampled_from(CHOICES["signature"]))
@settings(deadline=None, max_examples=25)
def test_merging_keeps_the_budget_and_every_task(budget, n_tasks, signature):
    _, tree = fed(n_tasks, signature=signature, budget=budget)
    assert len(tree.signatures) == len(tree.adapters) == min(budget, n_tasks)
    assert sorted(t for tasks in tree.members for t in tasks) == list(range(n_tasks))
    assert tree.tree.to_dict(tree.members)["tasks"] == list(range(n_tasks))


def test_the_closest_are_merged_into_their_weighted_mean():
    model = tiny.Adapters(1, 2)
    tree = TreeRegulariser(model, Options(budget=2))
    for entries in ([0.0, 0], [9, 9], [1, 0], [2, 0]):
        tree.start_task()
        model.fill(torch.tensor([entries]))
        tree.end_task()
    assert tree.members == [[0, 2, 3], [1]]
    torch.testing.assert_close(tree.signatures[0], torch.tensor([[1.0, 0]]))
    tree.start_task()
    tree.penalty(torch.tensor(1.0))
    pulls = tree.pulls()
    assert len(pulls) == 4 and pulls[0] == pulls[2] == pulls[3]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("change", [{}, {"budget": 2}, {"signature": "gradient", "average": False}])
def test_state_survives_a_file(preset, change):
    options = PRESETS[preset] | change
    model, tree = fed(4, **options)
    file = io.BytesIO()
    torch.save(tree.state_dict(), file)
    file.seek(0)
    again = TreeRegulariser(model, Options(**options))
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.tree == tree.tree and again.members == tree.members
    penalties, loss = [], torch.tensor(2.0)
    for one in (tree, again):
        one.start_task(steps_per_epoch=4)
        one.estimate = random(3, 4)
        penalties.append([float(torch.as_tensor(one.penalty(loss)).detach()) for _ in range(6)])
    assert penalties[0] == penalties[1]


def test_a_state_is_that_of_its_time_and_replaces_all_there_was():
    model, tree = fed(1)
    state = tree.state_dict()
    empty = TreeRegulariser(model).state_dict()
    tree.start_task()
    tree.end_task()
    assert state["members"] == [[0]] and len(tree.members) == 2
    tree.start_task()
    tree.load_state_dict(state)
    with pytest.raises(RuntimeError, match="before start_task"):
        tree.penalty(torch.ones(()))
    tree.load_state_dict(empty)
    tree.start_task()
    assert tree.tree is None and tree.penalty(torch.ones(())) == 0.0


@pytest.mark.parametrize("signature, other", [("adapter", "gradient"), ("gradient", "adapter")])
def test_a_state_of_another_signature_is_refused(signature, other):
    model, tree = fed(2, signature=signature)
    with pytest.raises(ValueError, match=f"not of the signature {other}"):
        TreeRegulariser(model, Options(signature=other)).load_state_dict(tree.state_dict())


SCRIPT = """
import sys
import torch
from torch import nn
from treelora import Options, TreeRegulariser

torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)
model = nn.Module()
for name in ("q", "k", "v"):
    model.add_module(name, nn.Module())
    lora = nn.ModuleDict({"default": nn.Linear(5000, 8)})
    getattr(model, name).lora_A = lora
for search in ("lcb", "softmax"):
    tree = TreeRegulariser(model, Options(search=search))
    for task in range(5):
        tree.start_task(steps_per_epoch=9)
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        penalties = [tree.penalty(torch.tensor(1.0)) for _ in range(12)]
        pulls = tree.pulls()
        tree.end_task()
    print(tree.tree.to_dict(), pulls, [penalty.item().hex() for penalty in penalties])
"""


@pytest.mark.slow
def test_neither_hash_seed_nor_threads_change_anything(capsys, monkeypatch):
    """Nor the process: this one has drawn its seed of hashes."""
    env = os.environ | {"PYTHONHASHSEED": "1"}
    other = subprocess.check_output([sys.executable, "-c", SCRIPT, "2"], env=env, text=True)
    monkeypatch.setattr(sys, "argv", ["script", "1"])
    threads = torch.get_num_threads()
    exec(SCRIPT, {})
    torch.set_num_threads(threads)
    assert capsys.readouterr().out == other


# Errors


@pytest.mark.parametrize("name", CHOICES)
def test_an_unknown_choice_is_refused_with_the_known_ones(name):
    wrong = CHOICES[name][0] + "x"
    with pytest.raises(ValueError, match=f"{name} .*{CHOICES[name][0]}.*'{wrong}'"):
        Options(**{name: wrong})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1}, "strength.* -1"),
        ({"depth": 0}, "depth.* 1.* 0"),
        ({"budget": 0}, "budget.* 1.* 0"),
        ({"average": True, "signature": "gradient"}, "average.* signature"),
        ({"layerwise": True, "penalty_scale": "mean"}, "layerwise.* mean"),
        ({"layerwise": True, "penalty_scale": "sum"}, "layerwise.* sum"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**options)


def test_depth_beyond_the_adapted_matrices_is_refused():
    with pytest.raises(ValueError, match="depth.* 4,.* 5"):
        tiny.method("treelora", "vision", depth=5)


def test_a_model_without_adapters_is_refused():
    with pytest.raises(ValueError, match="LoRA adapters"):
        Layout([])


def test_options_by_epoch_need_its_length():
    tree = TreeRegulariser(tiny.Adapters(2, 3), Options(**PRESETS["released"]))
    with pytest.raises(ValueError, match="start_task.steps_per_epoch"):
        tree.start_task()


@pytest.mark.parametrize("n_tasks", [0, 2])
def test_each_task_is_started_before_its_penalties_and_its_end(n_tasks):
    _, tree = fed(n_tasks)
    with pytest.raises(RuntimeError, match="before start_task"):
        tree.penalty(torch.ones(()))
    with pytest.raises(RuntimeError, match="before start_task"):
        tree.end_task()
    assert len(tree.members) == n_tasks


def test_frozen_adapters_are_not_taken_for_those_that_are_trained():
    model, tree = fed(1)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(RuntimeError, match="are frozen"):
        tree.start_task()


def test_what_is_not_finite_is_not_stored():
    model, tree = fed(1)
    tree.start_task()
    model.fill(torch.full((3, 4), torch.nan))
    with pytest.raises(ValueError, match="not finite"):
        tree.end_task()
    assert len(tree.members) == 1


def test_a_gradient_signature_needs_a_step():
    tree = TreeRegulariser(tiny.Adapters(2, 3), Options(signature="gradient"))
    tree.start_task()
    with pytest.raises(RuntimeError, match="before any step"):
        tree.end_task()
