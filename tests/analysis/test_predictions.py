"""Predictions as they are read, and what a bootstrap over seeds and items makes of them."""

import gzip
import json

import numpy as np
import pytest
from fake_records import record, suite_of, write

from analysis.errors import DataError
from analysis.records import bootstrap
from analysis.records.predictions import Cell, Predictions, by_key, file_of, joined, of_record, read
from analysis.records.runs import read_suite
from analysis.tables.accuracy import differences

N_TASKS, N_ITEMS = 10, 20  # a task


def answered(run: dict, right: np.ndarray) -> Predictions:
    """The predictions of a run whose final scores by item are `right` (tasks, items).

    Its R becomes theirs.
    """
    last = N_TASKS - 1
    cells = {(last, t): Cell([7] * N_ITEMS, own) for t, own in enumerate(right.tolist())}
    run["R"][last] = [cells[last, t].score for t in range(N_TASKS)]
    items = np.arange(N_TASKS * N_ITEMS)[::-1].reshape(N_TASKS, N_ITEMS).tolist()
    return Predictions(run["key"], run["stream"]["tasks"], items, cells)


def panel_of(folder, of):
    """A panel of methods {label: [right of each seed]}."""
    pairs = [
        (run := record("glyphs", label, seed), answered(run, own))
        for label, seeds in of.items()
        for seed, own in enumerate(seeds)
    ]
    runs = write(folder / "runs.jsonl", [run for run, _ in pairs])
    file_of(runs).write_bytes(b"".join(own.pack() for _, own in pairs))
    (panel,) = read_suite(runs).panels
    return panel


def draws(seed, level=0.5):
    """Items of which this share is right."""
    return (np.random.default_rng(seed).random((N_TASKS, N_ITEMS)) < level).astype(float)


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """Methods that differ from the reference in known ways."""
    base = [draws(seed) for seed in range(3)]
    better = [np.where(draws(10 + seed, 0.2) > 0, 1, own) for seed, own in enumerate(base)]
    mixed = [better[0], 1 - draws(11, 0.6), better[2]]
    methods = {"treelora": base, "seqlora": base, "gem": better, "ewc": mixed, "l2p": better[:1]}
    return panel_of(tmp_path_factory.mktemp("panel"), methods)


def test_runs_that_are_packed_together_take_less_and_are_the_same(panel, tmp_path):
    own = [run.pack() for runs in by_key(panel.suite.answers).values() for run in runs]
    paths = [tmp_path / str(number) for number in range(len(own))]
    for path, content in zip(paths, own, strict=True):
        path.write_bytes(content)
    whole = joined(paths)
    assert gzip.decompress(whole) == b"".join(map(gzip.decompress, own))
    assert len(whole) < 0.7 * sum(map(len, own))
    assert joined([]) == b""


def test_files_together_are_a_file_of_all_their_runs(panel):
    found = by_key(panel.suite.answers)
    assert found.keys() == set(panel.runs["key"])
    run = panel.runs["record"].iloc[0]
    (own,) = found[run["key"]]
    assert of_record(found, run) is own and of_record(found, run | {"key": "0"}) is None
    R = [*run["R"][:-1], [*run["R"][-1][:-1], 0.123]]
    assert of_record(found, run | {"R": R}) is None  # of the same run, made elsewhere
    assert gzip.decompress(own.pack()) and own.pack() == own.pack()


def test_what_is_equal_item_by_item_does_not_differ(panel):
    value, p = bootstrap.differences(panel)["seqlora"]
    assert (value.mean, value.low, value.high, p.mean) == (0, 0, 0, 1)


def test_a_difference_that_all_seeds_and_items_show_is_found(panel):
    found = bootstrap.differences(panel)
    assert found.keys() == {"seqlora", "gem", "ewc", "l2p"}
    for label in ("gem", "l2p"):
        value, p = found[label]
        expected = np.mean([own - base for own, base in pairs(panel, label)])
        assert value.mean == pytest.approx(expected, abs=1e-6)
        assert 0 < value.low < value.mean < value.high and p.mean < 0.01
    width = {label: found[label].value.high - found[label].value.low for label in ("gem", "ewc")}
    assert width["gem"] < width["ewc"] and found["ewc"].p.mean > 0.2  # one seed says otherwise


