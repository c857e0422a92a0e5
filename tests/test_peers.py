"""The scores of other public code beside ours: in the table and in the docstrings."""

import importlib
import json
from pathlib import Path

import pytest
from tests.test_three_tasks import CASES

import baselines
from analysis import compare, tables
from analysis.exhibits import fitting
from analysis.runs import read_suite
from tests.fake_records import record, write

PUBLISHED = Path(__file__).parents[1] / "benchmarks/published/peers.jsonl"
PEERS = compare.table("peers.csv")


def beside(label: str, **changes) -> dict:
    """A record of the setting in which other code was run, but for some changes of its training."""
    made = record("cifar100", "l2p")
    for part, values in compare.PEERS.items():
        made["spec"][part] |= values
    made["spec"]["method"]["label"] = label
    made["spec"]["train"] |= changes
    return made


def test_a_run_in_their_setting_stands_beside_all_of_theirs(tmp_path):
    (panel,) = read_suite(write(tmp_path / "own.jsonl", [beside("l2p")])).panels
    table = tables.peers(panel)
    theirs = PEERS[PEERS["label"] == "l2p"]
    assert len(theirs) > 1
    assert [row["peer"] for row in table.rows] == theirs["peer"].tolist()
    assert [100 * row["theirs"].mean for row in table.rows] == pytest.approx(theirs["acc"].tolist())
    assert all(row["acc"] == panel.estimates["l2p"]["acc"] for row in table.rows)


@pytest.mark.parametrize("changed", [{"learning_rate": 0.005}, {"clip_norm": 1.0}, {"mask": "all"}])
def test_a_run_in_another_setting_stands_beside_none(changed):
    assert len(compare.peers_of(beside("l2p")["spec"])) > 0
    other = beside("l2p", **changed)["spec"]
    assert len(compare.peers_of(other)) == 0 and "peers" not in fitting(["peers"], [other])


def test_docstrings_give_both_numbers():
    """Ours as published, theirs as in the table."""
    records = [json.loads(line) for line in PUBLISHED.read_text().splitlines()]
    ours = {r["spec"]["method"]["label"]: r for r in records}
    assert set(PEERS["label"]) <= ours.keys()
    for row in PEERS.itertuples():
        run = ours[row.label]
        name = run["spec"]["method"]["name"]
        text = " ".join(importlib.import_module(f"baselines.{name}").__doc__.split())
        score = 100 * sum(run["R"][-1]) / len(run["R"][-1])
        assert f"{row.peer} {row.commit}" in text, name
        assert f"{row.acc:.1f}" in text and f"{score:.1f}" in text, (row.label, score)


def test_every_docstring_says_what_its_method_was_checked_against():
    for name, modality in CASES:
        text = importlib.import_module(baselines.load(name, modality).__module__).__doc__
        assert "Checked against" in text, name
