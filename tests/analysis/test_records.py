"""Records: what is read and refused, the frame of runs, metrics, and trees over tasks."""

import gzip
import hashlib
import json
import lzma

import numpy as np
import pandas as pd
import pytest
from fake_records import (
    SMALL,
    grown,
    panel_of,
    record,
    seeds,
    set_paths,
    suite,
    suite_of,
    with_gaps,
    with_tasks,
    write,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from analysis.errors import DataError
from analysis.records import language, metrics, reading, trees
from analysis.records.reading import read
from analysis.records.runs import frame, load, read_suite, slugs
from analysis.records.trees import agreement
from analysis.records.variants import counterparts, find, plain, sweep, variants
from analysis.text import pathless, quoted, suggest, visible

NAN = float("nan")

R = np.array([[0.9, NAN, NAN], [0.6, 0.5, NAN], [0.3, 0.7, 0.8]])

ONLY_LAST = np.array([[NAN, NAN], [0.6, 0.8]])
FINAL = np.array([[0.9, NAN, NAN], [NAN, 0.5, NAN], [0.3, 0.7, 0.8]])


def test_metrics_by_hand():
    assert metrics.acc(R) == pytest.approx((0.3 + 0.7 + 0.8) / 3)
    assert metrics.bwt_paper(R) == pytest.approx((0.6 - 0.2 + 0) / 3)
    assert metrics.bwt_released(R) == pytest.approx((-0.6 + 0 + 0) / 3)
    assert metrics.bwt_standard(R) == pytest.approx((-0.6 + 0.2) / 2)
    assert metrics.forgetting(R) == pytest.approx((0.6 - 0.2) / 2)
    assert metrics.learning_accuracy(R) == pytest.approx((0.9 + 0.5 + 0.8) / 3)
    assert metrics.running_accuracy(R) == pytest.approx([0.9, 0.55, 0.6])
    assert metrics.incremental_accuracy(R) == pytest.approx((0.9 + 0.55 + 0.6) / 3)


def test_after_a_larger_first_task_incremental_accuracy_is_that_over_all_classes_seen():
    whole = record()
    whole["R"] = [[0.9, None, None], [0.6, 0.5, None], [0.3, 0.7, 0.8]]
    whole["tasks"] = [whole["tasks"][0] | {"n_test": n} for n in (60, 20, 20)]
    alike = metrics.measure(whole)
    whole["spec"]["stream"]["first_task_classes"] = 3
    weighted = metrics.measure(whole)
    assert alike["incremental_accuracy"] == pytest.approx((0.9 + 0.55 + 0.6) / 3)
    assert weighted["incremental_accuracy"] == pytest.approx((0.9 + 0.575 + 0.48) / 3)
    assert weighted["acc"] == alike["acc"]


def test_forgetting_counts_from_the_best_score_not_from_the_first():
    later_best = np.array([[0.5, NAN, NAN], [0.9, 0.5, NAN], [0.4, 0.5, 0.8]])
    assert metrics.forgetting(later_best) == pytest.approx(0.5 / 2)
    assert metrics.bwt_standard(later_best) == pytest.approx(-0.1 / 2)


def test_what_was_not_measured_is_not_zero():
    assert metrics.acc(ONLY_LAST) == pytest.approx(0.7)
    for metric in metrics.SCORES[1:]:
        assert np.isnan(metric(ONLY_LAST)), metric.__name__
    assert metrics.running_accuracy(ONLY_LAST) == pytest.approx([NAN, 0.7], nan_ok=True)
    one_task = np.array([[0.4]])
    assert np.isnan([metrics.bwt_standard(one_task), metrics.forgetting(one_task)]).all()
    assert metrics.bwt_paper(one_task) == 0


def test_of_the_diagonal_and_the_last_row_only_what_needs_no_other_score_is_defined():
    undefined = {score for score in metrics.SCORES if np.isnan(score(FINAL))}
    assert undefined == {metrics.incremental_accuracy, metrics.forgetting}
    assert all(score(FINAL) == score(R) for score in metrics.SCORES if score not in undefined)


def test_a_matrix_with_gaps_is_read_where_its_run_asked_for_no_more(tmp_path):
    run = with_gaps(record())
    assert np.isnan(panel_of(tmp_path, [run]).runs["forgetting"]).all()
    undone = set_paths(run, spec__train__evaluate=None)
    with pytest.raises(DataError, match="lower triangle"):
        panel_of(tmp_path, [undone])
    run["R"][4][4] = None
    with pytest.raises(DataError, match="evaluate: final the diagonal"):
        panel_of(tmp_path, [run])


def test_costs():
    entry = record(method="ewc")
    values = metrics.measure(entry)
    train = sum(task["train_seconds"] for task in entry["tasks"])
    consolidate = sum(task["consolidate_seconds"] for task in entry["tasks"])
    assert values["time_seconds"] == pytest.approx(train + consolidate)
    assert values["ms_per_step"] == pytest.approx(1000 * train / 1500)
    assert values["samples_per_second"] == pytest.approx(48_000 / (train + consolidate))
    assert values["eval_seconds"] == pytest.approx(8.0)
    entry["tasks"][0] |= {"peak_bytes": None, "train_seconds": None}
    values = metrics.measure(entry)
    assert np.isnan([values["time_seconds"], values["ms_per_step"]]).all()
    assert values["peak_bytes"] == 731_906_048


def test_spread_and_interval():
    runs = {"method": ["a", "a", "a", "b", "b", "c"], "acc": [0.5, 1.0, 1.5, 2.0, NAN, NAN]}
    found = metrics.estimate(pd.DataFrame(runs), "method")
    half = 4.302653 * 0.5 / 3**0.5  # the quantile from a printed table
    assert found["a"]["acc"] == pytest.approx((1.0, 0.5, 1 - half, 1 + half))
    assert found["b"]["acc"] == pytest.approx((2.0, NAN, NAN, NAN), nan_ok=True)
    assert np.isnan(found["c"]["acc"]).all()


def test_load_gives_a_row_per_run_in_the_order_shown(tmp_path):
    at_once = [set_paths(run, spec__method__label="at-once") for run in SMALL[4:]]
    source = write(tmp_path / "runs.jsonl", [*SMALL[:4], *at_once][::-1])
    other = write(tmp_path / "other.jsonl", suite(("docs",), ("zeta", "ewc"), 1, suite="other"))
    runs = load(source, str(other))
    assert list(runs["method"]) == [
        *("seqlora", "seqlora", "treelora", "treelora", "at-once", "at-once", "ewc", "zeta")
    ]
    assert list(runs["seed"][:6]) == [0, 1, 0, 1, 0, 1] and runs.index.is_unique
    assert list(runs["upper_bound"][:6]) == [False] * 4 + [True] * 2
    means = runs.groupby("method")["acc"].mean()
    assert means["treelora"] == pytest.approx(0.725) and runs["R"][0].shape == (2, 2)
    finished, broken = runs.loc[4], runs.loc[5]
    took = finished["finished"] - finished["started"]
    assert took.total_seconds() == 600 and finished["started"].tzinfo is not None
    assert finished["acc"] == pytest.approx(0.9) and np.isnan(broken["acc"])
    assert broken["error"] == "out of memory" and broken["record"] == at_once[1]


def test_panels_part_streams_backbones_and_limits(tmp_path):
    wide = [set_paths(record(seed=1), spec__backbone__name="vit-wide")]
    short = [set_paths(record(seed=2), spec__stream__train_per_class=5)]
    found = suite_of(tmp_path, [record(), record("docs"), *wide, *short])
    assert {panel.slug: len(panel.runs) for panel in found.panels} == {
        "glyphs-vit-micro-glyphs": 1,
        "glyphs-vit-micro-glyphs-2": 1,
        "glyphs-vit-wide": 1,
        "docs": 1,
    }


def test_what_does_not_print_becomes_an_escape():
    assert visible("a\x1b[31m\x00\ud800\u202eb") == "a\\x1b[31m\\x00\\ud800\\u202eb"
    assert visible("one\ntwo\tthree") == "one two three"
    for text in (
        "$5 日本語 русский العربية 👩\u200d🔬",
        "cafe\u0301 caf\u00e9",
        "narrow\u202fblank",
    ):
        assert visible(text) == text


def test_a_value_is_quoted_on_one_line_and_short_whatever_it_stands_for():
    assert quoted("a\x1b\u202e\n") == r"'a\x1b\u202e\n'"
    shared = ["x" * 10**6] * 10
    for value in ("y" * 10**6, [[[shared] * 10**4]], {n: shared for n in range(10**4)}, 10**300):
        assert len(quoted(value)) <= 200


def test_of_an_absolute_path_the_last_part_is_shown():
    said = "/srv/me/data/x.csv has no 'a' (/a/loop.py:31); see a/b, s/step, https://x.org/y/z"
    assert pathless(said) == "x.csv has no 'a' (loop.py:31); see a/b, s/step, https://x.org/y/z"
    assert pathless(r"C:\me\data.csv, ~/y, /") == "data.csv, y, /"


def test_a_near_name_is_suggested_else_the_known_ones_are_listed():
    assert suggest("treelroa", ["seqlora", "treelora"]) == "did you mean 'treelora'?"
    assert suggest("xyz", ["seqlora", "treelora"]) == "there are seqlora, treelora"
    assert suggest("xyz", []) == "there are none"
    assert suggest("x", map(str, range(10, 1000))).endswith("950 more")


LEAF = {"tasks": [0], "children": []}


def with_text(old, new):
    """The first line with another text, which JSON does not give."""
    return lambda lines: [lines[0].replace(old, new, 1), *lines[1:]]


def larger(lines):
    """The second run, with another number of tasks."""
    entry = json.loads(lines[1])
    entry["stream"] = {"tasks": ["a", "b", "c"], "groups": ["x"] * 3}
    entry |= {"R": [[0.5] * 3] * 3, "tasks": entry["tasks"][:1] * 3}
    return [lines[0], json.dumps(entry)]


def with_nan(lines):
    return [lines[0].replace('"last_loss": 0.4', '"last_loss": NaN', 1), *lines[1:]]


def edited(**changes):
    return lambda lines: [json.dumps(set_paths(json.loads(lines[0]), **changes)), *lines[1:]]


def without(key):
    def remove(lines):
        entry = json.loads(lines[1])
        del entry[key]
        return [lines[0], json.dumps(entry)]

    return remove


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lines: [], "holds no record"),
        (lambda lines: [lines[0], lines[1][:200]], "line 2: corrupt or truncated"),
        (with_nan, "line 1: corrupt or truncated"),
        (lambda lines: [lines[0], "[1, 2]"], "line 2: not a result record"),
        (lambda lines: [lines[0], ""], "line 2: corrupt or truncated"),
        (lambda lines: [*lines, lines[0]], "line 3: seqlora with seed 0"),
        (edited(schema=2), "schema 2"),
        (edited(status="ok"), "status must be"),
        (edited(suite__name="other"), "belongs to the suite 'demo', but the file began"),
        (edited(spec__method={"name": "ewc"}), "lacks spec.method.label"),
        (edited(R=[[0.5, None]]), "R must be"),
        (edited(R=[[0.5], [0.5, 0.5]]), "R must be"),
        (edited(R=[[0.5, None], [0.5, None]]), "lower triangle"),
        (
            edited(
                stream__tasks=["a", "b", "c"],
                R=[[0.5, None, None], [None, 0.5, None], [0.5, 0.5, 0.5]],
            ),
            "lower triangle",
        ),
        (edited(R=[[0.5, None], [0.5, 50.0]]), "R holds 50"),
        (edited(tasks=[{"name": "greek"}]), "lacks tasks[0].steps"),
        (without("spec"), "lacks spec"),
        (without("tasks"), "lacks tasks"),
        (with_text('"seed": 0', '"seed": 0, "seed": 1'), "the key 'seed' stands twice"),
        (with_text('"last_loss": 0.4', '"last_loss": 1e999'), "a number is not finite"),
        (with_text('"last_loss": 0.4', '"last_loss": NaN'), "a number is not finite"),
        (with_text('"last_loss": 0.4', f'"last_loss": {2**63}'), "more than 64 bits"),
        (with_text('"last_loss": 0.4', f'"last_loss": {"9" * 5000}'), "line 1: corrupt"),
        (with_text('"last_loss": 0.4', f'"last_loss": {"[" * 200}{"]" * 200}'), "too deeply"),
        (with_text('"last_loss": 0.4', f'"last_loss": {"[" * 10**5}'), "too deeply"),
        (edited(spec__seed="0"), "spec.seed must be"),
        (edited(spec__seed=True), "spec.seed must be"),
        (edited(spec__seed=0.5), "spec.seed must be"),
        (edited(spec__modality="sound"), "spec.modality must be"),
        (edited(spec__method__label=["a"]), "spec.method.label must be"),
        (edited(spec__method__config=[1]), "spec.method.config must be"),
        (edited(spec__train__epochs=[-1]), "spec.train.epochs[0] must be"),
        (edited(stream__tasks=["a", 5]), "stream.tasks[1] must be"),
        (edited(stream__groups=["a"]), "2 tasks have 1 groups"),
        (edited(tasks={}), "tasks must be"),
        (edited(R={"a": 1}), "R must be"),
        (edited(R=[["0.5", None], [0.5, 0.5]]), "R holds '0.5'"),
        (edited(R=[[0.5, None], [0.5, True]]), "R holds True"),
        (edited(footprint={"state_bytes": -1}), "footprint.state_bytes must be"),
        (edited(error={"a": 1}), "error must be"),
        (edited(provenance__threads="two"), "provenance.threads must be"),
        (edited(provenance__runs_per_gpu="two"), "provenance.runs_per_gpu must be"),
        (edited(provenance__started="yesterday"), "provenance.started must be a time of ISO 8601"),
        (edited(provenance__finished="2026-01-02T00:00:00"), "provenance.finished must be a time"),
        (edited(test_curve=[{"task": 0}]), "lacks test_curve[0].samples"),
        (
            edited(test_curve=[{"task": 7, "samples": 1, "score": 0.1}]),
            "test_curve has the task 7",
        ),
        (
            edited(diagnostics={"trees": [{"tasks": [0]}] * 2}),
            "diagnostics.trees[0] must be",
        ),
        (edited(diagnostics={"trees": [LEAF]}), "there must be"),
        (
            edited(diagnostics={"pulls": [[[-1]]]}),
            "diagnostics.pulls[0][0][0] must be",
        ),
        (edited(diagnostics={"pulls": [3]}), "diagnostics.pulls[0] must be"),
        (edited(tasks=[]), "one for all"),
        (edited(suite__name="../x"), "suite.name must be"),
        (edited(spec__backbone__name="a\\b"), "spec.backbone.name must be"),
        (edited(spec__stream__name="javascript:alert(1)//"), "spec.stream.name must be"),
        (edited(spec__stream__name="x/../../y"), "spec.stream.name must be"),
        (edited(spec__stream__name=".."), "spec.stream.name must be"),
        (edited(spec__stream__name=""), "spec.stream.name must be"),
        (edited(spec__stream__name="a\x1bb"), "spec.stream.name must be"),
        (edited(spec__stream__name="x" * 300), "spec.stream.name must be"),
        (larger, "has 3 tasks"),
    ],
)
def test_bad_records_are_refused(tmp_path, spoil, said):
    source = write(tmp_path / "runs.jsonl", SMALL[:2])
    source.write_text("".join(f"{line}\n" for line in spoil(source.read_text().splitlines())))
    with pytest.raises(DataError) as error:
        read(source)
    assert said in str(error.value) and str(source) in str(error.value)
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize("packing", [gzip, lzma])
def test_packed_records_are_read_unless_they_are_damaged(tmp_path, packing, monkeypatch):
    ending = {gzip: "gz", lzma: "xz"}[packing]
    plain, packed = write(tmp_path / "runs.jsonl", SMALL), tmp_path / f"demo.runs.jsonl.{ending}"
    content = packing.compress(plain.read_bytes())
    packed.write_bytes(content)
    assert read(packed)[0] == read(plain)[0]
    for damaged in (content[:-9], content[:40] + b"?" + content[41:], plain.read_bytes(), b""):
        packed.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{packed} (is damaged|holds no record)"):
            read(packed)
    packed.write_bytes(content)
    monkeypatch.setattr(reading, "MOST_BYTES", 1000)
    with pytest.raises(DataError, match="is damaged .more than 1,000 bytes unpacked"):
        read(packed)


