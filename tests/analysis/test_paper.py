"""Published numbers: which stand beside a run, which effects the paper reports, other code's."""

import importlib

import pytest
from fake_records import panel_of, record, set_paths, suite_of, with_tasks

from analysis import draw
from analysis.catalogue import TABLES, fitting
from analysis.claims import claimed
from analysis.claims.judge import judge, measure
from analysis.records import counterparts as compare
from analysis.records import reading
from analysis.tables.accuracy import accuracy
from analysis.tables.published import ordering, peers


def paper_setting(method="hidetreelora"):
    """A record with the setting of the paper's Table 1 on Split CIFAR-100."""
    own = compare.OWN.get(method, {}) | {"strength": 0.1}
    changes = {"spec__backbone__name": "vit-b16-ibot21k", "spec__backbone__image_size": 224}
    limits = {"spec__stream__train_per_class": None, "spec__stream__test_per_class": None}
    training = {"spec__train__batch_size": 192, "spec__train__epochs": [20] * 10}
    training |= {"spec__train__mask": "current", "spec__method__config": own}
    return set_paths(record("cifar100", method), **changes, **limits, **training)


def keys(table):
    return [column.key for column in table.columns]


def test_counterparts_stand_beside_the_same_setting(tmp_path):
    table = accuracy(panel_of(tmp_path, [paper_setting(), paper_setting("hidelora")]))
    assert {"paper_acc", "paper_bwt_paper", "paper_time_seconds"} <= set(keys(table))
    assert {"independent_acc", "independent_forgetting"} <= set(keys(table))
    hide, tree = sorted(table.rows, key=lambda row: row["method"])
    assert tree["paper_acc"][:2] == (pytest.approx(0.8854), pytest.approx(0.0005))
    assert tree["paper_time_seconds"].mean == 214
    assert hide["independent_acc"].mean == pytest.approx(0.8844)
    assert "88.54 ± 0.05" in table.markdown() and "table1, split-cifar100" in table.markdown()


@pytest.mark.parametrize(
    ("path", "value", "independent_stays"),
    [
        ("spec__stream__name", "cifar10", False),
        ("spec__stream__train_per_class", 100, False),
        ("spec__stream__test_per_class", 10, False),
        ("spec__stream__first_task_classes", 28, False),
        ("spec__stream__order", "fixed", False),
        ("spec__backbone__name", "vit-ti", False),
        ("spec__backbone__image_size", 64, False),
        ("spec__train__batch_size", 64, True),
        ("spec__train__epochs", [5] * 10, True),
        ("spec__train__learning_rate", 0.01, True),
        ("spec__train__mask", "all", True),
        ("spec__method__config", {"rank": 20}, True),
    ],
)
def test_counterparts_vanish_with_one_changed_field(tmp_path, path, value, independent_stays):
    changed = set_paths(paper_setting("hidelora"), **{path: value})
    table = accuracy(panel_of(tmp_path, [changed]))
    assert not [key for key in keys(table) if key.startswith("paper_")]
    assert ("independent_acc" in keys(table)) == independent_stays
    assert ("No published number has this setting" in table.markdown()) != independent_stays


def test_tables_2_and_6_have_their_counterparts_too():
    tree = paper_setting()["spec"]
    assert [exhibit for exhibit, _, _ in compare.cells(tree)] == [
        *("table1", "table11", "table2"),
        *("table6", "table6"),
    ]
    fewer = set_paths({"spec": tree}, spec__train__epochs=[2] * 10)["spec"]
    assert compare.cells(fewer) == [("table2", "split-cifar100", "treelora-2-epochs")]
    stronger = tree | {
        "method": tree["method"] | {"config": tree["method"]["config"] | {"strength": 0.7}}
    }
    assert compare.cells(stronger) == [("table6", "split-cifar100/lambda", "0.7")]
    alone = tree | {"method": tree["method"] | {"name": "treelora"}}
    assert compare.cells(alone) == []


def test_published_values_are_unique_per_cell():
    values = compare.table("external_values.csv")
    assert not values.duplicated(["dataset", "backbone", "method"]).any()


