"""Variants beside their base, the trees' agreement with planted groups, and their exhibits."""

import hashlib
import random

import fake_records as fake
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from analysis import exhibits, figures, tables, trees
from analysis.runs import MOST_DRAWN, read_suite


def changed(run: dict, label: str, config=None, train=None, gain=0.0) -> dict:
    """The same run under another label and with other settings, and better by `gain`."""
    spec = run["spec"]
    method = spec["method"] | {"label": label}
    method["config"] = method["config"] | (config or {})
    R = [[s if s is None else min(1.0, s + gain) for s in row] for row in run["R"]]
    key = hashlib.sha256(f"{label}{spec['seed']}".encode()).hexdigest()[:12]
    more = {"method": method, "train": spec["train"] | (train or {})}
    return run | {"spec": spec | more, "R": R, "key": key}


def grown(n: int, seed: int = 0) -> dict:
    """A random binary tree over n tasks."""

    def grow(tasks):
        middle = len(tasks) // 2
        parts = (tasks[:middle], tasks[middle:]) if len(tasks) > 1 else ()
        return {"tasks": sorted(tasks), "threshold": 0.1, "children": [grow(p) for p in parts]}

    return grow(random.Random(seed).sample(range(n), n))


@pytest.fixture
def panel(tmp_path):
    records = fake.suite(("glyphs",), ("seqlora", "olora", "treelora"), seeds=2)
    for run in [r for r in records if r["spec"]["method"]["name"] == "treelora"]:
        run["diagnostics"] = {"trees": [grown(n) for n in range(1, 11)], "pulls": []}
        epochs = {"epochs": [1] * 10}
        records += [
            changed(run, "treelora-strong", {"strength": 0.5}, gain=0.02),
            changed(run, "treelora-short", train=epochs, gain=-0.01),
            changed(run, "treelora-short-strong", {"strength": 0.5}, epochs),
            changed(run, "treelora-curve", train={"curve_tests": 4})
            | {"test_curve": [{"task": 1, "samples": s, "score": s / 100} for s in (0, 50)]},
        ]
    (own,) = read_suite(fake.write(tmp_path / "runs.jsonl", records)).panels
    return own


def test_variants_stand_by_what_they_change_with_their_paired_difference(panel):
    table = tables.ablations(panel)
    shown = [(row["method"], row["changed"], row["value"]) for row in table.rows]
    assert shown == [
        ("treelora-short", "epochs", "1"),
        ("treelora-strong", "strength", "0.5"),
        ("treelora-short-strong", "epochs, strength", "1, 0.5"),
    ]
    deltas = [row["delta"].mean for row in table.rows]
    assert deltas == pytest.approx([-0.01, 0.02, 0], abs=1e-9)


def test_speed_is_time_per_step_times_steps(panel):
    rows = {row["method"]: row for row in tables.speed(panel).rows}
    assert rows["treelora-short"]["epochs"] == "1" and "treelora-strong" not in rows
    for row in rows.values():
        product = row["step_ratio"].mean * row["steps_ratio"].mean
        assert row["time_ratio"].mean == pytest.approx(product, rel=0.01)
    assert rows["seqlora"]["time_ratio"].mean == 1


def test_every_figure_and_file_that_was_announced_is_made(panel, tmp_path):
    specs = [record["spec"] for record in panel.runs["record"]]
    made = {str(path.relative_to(tmp_path)) for path in exhibits.make(panel.suite, tmp_path)}
    assert made == set(exhibits.files(specs))
    assert {f"figures/{name}-glyphs.svg" for name in ("fig1", "trees", "sensitivity")} <= made


def test_a_panel_without_variants_has_none_of_their_exhibits():
    specs = [r["spec"] for r in fake.suite(("glyphs",), ("seqlora", "ewc"), seeds=1)]
    names = exhibits.files(specs)
    assert not [n for n in names if any(x in n for x in ("ablations", "sensitivity", "fig1"))]


def test_a_crowded_panel_draws_no_variants(panel, tmp_path):
    (run,) = (r for r in panel.runs["record"] if r["key"] == panel.runs["key"].iloc[0])
    many = [changed(run, f"olora-{i}", {"rank": i}) for i in range(MOST_DRAWN)]
    (crowded,) = read_suite(fake.write(tmp_path / "many.jsonl", [run, *many])).panels
    assert set(crowded.drawn) == {run["spec"]["method"]["label"]}
    foot = [text.get_text() for text in figures.fig4a(crowded).texts]
    assert any("12 variants of these methods" in " ".join(text.split()) for text in foot)
    assert len(panel.drawn) == len(panel.finished)


labels = st.lists(st.integers(0, 4), min_size=2, max_size=12)


@given(labels, st.randoms(use_true_random=False))
def test_the_adjusted_rand_index_is_scikit_learns(one, shuffle):
    other = shuffle.choices(range(4), k=len(one))
    found = trees.adjusted_rand(one, other)
    if found == found:  # not defined where all items are together, or all apart, in both
        assert found == pytest.approx(adjusted_rand_score(one, other), abs=1e-12)


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 99))
def test_a_cut_is_a_partition_of_about_as_many_clusters(n, wanted, seed):
    tree = grown(n, seed)
    clusters = trees.cut(tree, wanted)
    assert len(clusters) == n
    sizes = [len(nodes) for nodes in trees.ranks(tree)]
    assert abs(len(set(clusters)) - wanted) == min(abs(size - wanted) for size in sizes)


def test_a_tree_of_the_planted_groups_agrees_and_its_pulls_are_counted():
    groups = ["a", "b", "a", "b"]

    def node(*tasks, children=()):
        return {"tasks": list(tasks), "threshold": 0, "children": list(children)}

    pairs = [node(0, 2, children=[node(0), node(2)]), node(1, 3, children=[node(1), node(3)])]
    run = {
        "stream": {"groups": groups},
        "diagnostics": {
            "trees": [node(0, 1, 2, 3, children=pairs)],
            "pulls": [[], [[5]], [[8], [2]], [[1], [6], [3]]],
        },
    }
    found = trees.agreement(run)
    assert found.index == 1 and found.by_order == pytest.approx(-0.5)
    assert found.same_group == pytest.approx((8 + 6) / 20)
    assert found.same_group_by_chance == pytest.approx((10 / 2 + 10 / 3) / 20)
    assert found.p == pytest.approx(1 / 3, abs=0.05)  # of the three ways to pair four tasks


def test_without_groups_there_is_nothing_to_agree_with():
    run = {"stream": {"groups": ["", ""]}, "diagnostics": {"trees": [grown(2)]}}
    assert trees.agreement(run) is None