def test_a_record_with_the_loss_curve_of_older_versions_is_read(tmp_path):
    curve = [{"task": 0, "samples": 320, "loss": 1.2}]
    old, new = (
        frame(read(write(tmp_path / "runs.jsonl", [run]))[0])
        for run in (SMALL[0] | {"curve": curve}, SMALL[0])
    )
    assert old.drop(columns=["R", "record"]).equals(new.drop(columns=["R", "record"]))


def test_what_is_read_is_one_line_of_text(tmp_path):
    run = set_paths(record(), suite__label="two\nlines", spec__method__config={"a\x00": "\udc80"})
    (entry,), _ = read(write(tmp_path / "runs.jsonl", [run]))
    assert entry["suite"]["label"] == "two lines"
    assert entry["spec"]["method"]["config"] == {"a\\x00": "\\udc80"}


def test_long_names_make_file_names_that_can_be_written():
    specs = [record()["spec"], set_paths(record(), spec__backbone__name="b" * 200)["spec"]]
    specs.append(set_paths(record(), spec__backbone__name="b" * 199 + "c")["spec"])
    found = slugs(specs)
    assert len(set(found)) == 3 and all(len(slug.encode()) < 160 for slug in found)


def test_published_files_must_have_their_digest(tmp_path):
    source = write(tmp_path / "demo.jsonl", SMALL)
    sums, digest = tmp_path / "SHA256SUMS", hashlib.sha256(source.read_bytes()).hexdigest()
    sums.write_text(f"{digest}  demo.jsonl\n")
    assert read_suite(source).digest == digest
    sums.write_text(f"{'0' * 64}  demo.jsonl\n")
    with pytest.raises(DataError, match="changed after it was published"):
        read_suite(source)
    sums.write_text(f"{digest}  other.jsonl\n")
    with pytest.raises(DataError, match="is not listed in"):
        read_suite(source)


