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
    (row, *_), *_ = table.grid()
    assert [cell.text for cell in row] == [
        *("treelora-short", "epochs", "1", "6", "2", "57.64 ± 0.69", "−1.00 [−1.00, −1.00]"),
        *("30.77 ± 2.40", "51.1 ± 0.6", "32.8 ± 0.4"),
    ]
    assert [row["base"] for row in table.rows[1:]] == ["0.1", "6, 0.1"]


def test_speed_is_time_per_step_times_steps(panel):
    rows = {row["method"]: row for row in tables.speed(panel).rows}
    assert rows["treelora-short"]["epochs"] == "1" and "treelora-strong" not in rows
    for row in rows.values():
        product = row["step_ratio"].mean * row["steps_ratio"].mean
        assert row["time_ratio"].mean == pytest.approx(product, rel=0.01)
    assert rows["seqlora"]["time_ratio"].mean == 1


def test_epochs_may_differ_by_task(tmp_path):
    base, other = fake.record("docs"), fake.record("docs")
    base["spec"]["train"]["epochs"] = [2, 1, 3, 2, 1, 2, 2, 3]
    records = [
        base,
        changed(other, "treelora-even"),
        changed(base, "treelora-0.5", {"strength": 0.5}),
    ]
    own = read_suite(fake.write(tmp_path / "runs.jsonl", records))
    (panel,) = own.panels
    assert [row["value"] for row in tables.ablations(panel).rows] == ["6", "0.5"]
    assert [row["epochs"] for row in tables.speed(panel).rows] == ["2 1 3 2 1 2 2 3", "6"]
    assert set(figures._swept(panel)) == {"strength"}
    assert exhibits.make(own, tmp_path)


def test_settings_that_were_varied_alone_are_swept_with_no_limit_last(panel, tmp_path):
    assert figures._swept(panel) == {
        "epochs": {"treelora": {1: "treelora-short", 6: "treelora"}},
        "strength": {"treelora": {0.1: "treelora", 0.5: "treelora-strong"}},
    }
    base = changed(fake.record(), "treelora", {"layers": None})
    records = [base, changed(base, "treelora-layers-2", {"layers": 2})]
    (own,) = read_suite(fake.write(tmp_path / "limits.jsonl", records)).panels
    assert list(figures._swept(own)["layers"]["treelora"]) == [2, float("inf")]
    (axes,) = figures.sensitivity(own).axes[0].child_axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["2", "no limit"]


def test_a_learning_curve_is_the_mean_over_later_tasks_where_all_were_tested(panel):
    points = [(0, 0, 0.9), (1, 0, 0.1), (2, 0, 0.3), (1, 50, 0.5), (2, 50, 0.7), (1, 60, 0.8)]
    run = {"test_curve": [dict(zip(("task", "samples", "score"), p, strict=True)) for p in points]}
    runs = panel.finished["treelora"].iloc[:1].assign(record=[run])
    curve = figures._learning_curves(runs)
    assert curve[0].to_dict() == pytest.approx({0: 0.2, 50: 0.6})
    assert figures._learning_curves(panel.finished["treelora"]).empty


def test_figures_without_their_data_say_so(tmp_path):
    (panel,) = read_suite(fake.write(tmp_path / "runs.jsonl", [fake.record()])).panels
    said = {
        "sensitivity": "No run differs from its base in a numeric setting alone.",
        "fig1": "No finished run was tested while it learnt.",
        "trees": "No finished run has a tree.",
    }
    for name, text in said.items():
        figure = getattr(figures, name)(panel)
        assert [t.get_text() for t in figure.axes[0].texts] == [text]


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
    alone = [changed(fake.record(method="ewc"), "ewc-mild"), fake.record(method="joint")]
    alone += [changed(alone[1], "at-once")]
    (crowded,) = read_suite(fake.write(tmp_path / "alone.jsonl", [run, *many, *alone])).panels
    assert set(crowded.drawn) == {run["spec"]["method"]["label"], "ewc-mild", "joint", "at-once"}


labels = st.lists(st.integers(0, 4), min_size=2, max_size=12)


@given(labels, st.randoms(use_true_random=False))
def test_the_adjusted_rand_index_is_scikit_learns(one, shuffle):
    other = shuffle.choices(range(4), k=len(one))
    found = trees.adjusted_rand(one, other)
    counts = {len(set(one)), len(set(other))}
    if counts in ({1}, {len(one)}):
        assert found != found  # not defined where all items are together, or all apart, in both
    else:
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

    two = node(0, 1, children=[node(0), node(1)])
    three = node(0, 1, 2, children=[node(0, 2, children=[node(0), node(2)]), node(1)])
    pairs = [node(0, 2, children=[node(0), node(2)]), node(1, 3, children=[node(1), node(3)])]
    run = {
        "stream": {"groups": groups},
        "diagnostics": {
            "trees": [node(0), two, three, node(0, 1, 2, 3, children=pairs)],
            "pulls": [[], [[5]], [[8], [2]], [[1], [6], [3]]],
        },
    }
    found = trees.agreement(run)
    assert found.index == 1 and found.by_order == pytest.approx(-0.5)
    assert found.same_group == pytest.approx((8 + 6) / 20)
    assert found.same_group_by_chance == pytest.approx((10 / 2 + 10 / 3) / 20)
    assert found.p == pytest.approx(1 / 3, abs=0.05)  # of the three ways to pair four tasks
    assert found.clusters == 2 and found.chance == pytest.approx(0, abs=0.05)


def test_merged_tasks_are_one_arm():
    def leaf(*tasks):
        return {"tasks": list(tasks), "children": []}

    grown = [leaf(0), leaf(0, 1), leaf(0, 1, 2)]
    grown.append({"tasks": [0, 1, 2, 3], "children": [leaf(0, 1, 2), leaf(3)]})
    pulls = [[], [[0]], [[0], [0]], [[0], [0], [0]], [[1, 3], [1, 3], [1, 3], [4, 4]]]
    found = trees._same_group(pulls, grown, ["a", "b", "b", "b", "a"])
    # Of twelve pulls four chose the leaf of which a third is of the group.
    assert found == pytest.approx((4 / 3 / 12, 1 / 3 / 2))


def test_without_groups_there_is_nothing_to_agree_with():
    run = {"stream": {"groups": ["", ""]}, "diagnostics": {"trees": [grown(2)]}}
    assert trees.agreement(run) is None