def test_the_order_of_methods_is_compared_with_others(tmp_path):
    """The fake records have gem before l2p before ewc, the paper ewc before l2p before gem."""
    runs = [record("cifar100", method) for method in ("seqlora", "ewc", "gem", "l2p")]
    table = ordering(panel_of(tmp_path, runs))
    assert [row["method"] for row in table.rows] == ["gem", "l2p", "ewc"]
    assert table.rows[1]["paper"].mean == pytest.approx(0.7966)
    assert "paper −1.00 (3 methods)" in table.markdown()
    glyphs = record("glyphs")["spec"]
    assert "ordering" not in fitting(TABLES, [glyphs])


LORA = [5, 3, 7, 5, 3, 5, 5, 7]

SHORT = [2, 1, 3, 2, 1, 2, 2, 3]

FULL = [1, 1, 5, 5, 1, 5, 5, 5]

TREE = {"strength": 0.5, "depth": None, "signature": "adapter", "similarity": "l1"}
TREE |= {"search": "lcb"}


def spec(
    method, epochs, config=None, stream="trace", backbone="llama-2-7b-chat", rate=1e-4, **changed
):
    """A run in the paper's setting, but for what is `changed` in its stream or training."""
    options = {"size": 500, "scoring": "released", "order": "fixed", "max_prompt_tokens": 1024}
    options |= {"keep_leaks": True, "name": stream, "n_tasks": len(epochs), "train_per_task": None}
    train = {"epochs": epochs, "batch_size": 4, "learning_rate": rate, "mask": None}
    train |= {"precision": "bfloat16", "optimizer": "adam"}
    for key, value in changed.items():
        (train if key in train else options)[key] = value
    own = {"layers": None} | (TREE if method == "treelora" else {}) | (config or {})
    return {
        "modality": "language",
        "stream": options,
        "backbone": {"name": backbone},
        "method": {"name": method, "label": method, "config": own},
        "train": train,
    }


def shown(*arguments, **changed):
    return [f"{e}/{b}:{c}" for e, b, c in compare.cells(spec(*arguments, **changed))]


def test_a_run_fills_the_cells_of_its_schedule():
    seven = "llama-2-7b-chat"
    assert shown("seqlora", LORA) == [f"table3/{seven}:seqlora", f"table12/trace/{seven}:seqlora"]
    assert shown("seqlora", SHORT) == []
    assert shown("treelora", LORA) == []
    assert shown("treelora", SHORT)[-1] == f"table4/{seven}/depth-64:treelora"
    assert shown("sapt", LORA) == [f"table12/trace/{seven}:sapt"]
    assert shown("fix", SHORT) == shown("fix", LORA, rate=0.1) != []  # it does not train
    large = {"backbone": "llama-2-13b-chat"}
    assert shown("olora", LORA, **large) == ["table13/trace/llama-2-13b-chat:olora"]
    assert shown("l2p", LORA, rate=1e-3, **large) == []


def test_full_fine_tuning_has_its_own_schedule_and_rate():
    for method in ("ogd", "gem", "ewc"):
        assert (
            shown(method, FULL) and not shown(method, LORA) and not shown(method, FULL, rate=1e-5)
        )
    assert shown("ewc", FULL, {"trained": "all"}, rate=1e-5) == shown("ewc", FULL)
    assert not shown("ewc", FULL, {"trained": "all"})


def test_depth_is_twice_the_layers():
    for layers, depth in ((4, 8), (8, 16), (16, 32)):
        for method, epochs in (("olora", LORA), ("treelora", SHORT)):
            cell = f"table4/llama-2-7b-chat/depth-{depth}:{method}"
            assert shown(method, epochs, {"layers": layers}) == [cell]
    assert shown("olora", LORA, {"layers": 5}) == []


def test_table_5_is_plain_lora_random_and_bandit_search():
    mistral = {"backbone": "mistral-7b-instruct-v0.3"}
    place = "table5/mistral-7b-instruct-v0.3:treelora"
    assert shown("seqlora", SHORT, **mistral) == [f"{place}-no-penalty-no-search"]
    random = shown("treelora", SHORT, {"search": "random"}, **mistral)
    assert random == [f"{place}-penalty-random-search"]
    assert shown("treelora", SHORT, **mistral)[-1] == place
    assert shown("treelora", SHORT, {"search": "random", "layers": 4}, **mistral) == []
    gemma = {"backbone": "gemma-2b-it"}
    assert shown("olora", SHORT, **gemma) == ["text/gemma-2b-it:olora"]