def test_a_tree_without_a_search_has_no_pulls():
    leaves = [{"tasks": [n], "children": []} for n in range(10)]
    grown = [{"tasks": list(range(n)), "children": leaves[:n]} for n in range(1, 11)]
    run = record() | {"diagnostics": {"trees": grown, "pulls": [[]] * 10}}
    found = agreement(run)
    assert np.isnan(found.same_group) and not np.isnan(found.index)
    run["diagnostics"]["pulls"] = [[[1]] * n for n in range(10)]
    assert agreement(run).same_group > 0


labels = st.lists(st.integers(0, 4), min_size=2, max_size=12)


@settings(deadline=None)
@given(labels, st.randoms(use_true_random=False))
def test_the_adjusted_rand_index_is_scikit_learns(one, shuffle):
    other = shuffle.choices(range(4), k=len(one))
    found = trees.adjusted_rand(one, other)
    counts = {len(set(one)), len(set(other))}
    if counts in ({1}, {len(one)}):
        assert found != found  # not defined where all items are together, or all apart, in both
    else:
        assert found == pytest.approx(adjusted_rand_score(one, other), abs=1e-12)


@settings(deadline=None)
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


def test_the_noise_of_the_test_items():
    """By hand: (0.5^2 / 100 + 0.2 * 0.8 / 50)^0.5 / 2, without the graded task 0.5 / 10 / 2."""
    run = with_tasks(record("docs", "seqlora"))
    high = (0.25 / 100 + 0.16 / 50) ** 0.5 / 2

    class Panel:
        done = frame([run])

    assert language.standard_error(Panel) == pytest.approx((0.025, high))

    del run["tasks"][0]["n_test"]  # nobody says how many
    Panel.done = frame([run])
    assert language.standard_error(Panel) is None


