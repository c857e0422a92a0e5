"""The leaderboard: its order, its differences, whom it marks, and the table made of it."""

from math import isnan

import pytest
from fake_records import failed, record, seeds, suite, suite_of

from analysis.records.leaderboard import leaderboard


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """Three seeds of methods, one of them added and one failed, on a stream of text."""
    records = suite(("docs",), ("fix", "seqlora", "treelora", "mine", "joint"))
    for run in records:
        run["stream"]["floor"] = [
            {"task": task, "rule": "constant", "score": 0.9} for task in run["stream"]["tasks"]
        ]
    records += [failed(run) for run in suite(("docs",), ("ewc",))]
    panel = suite_of(tmp_path_factory.mktemp("board"), records).panels[0]
    return leaderboard(panel)


def test_competitors_come_best_first_and_bounds_below(board):
    assert list(board.index[-3:]) == ["joint", "fix", "floor"]
    competitors = board["score"][:-3]
    assert competitors.is_monotonic_decreasing and set(competitors.index) == {
        *("mine", "seqlora", "treelora"),
    }
    assert board.loc["floor", "score"] == pytest.approx(0.9)


def test_reference_and_added_methods_are_marked(board):
    roles = board["role"].to_dict()
    assert roles["treelora"] == "reference" and roles["mine"] == "added"
    assert set(board.index[board["marked"]]) == {"treelora", "mine"}


def test_score_is_what_was_just_learnt_less_what_was_forgotten(board):
    learners = board.drop(["joint", "fix", "floor"])
    assert (learners["just_learnt"] - learners["bwt"]).tolist() == pytest.approx(
        learners["score"].tolist()
    )


def test_differences_are_paired_by_the_seeds_that_both_finished(tmp_path):
    records = [*seeds("treelora", 0.5)[:3], *seeds("seqlora", 0.4)[1:]]
    board = leaderboard(suite_of(tmp_path, records).panels[0])
    row = board.loc["seqlora"]
    assert row["seeds"] == 3
    assert row["difference"] == pytest.approx(-0.1) and row["low"] == pytest.approx(-0.1)


def test_one_seed_has_no_interval_and_nothing_finished_no_row(tmp_path):
    one = leaderboard(suite_of(tmp_path, suite(("glyphs",), seeds=1)).panels[0])
    assert isnan(one.loc["seqlora", "low"]) and not isnan(one.loc["seqlora", "difference"])
    assert leaderboard(suite_of(tmp_path, [failed(record())]).panels[0]).empty