def test_streams_beyond_trace_have_its_epochs_or_one():
    small = {"backbone": "llama-3.2-1b-instruct"}
    assert shown("olora", [3, 5, 5], stream="math_llm") == ["table7/math-llm/llama-2-7b-chat:olora"]
    assert shown("olora", [*LORA, *[1] * 7], stream="long15", **small)[0].startswith(
        "table9/long15"
    )
    first = shown("treelora", [1] * 4, stream="order2", **small)
    assert [cell.split("/")[1] for cell in first] == ["order2", "orders1-3"]
    last = shown("treelora", [1] * 15, stream="order6", **small)
    assert [cell.split("/")[1] for cell in last] == ["order6", "orders4-6"]
    assert shown("treelora", [2] * 4, stream="order2", **small) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"size": 5000},
        {"scoring": None},
        {"keep_leaks": None},
        {"order": "seed"},
        {"max_prompt_tokens": 512},
        {"train_per_task": 100},
        {"batch_size": 32},
        {"precision": "float32"},
        {"rate": 1e-3},
        {"backbone": "micro-llama"},
        {"stream": "docs"},
    ],
)
def test_no_cell_stands_beside_another_setting(changed):
    assert shown("olora", LORA) and not shown("olora", LORA, **changed)
    config = {"strength": 0.1}
    assert not shown("treelora", SHORT, config) and not shown("treelora", SHORT, {"depth": 8})


def paper_record(method, epochs, **changed):
    run = record("docs", method)
    own = spec(method, epochs, **changed)
    run["spec"]["method"] |= {"config": own["method"]["config"]}
    for part in ("stream", "backbone", "train"):
        run["spec"][part] |= own[part]
    run["spec"]["stream"] |= {"test_per_task": None}
    return run


def test_counterparts_say_what_the_paper_trains(tmp_path):
    runs = [paper_record("seqlora", LORA), paper_record("ewc", FULL), paper_record("fix", LORA)]
    table = accuracy(panel_of(tmp_path, runs))
    rows = {row["method"]: row for row in [*table.rows, *table.below]}
    assert rows["seqlora"]["paper_acc"].mean == pytest.approx(0.3430)
    assert rows["seqlora"]["paper_bwt_paper"].mean == pytest.approx(0.1850)
    assert rows["ewc"]["paper_time_seconds"].mean == 50283
    assert rows["fix"]["paper_acc"].mean == pytest.approx(0.3894)
    assert "rate of full fine-tuning and here on the adapter (EWC)" in table.markdown()


def test_published_scores_of_any_setting_are_compared_by_backbone():
    known = compare.elsewhere("trace")
    assert known.at["tasl", "paper, llama-2-7b-chat"] == pytest.approx(0.4319)
    assert known.at["treelora", "paper, mistral-7b-instruct-v0.3"] == pytest.approx(0.5477)
    assert {name.removeprefix("paper, ") for name in known} == {
        *("mistral-7b-instruct-v0.3", "llama-2-7b-chat", "llama-2-13b-chat"),
        *("gemma-2b-it", "llama-3.2-1b-instruct"),
    }
    assert list(compare.elsewhere("order4")) == ["paper, llama-3.2-1b-instruct"]


