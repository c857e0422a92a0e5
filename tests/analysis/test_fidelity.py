"""The fidelity ledger: complete, of options that exist, and as generated."""

from contextlib import suppress

import pytest
from fake_records import seeds, suite_of

from analysis import fidelity
from analysis.records.runs import OUTDATED

BASE = seeds("treelora", 0.5)


def tree(acc, label="variant", **more):
    return seeds(label, acc, method="treelora", **more)


ENTRIES = [(group, entry) for group, entries in fidelity.read().items() for entry in entries]


def test_every_entry_is_complete():
    known = {"topic", "paper", "released", "here", "option", "variant", "metric", "sets_strength"}
    for group, entry in ENTRIES:
        assert {"topic", "paper", "released", "here"} <= entry.keys() <= known, (group, entry)
        texts = [value for value in entry.values() if isinstance(value, str)]
        assert all(text and "\n" not in text for text in texts), entry["topic"]
    topics = [entry["topic"] for _, entry in ENTRIES]
    assert len(set(topics)) == len(topics)


OPTIONS = [
    (entry["topic"], owner, settings)
    for _, entry in ENTRIES
    for owner, settings in entry.get("option", {}).items()
]


@pytest.mark.parametrize(("topic", "owner", "settings"), OPTIONS, ids=lambda value: str(value)[:30])
def test_every_option_exists(topic, owner, settings):
    """In some stream, or in the training of some modality."""
    import baselines
    from benchmarks import streams
    from benchmarks.common.errors import DataError
    from benchmarks.common.options import field_names, parse
    from benchmarks.runs.options import TRAINING

    def takes(cls, mapping):
        with suppress(DataError):
            return parse(cls, mapping)

    assert settings, topic
    if owner == "stream":
        classes = {name: streams.load(name).Options for name in ("glyphs", "docs", "trace")}
        assert any(takes(cls, {"name": name} | settings) for name, cls in classes.items())
        return
    method = baselines.load(owner)
    training = {name for cls in TRAINING.values() for name in field_names(cls)}
    shared = {key: value for key, value in settings.items() if key in training}
    needed = {"vision": {"epochs": 1, "mask": "all"}, "language": {"epochs": 1}}
    assert any(takes(cls, needed[modality] | shared) for modality, cls in TRAINING.items())
    own = {key: value for key, value in settings.items() if key not in training}
    if "preset" in own:
        assert own.pop("preset") in method.presets
    assert takes(method.Config, own)


def test_what_is_called_older_is_older_than_todays_code():
    import baselines

    for method, entries in OUTDATED.items():
        for modality, below, why in entries:
            assert 1 < below <= baselines.load(method, modality).version and why


def test_differences_are_measured_where_a_run_differs_in_just_these_settings(tmp_path):
    records = [
        *BASE,
        *tree(0.6, label="dice", config={"search": "random"}),
        *tree(0.7, label="strong", config={"strength": 0.5}),
        *tree(0.65, label="both", config={"strength": 0.5, "search": "random"}),
    ]
    suites = [suite_of(tmp_path, records)]
    entry = {"option": {"treelora": {"search": "random"}}}
    assert set(fidelity.measured(entry, suites).split("; ")) == {
        "glyphs (demo): +10.00 points, 4 seeds",
        "glyphs (demo): both − strong −5.00 points, 4 seeds",
    }
    assert fidelity.measured({"option": {"treelora": {"search": "lcb_flat"}}}, suites) == (
        "not measured"
    )
    by_label = {"option": {"treelora": {"preset": "released"}}, "variant": "dice"}
    assert "+10.00 points" in fidelity.measured(by_label, suites)
    by_label["variant"] = "both"  # minus the one of its strength, if that is not part of it
    assert fidelity.measured(by_label, suites).startswith("glyphs (demo): both − strong −5.00")
    with_strength = fidelity.measured(by_label | {"sets_strength": True}, suites)
    assert with_strength.startswith("glyphs (demo): +15.00 points")
    assert fidelity.measured({"metric": "bwt_standard"}, suites).startswith("glyphs (demo): +")
    assert fidelity.measured({}, suites) == ""


def test_what_is_compared_was_trained_alike(tmp_path):
    records = [
        *seeds("treelora", 0.5),
        *tree(0.6, label="preset", train={"learning_rate": 0.1}, config={"search": "random"}),
        *tree(0.7, label="fast", train={"learning_rate": 0.1}, config={"strength": 0.5}),
        *seeds("seqlora", 0.2, train={"learning_rate": 0.1}),
        *seeds("seqlora-slow", 0.4, method="seqlora"),
    ]
    suites = [suite_of(tmp_path, records)]
    preset = {"option": {"treelora": {"preset": "paper"}}, "variant": "preset"}
    assert fidelity.measured(preset, suites).startswith(
        "glyphs (demo): preset − fast (strengths 0.1 and 0.5) −10.00 points"
    )
    other = {"option": {"treelora": {"search": "none"}}, "variant": "seqlora"}
    assert fidelity.measured(other, suites).startswith(
        "glyphs (demo): seqlora-slow − treelora −10.00 points"
    )