def test_variants_are_told_by_their_settings(tmp_path):
    records = [
        *seeds("treelora", 0.5),
        *seeds("strong", 0.5, method="treelora", config={"strength": 0.5}),
        *seeds("dice", 0.5, method="treelora", config={"search": "random"}),
        *seeds("both", 0.5, method="treelora", config={"search": "random", "strength": 0.5}),
        *seeds("long", 0.5, method="treelora", train={"epochs": 5}),
    ]
    panel = panel_of(tmp_path, records)
    assert variants(panel, "treelora")["both"] == {"search": "random", "strength": 0.5}
    assert find(panel, "treelora", {"epochs": 5}) == "long"
    assert find(panel, "treelora", {"epochs": 6}) is None
    assert sweep(panel, "treelora", "strength") == {0.1: "treelora", 0.5: "strong"}
    assert set(counterparts(panel, "treelora", {"search": "random"})) == {
        ("dice", "treelora"),
        ("both", "strong"),
    }
    assert variants(panel, "ewc") == {}


def test_a_setting_may_hold_settings():
    assert plain([[1, 2], [1, 2]]) == (1, 2) and plain([[1], [2]]) == (1, 2)
    assert hash(plain({"b": [1, {"a": 2}], "a": None})) is not None
    assert plain([3, 3]) == 3 and plain([]) == () and plain("x") == "x"
