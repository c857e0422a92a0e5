"""Theorem 1 as an experiment: trees, searches, and the file that they lead to."""

import json
import math
import sys

import numpy as np
import pytest

from analysis.records import regret
from benchmarks.experiments import regret as module
from benchmarks.experiments.bandits import POLICIES, STRUCTURES, instance, policy, roughness
from benchmarks.experiments.regret import simulate

pytestmark = pytest.mark.slow

DELTA, NOISE = 0.8, 0.1


def trees(structure="unique", depth=4, gamma=0.5, n_runs=3):
    """Means, (n_runs, 2^depth), and gammas, (n_runs,)."""
    rngs = map(np.random.default_rng, range(n_runs))
    means = [instance(structure, depth, gamma, DELTA, NOISE, rng) for rng in rngs]
    return np.stack(means), np.full(n_runs, gamma)


def regrets(name, means, gammas, horizon=1000, **named):
    """Cumulative regret at the checkpoints, (checkpoints, R)."""
    search = policy(name, means, gammas, DELTA, horizon, **named)
    return simulate(search, means, list(range(len(means))), horizon, NOISE)


@pytest.mark.parametrize("gamma", [0.5, 0.71, 0.9])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_trees_are_smooth_where_they_say_so_and_residuals_stay_in_range(structure, gamma):
    means, _ = trees(structure, 8, gamma)
    rough = max(roughness(m, gamma, DELTA) for m in means)
    assert (rough <= 1 + 1e-9) == (structure in ("unique", "cluster"))
    assert means.min() >= NOISE - 1e-9 and means.max() <= 1 - NOISE + 1e-9
    best = (means <= NOISE + 1e-9).sum(axis=1)
    assert set(best) == {16 if structure == "cluster" else 1}


def test_shuffled_arms_are_those_of_unique_on_another_tree():
    (unique, _), (shuffled, _) = trees("unique", 6), trees("shuffled", 6)
    assert not np.array_equal(unique, shuffled)
    assert np.array_equal(np.sort(unique), np.sort(shuffled))


def test_the_oracle_has_no_regret_and_random_choice_a_linear_one():
    means, gammas = trees(n_runs=20)
    assert not regrets("oracle", means, gammas).any()
    found = regrets("random", means, gammas, 2000)[-1].mean()
    assert found == pytest.approx(2000 * (means - NOISE).mean(), rel=0.05)


def test_the_tree_finds_the_best_leaf():
    means, gammas = trees(n_runs=5)
    search = policy("tree", means, gammas, DELTA, 10_000)
    simulate(search, means, list(range(5)), 10_000, NOISE)
    leaves = search.pulls[:, search.n_arms :]
    assert np.array_equal(leaves.argmax(axis=1), means.argmin(axis=1))
    assert (leaves.max(axis=1) > 5_000).all()
    assert (search.pulls[:, 1] == 10_000).all()  # the root has seen every pull


def equation_2(search, log_t):
    """Every bound of the first run by recursion, by node."""
    n_arms, bounds = search.n_arms, {}
    for node in reversed(range(1, 2 * n_arms)):
        n, total = search.pulls[0, node], search.sums[0, node]
        own = total / n - 2 * math.sqrt(log_t / n) if n else -math.inf
        if node < n_arms:
            threshold = DELTA * 0.5 ** int(math.log2(node))
            own = max(own - threshold, min(bounds[2 * node], bounds[2 * node + 1]))
        bounds[node] = own
    return bounds


@pytest.mark.parametrize("growth", [1, math.inf])
def test_bounds_are_those_of_equation_2(growth):
    means, gammas = trees()
    search = policy("tree", means, gammas, DELTA, 100, growth)
    search.renew(50)  # with an infinite growth t stays there: paths alone must keep up
    rng = np.random.default_rng(0)
    for t in range(51, 200):
        arms = search.choose(t, rng.random((3, 3)))
        log_t = math.log(t if growth == 1 else 50)
        bounds, node = equation_2(search, log_t), 1
        assert search.bounds[0, 1:] == pytest.approx([bounds[i] for i in range(1, 32)])
        while node < 16:
            node = 2 * node + (bounds[2 * node + 1] < bounds[2 * node])
        assert arms[0] == node - 16
        search.observe(arms, means[range(3), arms] + 0.1 * rng.random(3))


