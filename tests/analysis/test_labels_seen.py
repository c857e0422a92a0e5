"""What labels the weights have seen is said beside the numbers, where it is known."""

from fake_records import record, write

from analysis.records.runs import read_suite
from analysis.tables.setting import setting_notes


def test_the_tables_say_what_labels_the_weights_have_seen(tmp_path):
    runs = [record(seed=seed) for seed in range(2)]
    for run in runs:
        run["provenance"]["weights_labels"] = "in1k"
    (panel,) = read_suite(write(tmp_path / "runs.jsonl", runs)).panels
    assert "labels seen by its weights: in1k, seeds" in setting_notes(panel)[1]
    (panel,) = read_suite(write(tmp_path / "old.jsonl", [record()])).panels
    assert "labels" not in setting_notes(panel)[1]