def pairs(panel, label):
    """ACC of a method and of the reference, by seed."""
    acc = panel.values["acc"]
    return [(value, acc.loc[panel.reference, seed]) for seed, value in acc.loc[label].items()]


def test_the_interval_holds_the_true_difference():
    """Of methods that differ by item and by seed, none of it on average."""
    generator, weights = np.random.default_rng(0), bootstrap._weights(300)
    held = 0
    for _ in range(100):
        hard, own = generator.normal(0, [[0.3], [0.15]], (2, 300))
        seeds = []
        for shift in generator.normal(0, 0.03, 3):
            levels = np.clip([0.6 + hard, 0.6 + hard + own + shift], 0, 1)
            one, other = generator.random((2, 300)) < levels
            seeds.append(weights @ (other.astype(float) - one) / weights.sum(axis=1))
        value, _ = bootstrap._difference(np.stack(seeds))
        held += value.low <= 0 <= value.high
    assert held >= 93


def test_the_differences_table_shows_it_where_answers_were_kept(panel, tmp_path):
    table = differences(panel)
    assert {"acc_items", "p_items"} <= {column.key for column in table.columns}
    assert "bootstrap" in table.markdown() and "| 1.000 |" in table.markdown()
    assert "acc_items_low" in table.csv().splitlines()[0]
    without = suite_of(tmp_path, list(panel.runs["record"])).panels[0]
    table = differences(without)
    assert "acc_items" not in {column.key for column in table.columns}
    assert "bootstrap" not in table.markdown()


def test_the_same_answers_give_the_same_numbers(panel):
    (again,) = read_suite(panel.suite.answers.with_name("runs.jsonl")).panels
    assert bootstrap.differences(again) == bootstrap.differences(panel)


CELL = {"after": 1, "task": 1, "outputs": [1, 2], "scores": [1, 0.5]}
HEAD = {"schema": 1, "key": "a", "tasks": ["x", "y"], "items": [[0], [1, 2]], "cells": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"key": 1},
        {"tasks": ["x"]},
        {"tasks": "xy"},
        {"items": [[0], [1, "2"]]},
        {"items": [[0], [1.5, 2]]},
        {"items": [0, [1, 2]]},
        {"cells": 2},
        {"cells": "1"},
        {"after": 2},
        {"task": -1},
        {"task": True},
        {"task": 0},
        {"outputs": [1, "a"]},
        {"outputs": [1]},
        {"scores": [1, 2]},
        {"scores": [1, float("nan")]},
        {"scores": [1, None]},
        {"scores": 1},
        {"inferred": ["a", "b"]},
        {"inferred": [1]},
    ],
)
def test_what_is_no_prediction_is_named(tmp_path, changes):
    path = tmp_path / "own.predictions.jsonl.gz"

    def written(changes):
        head, cell = (
            part | {k: v for k, v in changes.items() if (k in HEAD) == (part is HEAD)}
            for part in (HEAD, CELL)
        )
        path.write_bytes(gzip.compress(f"{json.dumps(head)}\n{json.dumps(cell)}\n".encode()))
        return path

    assert read(written({}))[0].cells == {(1, 1): Cell([1, 2], [1, 0.5])}
    with pytest.raises(DataError, match="own.predictions.jsonl.gz holds no predictions or is da"):
        read(written(changes))


@pytest.mark.parametrize(
    "content", [b"{}", b"\x1f\x8b", gzip.compress(b"[]", mtime=0), gzip.compress(b"{", mtime=0)]
)
def test_a_damaged_file_of_predictions_is_named(tmp_path, content):
    path = tmp_path / "own.predictions.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="holds no predictions or is damaged"):
        read(path)
    path.write_bytes(b"")
    assert read(path) == []  # of a suite that kept none