@pytest.mark.parametrize("name", ["tree", "lcb_flat"])
def test_holding_log_t_for_a_while_hardly_matters(name):
    means, gammas = trees(depth=5, n_runs=20)
    exact = regrets(name, means, gammas, 1500, growth=1)[-1].mean()
    assert regrets(name, means, gammas, 1500)[-1].mean() == pytest.approx(exact, rel=0.02)


def test_the_flat_search_takes_the_smallest_of_all_leaf_bounds():
    means, gammas = trees()
    search = policy("lcb_flat", means, gammas, DELTA, 100, growth=1)
    for t in range(1, 200):
        arms = search.choose(t, np.zeros((3, 3)))
        n, total = search.pulls[:, 16:], search.sums[:, 16:]
        with np.errstate(divide="ignore", invalid="ignore"):
            bounds = np.where(n > 0, total / n - 2 * np.sqrt(math.log(t) / n), -np.inf)
        assert np.array_equal(arms, bounds.argmin(axis=1))
        search.observe(arms, means[range(3), arms])


def test_the_released_search_prefers_far_arms_and_its_opposite_near_ones():
    means, gammas = trees("unique", 4, 0.9, 20)
    far, blind, near = (
        regrets(name, means, gammas, 3000)[-1].mean()
        for name in ("released", "random", "released_near")
    )
    assert near < blind < far


@pytest.mark.parametrize("name", POLICIES)
def test_a_run_depends_on_its_seed_only(name):
    means, gammas = trees(n_runs=4)
    together = regrets(name, means, gammas, 300)
    assert np.array_equal(together, regrets(name, means, gammas, 300))
    assert np.array_equal(together[:, :2], regrets(name, means[:2], gammas[:2], 300))


def run(monkeypatch, tmp_path, *arguments):
    """The command's file, made from a small experiment."""
    path = tmp_path / "regret.json"
    small = ["--seeds", "3", "--horizon", "400", "--exponents", "2", "4", "--gammas", "0.5", "0.9"]
    monkeypatch.setattr(sys, "argv", ["regret", "--out", str(path), *small, *arguments])
    monkeypatch.setattr(module, "TIMED", 5)
    module.main()
    return path


def test_the_file_holds_all_and_can_be_read_and_repeated(monkeypatch, tmp_path):
    path = run(monkeypatch, tmp_path)
    first = regret.load(path)
    assert first.settings["reach"]["released"] == {"largest_n": 16, "horizon": 400}
    assert len(first.regret) == len(POLICIES) * 10  # families
    assert {len(by_place) for by_place in first.regret.values()} == {2 * 3}  # N, checkpoints
    assert set(first.cost["policy"]) == {"tree", "lcb_flat", "released", "random"}
    again = regret.load(run(monkeypatch, tmp_path))
    assert first.regret.keys() == again.regret.keys()
    for family, by_place in first.regret.items():
        assert by_place.keys() == again.regret[family].keys()
        assert all(np.array_equal(by_place[n], again.regret[family][n]) for n in by_place)
    assert json.loads(path.read_text())["provenance"].keys() >= {"commit", "dirty"}


@pytest.mark.parametrize(
    "wrong",
    [
        "--exponents 1",
        "--seeds 0",
        "--horizon 10",
        "--gammas 1.0",
        "--noise 0.2",
        "--out no/such/folder/file",
    ],
)
def test_bad_numbers_end_with_a_sentence(monkeypatch, tmp_path, wrong):
    with pytest.raises(SystemExit, match=wrong.split()[0]):
        run(monkeypatch, tmp_path, *wrong.split())


@pytest.mark.parametrize("structure", ["unique", "cluster"])
def test_a_smooth_tree_has_many_leaves_near_its_best(structure):
    means, _ = trees(structure, 10, 0.71)
    for d in range(10):
        near = (means <= NOISE + DELTA * 0.71**d + 1e-9).sum(axis=1)
        assert (near >= 2 ** (10 - d)).all()  # N (eta / delta)^c