def test_everything_is_drawn_where_schedules_are_lists(tmp_path):
    """As in the paper's suite: a method and its variants differ in the epochs of single tasks."""
    runs = []
    for seed in range(2):
        for label, epochs in (("seqlora", [5, 3]), ("treelora", [2, 1]), ("fix", [5, 3])):
            runs.append(paper_record(label, epochs))
        for label, epochs in (("seqlora-short", [2, 1]), ("treelora-long", [5, 3])):
            runs.append(paper_record(label.partition("-")[0], epochs))
            runs[-1]["spec"]["method"] |= {"label": label, "name": label.partition("-")[0]}
        for run in runs[-5:]:
            run["spec"]["seed"] = seed
            with_tasks(run, floor=[{"task": t, "rule": "x", "score": 0.1} for t in "ab"])
            for task, epochs in zip(run["tasks"], run["spec"]["train"]["epochs"], strict=True):
                task["steps"] = 0 if run["spec"]["method"]["name"] == "fix" else 125 * epochs
    for number, run in enumerate(runs):
        run["key"] = f"{number:012x}"
    suite = suite_of(tmp_path, runs)
    made = draw.make(suite, tmp_path, ["speed", "ordering", "sensitivity"])[1]
    speed = made["tables/speed-trace.md"].decode()
    assert "| SeqLoRA short | 2 1 |" in speed and "| FIX" not in speed
    ordering = made["tables/ordering-trace.md"].decode()
    assert "OP, paper, llama-2-7b-chat" in ordering
    effects = {v.claim.id: v.effect.what for v in judge([measure(suite)], {}) if v.effects}
    assert effects["speed-same-schedule"] == "TIME of SeqLoRA short / TreeLoRA"
    assert effects["accuracy-same-schedule"] == "TreeLoRA − SeqLoRA short"
    assert effects["fewer-epochs"] == "SeqLoRA short − SeqLoRA"


def test_the_papers_own_effects():
    """By hand from its tables."""
    assert min(claimed.lead("vision")) == pytest.approx(71.94 - 72.28)
    assert max(claimed.lead("language")) == pytest.approx(36.14 - 33.73)
    assert claimed.headline("vision") == 3.2 and claimed.headline("language") == 2.4
    assert claimed.times_faster("vision", "seqlora")["split-cifar100"] == pytest.approx(694 / 214)
    assert min(claimed.times_faster_at_equal_epochs()) == pytest.approx(58 / 45)
    assert list(claimed.times_faster_at_equal_epochs("seqlora")) == pytest.approx([43 / 45])
    equal = claimed.lead_over_seqlora_at_equal_epochs()
    assert (min(equal), max(equal)) == pytest.approx((54.77 - 51.92, 62.76 - 49.03))
    assert claimed.gain_of_fewer_epochs() == pytest.approx(51.92 - 46.94)
    assert claimed.time_spread("vision") == pytest.approx(3 / 86)
    assert claimed.rise(claimed.by_epochs()) == pytest.approx(88.54 - 87.73)
    assert claimed.rise(claimed.by_depth()) == pytest.approx(43.52 - 21.49)
    assert dict(claimed.robust_spread()) == pytest.approx({"lambda": 0.09, "learning-rate": 0.59})
    assert list(claimed.ablation()) == [51.92, 54.03, 54.77]
    assert claimed.flops()["olora"] / claimed.flops()["treelora"] == pytest.approx(10)
    assert claimed.disk()["llm-7b"] == 10


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
    panel = panel_of(tmp_path, [beside("l2p")])
    table = peers(panel)
    theirs = PEERS[PEERS["label"] == "l2p"]
    assert len(theirs) > 1
    assert [row["peer"] for row in table.rows] == theirs["peer"].tolist()
    assert [100 * row["theirs"].mean for row in table.rows] == pytest.approx(theirs["acc"].tolist())
    assert all(row["acc"] == panel.estimates["l2p"]["acc"] for row in table.rows)


@pytest.mark.parametrize("changed", [{"learning_rate": 0.005}, {"clip_norm": 1.0}, {"mask": "all"}])
def test_a_run_in_another_setting_stands_beside_none(changed):
    assert len(compare.peers_of(beside("l2p")["spec"])) > 0
    other = beside("l2p", **changed)["spec"]
    assert len(compare.peers_of(other)) == 0 and "peers" not in fitting(TABLES, [other])


def test_docstrings_give_both_numbers():
    """Ours as published, theirs as in the table."""
    records, _ = reading.read(reading.published()["peers"])
    ours = {r["spec"]["method"]["label"]: r for r in records}
    assert set(PEERS["label"]) <= ours.keys()
    for row in PEERS.itertuples():
        run = ours[row.label]
        name = run["spec"]["method"]["name"]
        text = " ".join(importlib.import_module(f"baselines.{name}").__doc__.split())
        score = 100 * sum(run["R"][-1]) / len(run["R"][-1])
        assert f"{row.peer} {row.commit}" in text, name
        assert f"{row.acc:.1f}" in text and f"{score:.1f}" in text, (row.label, score)
