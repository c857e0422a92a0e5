"""A method that makes no gradient steps has scores and a time, and no speed of training."""

import pytest

from analysis.claims.schedules import _speed_at_equal_epochs
from analysis.records.runs import read_suite
from analysis.tables.accuracy import accuracy
from analysis.tables.costs import speed
from tests.fake_records import record, write


def test_tables_show_a_method_without_steps_but_do_not_time_its_steps(tmp_path):
    runs = [record(method=name, seed=s) for name in ("ranpac", "seqlora") for s in (0, 1)]
    for run in runs[:2]:
        for task in run["tasks"]:
            task |= {"steps": 0, "train_seconds": 0.0, "last_loss": None}
    (panel,) = read_suite(write(tmp_path / "runs.jsonl", runs)).panels
    assert [row["method"] for row in speed(panel).rows] == ["seqlora"]
    shown = {row["method"]: row for row in accuracy(panel).rows}
    assert shown["seqlora"]["mask"] == "all" and "mask" not in shown["ranpac"]
    assert shown["ranpac"]["time_seconds"].mean > 0
    (only, *_) = read_suite(write(tmp_path / "only.jsonl", runs[:2])).panels
    assert speed(only).rows == []


@pytest.mark.filterwarnings("error")
def test_the_speed_of_others_is_judged_without_a_method_without_steps(tmp_path):
    effects = []
    for methods in (("seqlora", "treelora"), ("ranpac", "seqlora", "treelora")):
        runs = [record(method=name, seed=s) for name in methods for s in (0, 1)]
        for run in runs:
            for task in run["tasks"] if run["spec"]["method"]["name"] == "ranpac" else []:
                task |= {"steps": 0, "train_seconds": 0.0, "last_loss": None}
        (panel,) = read_suite(write(tmp_path / "runs.jsonl", runs)).panels
        effects.append(_speed_at_equal_epochs(panel, "seqlora", 2.0))
    assert effects[0] == effects[1] != []
