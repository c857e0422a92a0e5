"""Properties of the tree, the search and the penalty."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from treelora import Node, Signature, TreeRegulariser, TreeSearch, adapted_parameters, build_tree

signatures = st.builds(
    lambda n, levels, width, seed, repeats: torch.randint(
        0, repeats, (n, levels * width), generator=torch.Generator().manual_seed(seed)
    ).float(),
    st.integers(1, 9),
    st.just(3),
    st.just(4),
    st.integers(0, 10**6),
    st.sampled_from([1, 2, 100]),  # 1 makes all tasks equal, 2 many of them
)
LENGTHS = torch.tensor([4, 4, 4])


def depth(node: Node) -> int:
    return 1 + max((depth(child) for child in node.children), default=0)


@given(signatures)
@settings(deadline=None, max_examples=60)
def test_leaves_partition_the_tasks_within_the_depth_bound(rows):
    tree = build_tree(rows, LENGTHS)
    leaves = [node for node in tree.walk() if not node.children]
    assert sorted(t for leaf in leaves for t in leaf.tasks) == list(range(len(rows)))
    assert all(len(leaf.tasks) == 1 for leaf in leaves)
    assert depth(tree) <= len(LENGTHS) + 2
    for node in tree.walk():
        if node.children:
            assert sorted(t for c in node.children for t in c.tasks) == list(node.tasks)
    assert Node.from_dict(json.loads(json.dumps(tree.to_dict()))) == tree


def test_tasks_split_at_the_median_distance_of_their_level():
    rows = torch.tensor([[0.0, 9], [0, 1], [10, 9], [1, 1]])  # level 0 looks at column 0
    tree = build_tree(rows, torch.tensor([1, 1]))
    mean = 11 / 4
    distances = sorted(abs(v - mean) for v in (0, 0, 10, 1))
    assert tree.threshold == pytest.approx(distances[1])
    assert tree.children[0].tasks == (0, 1, 3) and tree.children[1].tasks == (2,)


def test_each_node_is_within_its_parents_threshold_of_the_mean():
    rows = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    tree = build_tree(rows, torch.tensor([2, 2, 2]))
    level = rows[:, :2]
    distance = (level - level.mean(0)).abs().mean(1)
    near, far = tree.children
    assert (distance[list(near.tasks)] <= tree.threshold + 1e-7).all()
    assert (distance[list(far.tasks)] > tree.threshold).all()


def flat(n: int) -> Node:
    return Node(tuple(range(n)), 0.0, tuple(Node((t,)) for t in range(n)))


def test_every_arm_is_tried_before_one_is_repeated():
    search = TreeSearch(flat(5), n_levels=1)
    first = []
    for _ in range(5):
        chosen = search.choose()
        search.observe(chosen, torch.ones(1))
        first.append(chosen.item())
    assert sorted(first) == list(range(5))


def test_bounds_equal_equation_2_by_hand():
    root = Node((0, 1, 2), 0.5, (Node((0, 1), 0.25, (Node((0,)), Node((1,)))), Node((2,))))
    search = TreeSearch(root, n_levels=1)
    observed = [(0, 0.4), (1, 0.6), (2, 1.0), (0, 0.2)]
    for arm, residual in observed:
        search._step += 1
        search.observe(torch.tensor([arm]), torch.tensor([residual]))
    t, scale = torch.tensor(4.0), 1.0  # the largest residual is 1

    def own(values, delta=0.0):
        n = len(values)
        return sum(values) / n / scale - 2 * (t.log().item() / n) ** 0.5 - delta

    leaf = [own([0.4, 0.2]), own([0.6]), own([1.0])]
    inner = max(own([0.4, 0.2, 0.6], 0.25), min(leaf[:2]))
    top = max(own([0.4, 0.2, 0.6, 1.0], 0.5), min(inner, leaf[2]))
    expected = [top, inner, leaf[0], leaf[1], leaf[2]]
    torch.testing.assert_close(
        search.bounds()[:, 0], torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=1e-6
    )


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_an_arm_worse_in_mean_and_count_is_never_preferred(seed):
    generator = torch.Generator().manual_seed(seed)
    search = TreeSearch(flat(4), n_levels=2)
    search.pulls = torch.randint(1, 9, (4, 2), generator=generator).double()
    means = torch.rand(4, 2, generator=generator, dtype=torch.float64)
    search.residual_sum = means * search.pulls
    search._scale, search._step = torch.ones(2, dtype=torch.float64), 40
    chosen = search.choose()
    for level in range(2):
        arm = chosen[level]
        fewer = search.pulls[:, level] < search.pulls[arm, level]
        closer = means[:, level] < means[arm, level]
        assert not (fewer & closer).any()


def test_with_one_arm_it_is_that_arm():
    search = TreeSearch(Node((0,)), n_levels=3)
    assert search.choose().tolist() == [0, 0, 0]


def test_the_search_settles_on_the_closest_task():
    search = TreeSearch(flat(6), n_levels=1)
    distance = torch.tensor([0.9, 0.8, 0.1, 0.9, 1.0, 0.7])
    for _ in range(2000):
        chosen = search.choose()
        search.observe(chosen, distance[chosen])
    assert search.pulls[:, 0].argmax() == 2
    assert search.pulls[2, 0] > 3 * search.pulls[3, 0]


def regulariser(scale="mean", depth=None):
    method = tiny.method("treelora", "language", depth=depth, penalty_scale=scale, strength=0.3)
    for task in tiny.tasks("language", 2):
        tiny.learn(method, task)
    return method, method.regulariser


@pytest.mark.parametrize("scale", ["mean", "loss"])
def test_the_penalty_is_the_distance_to_the_chosen_task_and_its_gradient_the_sign(scale):
    method, tree = regulariser(scale)
    tree.start_task()
    chosen = tree._search.choose()
    tree.start_task()  # the same choice again, as nothing was observed
    penalty = tree.penalty(torch.tensor(2.0))
    current = tree.signature.read().detach()
    lengths = tree.signature.lengths.tolist()
    distance, expected, start = 0.0, [], 0
    for level, length in enumerate(lengths):
        part = slice(start, start + length)
        difference = current[part] - tree.finished[chosen[level], part]
        distance += difference.abs().mean()
        expected.append(difference.sign() / length)
        start += length
    factor = 0.3 if scale == "mean" else 0.3 * 2.0 / (distance + 1e-5)
    torch.testing.assert_close(penalty, factor * distance)
    method.model.zero_grad()
    penalty.backward()
    parameters = [p for m in adapted_parameters(method.model) for p in m]
    gradient = torch.cat([p.grad.flatten() for p in parameters])
    torch.testing.assert_close(gradient, factor * torch.cat(expected))


def test_the_penalty_reaches_only_the_first_matrices():
    method, tree = regulariser(depth=1)
    for parameter in method.model.parameters():
        parameter.grad = None
    tree.start_task()
    tree.penalty(torch.tensor(1.0)).backward()
    matrices = adapted_parameters(method.model)
    assert all(p.grad is not None for p in matrices[0])
    assert all(p.grad is None for matrix in matrices[1:] for p in matrix)


def test_depth_beyond_the_adapted_matrices_is_refused():
    with pytest.raises(ValueError, match="number of adapted matrices, 4, but is 5"):
        tiny.method("treelora", "vision", depth=5)


def test_nothing_is_pulled_while_there_is_no_other_task():
    method = tiny.method("treelora", "vision")
    method.regulariser.start_task()
    assert method.regulariser.penalty(torch.tensor(1.0)) == 0.0


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="must be one of loss, mean, not sum"):
        TreeRegulariser(Signature([]), scale="sum")


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_two_tasks_are_parted_at_once_and_keep_their_distance(seed):
    rows = torch.randn(2, 12, generator=torch.Generator().manual_seed(seed))
    tree = build_tree(rows, LENGTHS)
    half = (rows[0, :4] - rows[1, :4]).abs().mean().item() / 2
    assert [child.tasks for child in tree.children] == [(0,), (1,)]
    assert tree.threshold == pytest.approx(half, rel=1e-5)


def test_tasks_that_no_level_parts_keep_their_largest_distance():
    corners = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    tree = build_tree(corners, torch.tensor([2]))
    assert [child.tasks for child in tree.children] == [(0,), (1,), (2,), (3,)]
    assert tree.threshold == 0.5
