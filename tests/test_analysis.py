"""From records to tables, figures and the report: numbers by hand, golden text, bad input."""

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote
from xml.dom import minidom

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fake_records import LABEL, METHODS, failed, record, suite, write
from matplotlib import font_manager

from analysis import (
    accounting,
    claims,
    compare,
    exhibits,
    fidelity,
    lettering,
    metrics,
    pages,
    regret,
    report,
    style,
    tables,
)
from analysis.__main__ import main
from analysis.records import RecordError, read, slugs
from analysis.runs import load, read_suite
from analysis.table import Column, Table, csv, markdown, percent, plain, tex
from analysis.text import quoted, suggest, visible
from analysis.trees import agreement

ROOT = Path(__file__).parents[1]
NAN = float("nan")
# After each of three tasks; the second task improves once before it falls.
R = np.array([[0.9, NAN, NAN], [0.6, 0.5, NAN], [0.3, 0.7, 0.8]])
ONLY_LAST = np.array([[NAN, NAN], [0.6, 0.8]])


def panel_of(tmp_path, records):
    (panel,) = read_suite(write(tmp_path / "runs.jsonl", records)).panels
    return panel


def set_paths(entry, **changes):
    """A deep copy of a record with the values at `a__b` replaced."""
    entry = json.loads(json.dumps(entry))
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = entry
        for name in parents:
            place = place[name]
        place[last] = value
    return entry


# ---- metrics ---------------------------------------------------------------------------------


def test_metrics_by_hand():
    assert metrics.acc(R) == pytest.approx((0.3 + 0.7 + 0.8) / 3)
    assert metrics.bwt_paper(R) == pytest.approx((0.6 - 0.2 + 0) / 3)
    assert metrics.bwt_released(R) == pytest.approx((-0.6 + 0 + 0) / 3)
    assert metrics.bwt_standard(R) == pytest.approx((-0.6 + 0.2) / 2)
    assert metrics.forgetting(R) == pytest.approx((0.6 - 0.2) / 2)
    assert metrics.learning_accuracy(R) == pytest.approx((0.9 + 0.5 + 0.8) / 3)
    assert metrics.running_accuracy(R) == pytest.approx([0.9, 0.55, 0.6])


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


# ---- the frame -------------------------------------------------------------------------------


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
    assert finished["acc"] == pytest.approx(0.9) and np.isnan(broken["acc"])
    assert broken["error"] == "out of memory" and broken["record"] == at_once[1]


def test_summary_keeps_whole_numbers_where_a_run_has_none(tmp_path):
    suite_of = read_suite(write(tmp_path / "runs.jsonl", [record(), failed(record(seed=1))]))
    made = exhibits.make(suite_of, tmp_path, ["summary"])[tmp_path / "summary.csv"].decode()
    assert ",1500," in made.splitlines()[1] and "1500.0" not in made
    assert "record" not in made.splitlines()[0] and ",failed,the loss" in made.splitlines()[2]


# ---- tables ----------------------------------------------------------------------------------


def small(method, seed, scores):
    """A record of two tasks with the given R."""
    entry = record(method=method, seed=seed)
    entry |= {"R": scores, "tasks": entry["tasks"][: 1 if scores[0][0] is None else 2]}
    entry["stream"] = {"tasks": ["greek", "arrows"], "groups": ["letters", "signs"]}
    entry["spec"]["stream"]["n_tasks"] = 2
    entry["spec"]["train"]["epochs"] = [6, 6]
    for task in entry["tasks"]:
        task |= {"train_seconds": 1.5 + seed, "consolidate_seconds": 0.5}
    return entry


SMALL = [
    small("seqlora", 0, [[0.9, None], [0.1, 0.9]]),
    small("seqlora", 1, [[0.8, None], [0.3, 0.8]]),
    small("treelora", 0, [[0.9, None], [0.5, 0.9]]),
    small("treelora", 1, [[0.8, None], [0.7, 0.8]]),
    small("joint", 0, [[None, None], [0.9, 0.9]]),
    failed(small("joint", 1, [[None, None], [0.9, 0.9]]), "out of memory"),
]
GOLDEN = """\
| Method | Seeds | ACC ↑ | BWT (paper) ↓ | TIME s ↓ |
| :--- | :--- | ---: | ---: | ---: |
| seqlora | 2 | 52.50 ± 3.54 | 32.50 ± 10.61 | **5.00 ± 1.41** |
| treelora | 2 | **72.50 ± 3.54** | **12.50 ± 10.61** | **5.00 ± 1.41** |
| joint | 1 of 2 (1 failed) | 90.00 | – | 2.00 |
"""


def test_golden_table(tmp_path):
    page = pages.results_page([read_suite(write(tmp_path / "runs.jsonl", SMALL))], {})
    assert GOLDEN in page and "- joint failed, seed 1: out of memory" in page


def test_golden_differences(tmp_path):
    table = tables.differences(panel_of(tmp_path, SMALL))
    assert [cell.text for cell in table.grid()[0][0]] == [
        *("seqlora", "−20.00 [−20.00, −20.00]", "+20.00 [+20.00, +20.00]"),
        *("+40.00 [+40.00, +40.00]", "+0.00 [+0.00, +0.00]", "+0.00 [+0.00, +0.00]", "2"),
    ]
    assert table.grid()[1][0][1:4] == [("+20.00", False), ("–", False), ("–", False)]


def test_every_table_states_its_setting(tmp_path):
    panel = panel_of(tmp_path, SMALL)
    for name in exhibits.fitting(exhibits.TABLES, [r["spec"] for r in panel.runs["record"]]):
        table = getattr(tables, name)(panel)
        for text in (table.markdown(), table.latex()):
            for stated in (LABEL, "glyphs", "vit-micro-glyphs", "seeds 0, 1", "mask all"):
                assert stated in text, (table.name, stated)
            for stated in ("Device cpu", "threads per run 1", "train per class 40"):
                assert stated in text, (table.name, stated)
        if not table.rows:  # no tree in these records
            continue
        assert table.csv().splitlines()[1].startswith(f'demo,"{LABEL}",glyphs,vit-micro-glyphs,')
        assert "nan" not in table.csv().lower()
        assert name == "speed" or table.below[0]["method"] == "joint"


def test_csv_holds_fractions_and_empty_fields(tmp_path):
    lines = tables.accuracy(panel_of(tmp_path, SMALL)).csv().splitlines()
    rows = [
        dict(zip(lines[0].split(","), x.replace(", ", "").split(","), strict=True))
        for x in lines[1:]
    ]
    assert float(rows[1]["acc"]) == pytest.approx(0.725)
    assert float(rows[1]["acc_sd"]) == pytest.approx(0.035355, abs=1e-6)
    assert (rows[2]["bwt_paper"], rows[2]["acc_sd"]) == ("", "")


def test_failed_and_skipped_are_named(tmp_path):
    runs = suite(("docs",), ("ewc", "gem", "l2p"), seeds=2)
    runs = [failed(run) if run["spec"]["method"]["name"] == "ewc" else run for run in runs]
    runs = [
        failed(run, "needs classes", "skipped") if run["spec"]["method"]["name"] == "gem" else run
        for run in runs
    ]
    del runs[2]["provenance"], runs[2]["stream"]  # a skipped run never started
    panel = panel_of(tmp_path, runs)
    text = tables.accuracy(panel).markdown()
    assert "| ewc | 0 of 2 (2 failed) | failed (2) | – |" in text
    assert "| gem | 0 of 2 (2 skipped) | skipped (2) | – |" in text
    assert "ewc failed, seed 0, 1: the loss became nan at step 17" in text
    assert "gem skipped, seed 0, 1: needs classes" in text
    for name in exhibits.make(read_suite(tmp_path / "runs.jsonl"), tmp_path, exhibits.NAMES):
        assert name.suffix  # everything can be drawn with only one method left
    all_failed = [failed(run, error="") for run in suite(("docs",), ("ewc",), seeds=1)]
    made = exhibits.make(read_suite(write(tmp_path / "runs.jsonl", all_failed)), tmp_path)
    text = made[tmp_path / "tables/accuracy-docs.md"].decode()
    assert "failed (1)" in text and "ewc failed, seed 0: no reason recorded" in text


def test_tasks_follow_their_name_through_different_orders(tmp_path):
    second = small("treelora", 1, [[0.2, None], [0.4, 0.6]])
    second["stream"]["tasks"] = ["arrows", "greek"]
    table = tables.tasks(panel_of(tmp_path, [SMALL[2], second]))
    final = next(row for row in table.rows if row["when"] == "final")
    assert final["task greek"].mean == pytest.approx((0.5 + 0.6) / 2)
    assert [row["mean"].mean for row in table.rows] == pytest.approx([0.65, 0.6])
    second["stream"]["tasks"] = ["classes 3 4", "classes 1 2"]
    table = tables.tasks(panel_of(tmp_path, [SMALL[2], second]))
    assert [column.key for column in table.columns[3:]] == ["task 1", "task 2"]


def test_only_differing_training_settings_are_listed_by_method(tmp_path):
    other = set_paths(SMALL[2], spec__train__learning_rate=0.03)
    table = tables.settings(panel_of(tmp_path, [SMALL[0], other]))
    assert [row["learning_rate"] for row in table.rows] == ["0.005", "0.03"]
    assert "learning rate 0.005" not in table.setting[2]
    assert "by method: learning rate" in table.setting[2]
    assert "depth 5" in table.rows[1]["config"]


def test_numbers_are_printed_with_the_digits_they_deserve():
    assert [plain(x) for x in (0, 1500.4, 123.4, 12.34, 1.234)] == [
        "0.00",
        "1,500",
        "123",
        "12.3",
        "1.23",
    ]
    assert percent(-0.05, signed=True) == "−5.00" and percent(-1e-9, signed=True) == "+0.00"


def test_strings_are_escaped():
    table = Table("t", "50% <b>|_&\\", [Column("a", "#1")], [{"a": "x|y<z>_{$"}], notes=["~^"])
    assert "| x\\|y&lt;z>\\_{\\$ |" in table.markdown()
    text = table.latex()
    assert r"\caption{50\% \textless{}b\textgreater{}\textbar{}\_\&\textbackslash{}}" in text
    assert r"x\textbar{}y\textless{}z\textgreater{}\_\{\$ \\" in text
    assert r"\textasciitilde{}\textasciicircum{}" in text


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


def test_a_near_name_is_suggested_else_the_known_ones_are_listed():
    assert suggest("treelroa", ["seqlora", "treelora"]) == "did you mean 'treelora'?"
    assert suggest("xyz", ["seqlora", "treelora"]) == "there are seqlora, treelora"
    assert suggest("xyz", []) == "there are none"
    assert suggest("x", map(str, range(10, 1000))).endswith("950 more")


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("$5 and $10", r"\$5 and \$10"),
        ("`a` *b* ~~c~~", r"\`a\` \*b\* \~\~c\~\~"),
        ("snake_case _it_", r"snake_case \_it\_"),
        ("[x](javascript:alert(1))", r"[x]\(javascript:alert(1))"),
        ("<b>&amp;", "&lt;b>&amp;amp;"),
        ("a\\*b", r"a\\\*b"),
        ("# title", r"\# title"),
        ("1. first", r"1\. first"),
        ("two\nlines", "two lines"),
        ("−1.50 [−2.00, +1.00] points", "−1.50 [−2.00, +1.00] points"),
    ],
)
def test_text_is_text_in_markdown(text, made):
    assert markdown(text) == made


def test_text_is_text_in_latex():
    assert tex("a--b") == "a-{}-b" and tex("–") == "--"
    assert tex("[x]") == "{}[x]" and tex("*") == "{}*"  # no option of the line's end before it
    assert tex("cafe\u0301") == "caf\u00e9"  # a mark of its own is no letter that LaTeX knows
    assert tex("日本_") == r"{\ifdefined\Umathchar 日本\else U+65E5 U+672C\fi}\_"
    table = Table("t-50%_日", "t", [Column("method", "m")], [])
    assert r"\label{tab:t-50---}" in table.latex()


def test_text_is_no_formula_in_a_csv():
    cells = ["=1+1", "@x", "-x", "-1.5", "x=1", None, 2.5]
    lines = csv(pd.DataFrame({"a": pd.Series(cells, dtype=object)})).splitlines()
    assert lines == ["a", "'=1+1", "'@x", "'-x", "-1.5", "x=1", '""', "2.5"]


# Names and labels that would be mathematics, markup, commands or boxes.
ODD = (
    *(
        "worth $5 and $10",
        "$1e-3_a_b$ {",
        "日本語",
        "русский",
        "العربية",
        "👩\u200d🔬",
        "cafe\u0301",
    ),
    *("\x1b[31mred", "a|b`c`<i>&amp;", "=1+1", "_hidden", "\ud800", "x" * 300),
)


def odd_runs():
    """A method for some odd labels; the first has a tree over tasks with all odd names."""
    for label in (ODD[0], ODD[8], ODD[-1]):
        run = record(label=ODD[3])
        run["spec"]["method"]["label"] = run["key"] = label
        run["stream"] = {"tasks": list(ODD[:10]), "groups": [ODD[1], ODD[4]] * 5}
        if label == ODD[0]:
            run["spec"]["method"]["label"] = "treelora"
            leaves = [{"tasks": [n], "children": []} for n in range(10)]
            grown = [{"tasks": list(range(n)), "children": leaves[:n]} for n in range(1, 11)]
            run["diagnostics"] = {"trees": grown, "pulls": [[[1]] * n for n in range(10)]}
        yield run
    yield failed(record(method="ewc"), error="broke $x_$ \x1b[2J\non line 2")


@pytest.mark.filterwarnings("error")
def test_text_is_text_everywhere(tmp_path):
    """Nothing is drawn as a box, which matplotlib would warn of, and every figure is XML."""
    suite_of = read_suite(write(tmp_path / "runs.jsonl", list(odd_runs())))
    made = {path.name: text for path, text in exhibits.make(suite_of, tmp_path).items()}
    for name, text in made.items():
        if name.endswith(".svg"):
            minidom.parseString(text)
        if not name.endswith(".pdf"):
            assert "\x1b" not in text.decode(), name
    assert b"<!-- 1 worth $5 and $10 -->" in made["trees-glyphs.svg"]
    page = made["index.html"].decode()
    assert "broke $x_$ \\x1b[2J on line 2" in page and "日本語" in page
    assert "| a\\|b\\`c\\`&lt;i>&amp;amp; |" in made["accuracy-glyphs.md"].decode()


def test_letters_without_a_glyph_are_escapes_and_the_report_says_so(tmp_path, monkeypatch):
    letters = frozenset(map(ord, "abcé _…\\u0123456789def"))
    monkeypatch.setattr(lettering, "_letters", lambda: letters)
    drawn = lettering.drawn
    assert drawn("a日") == "a\\u65e5" and drawn("e\u0301") == "é"
    assert drawn("a\u200d\ufe0fb") == "ab"  # these have no look of their own
    assert drawn("_a") == " _a"  # or no legend would have it
    assert len(drawn("a" * 300)) <= lettering.LONGEST and drawn("a" * 300 + "b")[-1] == "b"
    assert lettering.width("a日") == 3
    assert "\\u65e5 for 日" in lettering.not_drawn(["a", "日"])
    assert lettering.not_drawn(["a\u200d"]) == ""
    monkeypatch.undo()
    monkeypatch.setattr(report, "not_drawn", lambda texts: f"no letter for {min(texts)}")
    run = record(label="日")
    suite_of = read_suite(write(tmp_path / "runs.jsonl", [run]))
    assert "no letter for a<" in report.page(suite_of, accuracy_of(suite_of), {}, [])


def accuracy_of(suite_of):
    made = (tables.accuracy, tables.differences)
    return {f"{t.__name__}-{p.slug}": t(p) for p in suite_of.panels for t in made}


def test_figures_ask_the_fonts_that_are_installed(monkeypatch):
    family = matplotlib.rcParams["font.family"]
    monkeypatch.setattr(
        font_manager.fontManager, "get_font_names", lambda: ["DejaVu Sans", "Noto Sans CJK SC"]
    )
    with matplotlib.rc_context({"font.family": ["DejaVu Sans"]}):
        lettering.use_fallbacks()
        assert matplotlib.rcParams["font.family"] == ["DejaVu Sans", "Noto Sans CJK SC"]
    assert matplotlib.rcParams["font.family"] == family


def test_runs_of_older_code_are_marked(tmp_path):
    old = record("cifar100", "l2p")
    new = set_paths(old, spec__method__version=2, spec__seed=1, key="2")
    text = tables.accuracy(panel_of(tmp_path, [old, record("cifar100", "ewc")])).markdown()
    assert "| l2p † |" in text and "l2p †: " in text and "| ewc |" in text
    panel = panel_of(tmp_path, [old])
    assert "†" not in tables.accuracy(panel).csv()
    assert "†" not in tables.accuracy(panel_of(tmp_path, [new])).markdown()
    assert "†" not in tables.accuracy(panel_of(tmp_path, [record("docs", "l2p")])).markdown()


def test_a_tree_without_a_search_has_no_pulls():
    run = next(odd_runs())
    run["diagnostics"]["pulls"] = [[]] * 10
    found = agreement(run)
    assert np.isnan(found.same_group) and not np.isnan(found.index)
    run["diagnostics"]["pulls"] = [[[1]] * n for n in range(10)]
    assert agreement(run).same_group > 0


def test_tasks_of_one_name_are_told_by_their_place(tmp_path):
    run = small("treelora", 0, [[0.2, None], [0.4, 0.6]])
    run["stream"]["tasks"] = ["same", "same"]
    table = tables.tasks(panel_of(tmp_path, [run]))
    assert [column.key for column in table.columns[3:]] == ["task 1", "task 2"]


# ---- published counterparts ------------------------------------------------------------------


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
    table = tables.accuracy(panel_of(tmp_path, [paper_setting(), paper_setting("hidelora")]))
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
    table = tables.accuracy(panel_of(tmp_path, [changed]))
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


def test_inferred_tasks_are_shown_where_a_method_infers_them(tmp_path):
    hide, other = record(method="hidelora"), record(method="ewc")
    assert "Acc@task" not in tables.accuracy(panel_of(tmp_path, [hide, other])).markdown()
    hide["tasks"][-1]["task_accuracy"] = [0.5] * 9 + [1.0]
    hide["diagnostics"] = {"cached_features": True}
    shown = tables.accuracy(panel_of(tmp_path, [hide, other])).markdown()
    row = next(line for line in shown.splitlines() if line.startswith("| hidelora"))
    assert "Acc@task" in shown and "| 55.00 |" in row
    assert "TIME of hidelora: the frozen backbone's features" in shown


def test_the_order_of_methods_is_compared_with_others(tmp_path):
    """The fake records have gem before l2p before ewc, the paper ewc before l2p before gem."""
    runs = [record("cifar100", method) for method in ("seqlora", "ewc", "gem", "l2p")]
    table = tables.ordering(panel_of(tmp_path, runs))
    assert [row["method"] for row in table.rows] == ["gem", "l2p", "ewc"]
    assert table.rows[1]["paper"].mean == pytest.approx(0.7966)
    assert "paper −1.00 (3 methods)" in table.markdown()
    glyphs = record("glyphs")["spec"]
    assert "ordering" not in exhibits.fitting(exhibits.TABLES, [glyphs])


# ---- colours, figures, report ----------------------------------------------------------------


def test_every_method_has_its_own_fixed_style():
    alone, unknown = style.styles(["mymethod"]), [f"method{i}" for i in range(30)]
    together = style.styles([*METHODS, *unknown, "mymethod"])
    assert len(set(together.values())) == len(together)
    assert all(together[label] == style.KNOWN[label] for label in METHODS)
    few = style.styles([*METHODS, "mymethod", "other"])
    assert few["mymethod"].colour not in {style.KNOWN[label].colour for label in METHODS}
    assert style.styles(["mymethod", "treelora"])["mymethod"] == alone["mymethod"]


def boxes_of_labels(figure):
    renderer = figure.canvas.get_renderer()
    return [text.get_window_extent(renderer).extents for text in figure.axes[0].texts]


def test_labels_of_points_do_not_overlap(tmp_path):
    from analysis import figures

    crowd = [f"method-number-{i}" for i in range(8)]
    panel = panel_of(tmp_path, suite(("glyphs",), crowd, seeds=2))
    figure = figures.fig4c(panel)
    boxes = boxes_of_labels(figure)
    assert len(boxes) == 8
    for i, a in enumerate(boxes):
        assert all(figures._overlap(a, b) < 1 for b in boxes[:i])


def test_labels_of_points_do_not_lie_on_whiskers(tmp_path):
    from analysis import figures

    records = suite(("glyphs",), ["seqlora", "ewc", "treelora"], seeds=2)
    for run in records[1::2]:  # the second seed
        for task in run["tasks"]:
            task["train_seconds"] *= 1.5  # long whiskers to both sides, where a label would stand
    figure = figures.fig4c(panel_of(tmp_path, records))
    axes = figure.axes[0]
    whiskers = [
        axes.transData.transform(segment)
        for container in axes.containers
        for lines in container.lines[2]
        for segment in lines.get_segments()
    ]
    assert len(whiskers) == 6
    for (left, low), (right, high) in whiskers:
        for box in boxes_of_labels(figure):
            assert figures._overlap(box, (left - 1, low - 1, right + 1, high + 1)) == 0


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A small suite with an unknown method, drawn twice, the second time from another place."""
    made = []
    for _ in range(2):
        folder = tmp_path_factory.mktemp("drawn")
        source = write(folder / "runs.jsonl", suite(("glyphs",), ("seqlora", "mine", "joint"), 2))
        assert main([str(source), "--out", str(folder / "out")]) == 0
        made.append(folder / "out")
    return made


def test_two_runs_give_the_same_bytes(drawn):
    first, second = (sorted(p for p in out.rglob("*") if p.is_file()) for out in drawn)
    assert [p.name for p in first] == [p.name for p in second]
    assert {p.suffix for p in first} == {".csv", ".md", ".tex", ".pdf", ".svg", ".html"}
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name
    declared = exhibits.files([record(method="mine")["spec"]])
    assert sorted(str(drawn[0] / name) for name in declared) == [str(path) for path in first]


def test_report_is_self_contained_and_complete(drawn):
    page = (drawn[0] / "report/index.html").read_text()
    assert f'<p class="banner">{LABEL.replace(chr(39), "&#39;")}</p>' in page
    assert page.count("data:image/svg+xml;base64,") == 4
    assert "http" not in page.replace("http://www.w3.org", "") and "<script" not in page
    for stated in ("torch 2.14.1", "c0ffee", "SHA-256", "mine", "Threads", "2026-01-02T00:00:00Z"):
        assert stated in page, stated
    for name in metrics.METRICS.values():
        assert f"<dt>{name}</dt>" in page, f"report.html.j2 does not define {name}"
    links = [part.split('"')[0] for part in page.split('<a href="../')[1:]]
    assert links and all((drawn[0] / link).is_file() for link in links)


def test_report_escapes_every_string(tmp_path):
    evil = "<script>alert('x')</script>"
    run = set_paths(record(), spec__method__label=evil, suite__label=evil, key=evil)
    run["spec"]["method"]["config"] = {"name": evil}
    bad = failed(set_paths(run, spec__seed=1, key="2"), error=evil)
    source = write(tmp_path / "runs.jsonl", [run, bad])
    page = exhibits.make(read_suite(source), tmp_path, ["report"])[tmp_path / "report/index.html"]
    page = page.decode()
    assert "<script" not in page and "&lt;script&gt;" in page


def test_panels_part_streams_backbones_and_limits(tmp_path):
    wide = [set_paths(record(seed=1), spec__backbone__name="vit-wide")]
    short = [set_paths(record(seed=2), spec__stream__train_per_class=5)]
    found = read_suite(write(tmp_path / "runs.jsonl", [record(), record("docs"), *wide, *short]))
    assert {panel.slug: len(panel.runs) for panel in found.panels} == {
        "glyphs-vit-micro-glyphs": 1,
        "glyphs-vit-micro-glyphs-2": 1,
        "glyphs-vit-wide": 1,
        "docs": 1,
    }


# ---- the command line ------------------------------------------------------------------------


def test_exhibits_choose_what_is_written(tmp_path, capsys):
    source = write(tmp_path / "runs.jsonl", SMALL)
    out = tmp_path / "out"
    assert main([str(source), "--out", str(out), "--exhibits", "summary", "differences"]) == 0
    written = sorted(path.name for path in out.rglob("*.*") if path.is_file())
    assert written == [
        "differences-glyphs.csv",
        "differences-glyphs.md",
        "differences-glyphs.tex",
        "summary.csv",
    ]
    assert len((out / "summary.csv").read_text().splitlines()) == 1 + len(SMALL)
    assert main([str(source), "--out", str(out), "--exhibits", "acuracy"]) == 2
    assert capsys.readouterr().err == "There is no exhibit 'acuracy': did you mean 'accuracy'?\n"


def test_several_files_get_a_folder_each(tmp_path, capsys):
    sources = [
        str(write(tmp_path / f"{name}.jsonl", suite(("glyphs",), ("ewc",), 1, suite=name)))
        for name in ("demo", "cifar")
    ]
    out = tmp_path / "out"
    assert main([*sources, "--out", str(out), "--exhibits", "summary"]) == 0
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.csv")) == [
        "cifar/summary.csv",
        "demo/summary.csv",
    ]
    assert main([sources[0], sources[0], "--out", str(out)]) == 2
    assert "another suite" in capsys.readouterr().err


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
        (with_nan, "line 1: corrupt or truncated (the number NaN, which is not JSON)"),
        (lambda lines: [lines[0], "[1, 2]"], "line 2: not a result record"),
        (lambda lines: [lines[0], ""], "line 2: corrupt or truncated"),
        (lambda lines: [*lines, lines[0]], "line 3: seqlora with seed 0"),
        (edited(schema=2), "schema 2, but this version reads schema 1"),
        (edited(status="ok"), "the status is 'ok'"),
        (edited(suite__name="other"), "belongs to the suite 'demo', but the file began"),
        (edited(spec__method={"name": "ewc"}), "lacks ['spec.method.label'"),
        (edited(R=[[0.5, None]]), "R must be 2 x 2 scores, but is (1, 2)"),
        (edited(R=[[0.5], [0.5, 0.5]]), "R must be 2 x 2 scores, but is ragged"),
        (edited(R=[[0.5, None], [0.5, None]]), "lower triangle or only its last row"),
        (
            edited(
                stream__tasks=["a", "b", "c"],
                R=[[0.5, None, None], [None, 0.5, None], [0.5, 0.5, 0.5]],
            ),
            "lower triangle or only its last row",
        ),
        (edited(R=[[0.5, None], [0.5, 50.0]]), "scores must lie in [0, 1], but R holds 50"),
        (edited(tasks=[{"name": "greek"}]), "entry 0 of tasks lacks ['steps'"),
        (without("spec"), "line 2: not a result record of this project, as it lacks"),
        (without("tasks"), "lacks ['tasks']"),
        (with_text('"seed": 0', '"seed": 0, "seed": 1'), "the key 'seed' stands twice"),
        (with_text('"last_loss": 0.4', '"last_loss": 1e999'), "a number that is not finite"),
        (with_text('"last_loss": 0.4', f'"last_loss": {2**63}'), "more than 64 bits"),
        (with_text('"last_loss": 0.4', f'"last_loss": {"9" * 5000}'), "line 1: corrupt"),
        (with_text('"last_loss": 0.4', f'"last_loss": {"[" * 200}{"]" * 200}'), "too deeply"),
        (with_text('"last_loss": 0.4', f'"last_loss": {"[" * 10**5}'), "too deeply"),
        (edited(spec__seed="0"), "spec.seed must be a whole number, but is '0'"),
        (edited(spec__seed=True), "spec.seed must be a whole number, but is True"),
        (edited(spec__seed=0.5), "spec.seed must be a whole number, but is 0.5"),
        (edited(spec__modality="sound"), "spec.modality must be vision or language"),
        (edited(spec__method__label=["a"]), "spec.method.label must be a text"),
        (edited(spec__method__config=[1]), "spec.method.config must be an object"),
        (edited(spec__train__epochs=[-1]), "spec.train.epochs[0] must be a whole number"),
        (edited(stream__tasks=["a", 5]), "stream.tasks[1] must be a text, but is 5"),
        (edited(stream__groups=["a"]), "2 tasks have 1 groups"),
        (edited(tasks={}), "tasks must be a list"),
        (edited(R=[["0.5", None], [0.5, 0.5]]), "scores must lie in [0, 1], but R holds '0.5'"),
        (edited(R=[[0.5, None], [0.5, True]]), "scores must lie in [0, 1], but R holds True"),
        (edited(footprint={"state_bytes": -1}), "footprint.state_bytes must be"),
        (edited(error={"a": 1}), "error must be a text or null"),
        (edited(provenance__threads="two"), "provenance.threads must be"),
        (edited(test_curve=[{"task": 0}]), "entry 0 of test_curve lacks ['samples', 'score']"),
        (
            edited(test_curve=[{"task": 7, "samples": 1, "score": 0.1}]),
            "test_curve has the task 7, but there are 2",
        ),
        (
            edited(diagnostics={"trees": [{"tasks": [0]}] * 2}),
            "diagnostics.trees[0] must be a tree",
        ),
        (edited(diagnostics={"trees": [LEAF]}), "there must be a tree after each of 2 tasks"),
        (
            edited(diagnostics={"pulls": [[[-1]]]}),
            "diagnostics.pulls[0][0] must be a list of whole",
        ),
        (edited(diagnostics={"pulls": [3]}), "diagnostics.pulls[0] must be a list or null"),
        (edited(tasks=[]), "one for all, but has 0"),
        (edited(suite__name="../x"), "suite.name must be a name"),
        (edited(spec__backbone__name="a\\b"), "spec.backbone.name must be a name"),
        (edited(spec__stream__name="/etc/x"), "spec.stream.name must be a name"),
        (edited(spec__stream__name=".."), "spec.stream.name must be a name"),
        (edited(spec__stream__name=""), "spec.stream.name must be a name"),
        (edited(spec__stream__name="a\x1bb"), "spec.stream.name must be a name"),
        (edited(spec__stream__name="x" * 300), "spec.stream.name must be a name"),
        (larger, "has 3 tasks, but an earlier run on this stream and backbone has 2"),
    ],
)
def test_bad_records_are_refused_and_nothing_is_lost(tmp_path, capsys, spoil, said):
    source, out = write(tmp_path / "runs.jsonl", SMALL[:2]), tmp_path / "out"
    command = [str(source), "--out", str(out), "--exhibits", "summary", "accuracy"]
    assert main(command) == 0
    before = {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()}
    capsys.readouterr()
    source.write_text("".join(f"{line}\n" for line in spoil(source.read_text().splitlines())))
    good = write(tmp_path / "good.jsonl", suite(("docs",), ("ewc",), 1, suite="other"))
    for files in ([str(source)], [str(good), str(source)]):
        assert main([*files, *command[1:]]) == 2
        error = capsys.readouterr().err
        assert said in error and str(source) in error and error.count("\n") == 1
    after = {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()}
    assert before == after and before


@pytest.mark.parametrize("name", ["x/../../victim/NOTES", "javascript:alert(1)//", "..", "/some/x"])
def test_a_strangers_names_lead_nowhere_else(tmp_path, capsys, name):
    victim = tmp_path / "victim" / "NOTES.md"
    victim.parent.mkdir()
    victim.write_text("precious")
    good = write(tmp_path / "good.jsonl", SMALL[:2])
    for place in ("spec__stream__name", "suite__name", "spec__backbone__name"):
        bad = set_paths(small("ewc", 0, [[0.9, None], [0.5, 0.9]]), **{place: name})
        source = write(tmp_path / "bad.jsonl", [bad])
        for files in ([str(source)], [str(good), str(source)]):
            assert main([*files, "--out", str(tmp_path / "out")]) == 2
            error = capsys.readouterr().err
            assert f"{source}, line 1: " in error and error.count("\n") == 1
    assert victim.read_text() == "precious" and not (tmp_path / "out").exists()


def test_odd_names_are_folders_and_links(tmp_path, monkeypatch):
    for module in ("__main__", "claims"):  # a page of its own work
        none = (tmp_path / "none", tmp_path / "none")
        monkeypatch.setattr(f"analysis.{module}.EXPERIMENTS", none)
    names = ["javascript:alert(1)", 'my suite "2" #1%']
    sources = [
        str(write(tmp_path / f"{i}.jsonl", [failed(record(suite=name))]))
        for i, name in enumerate(names)
    ]
    out = tmp_path / "out"
    assert main([*sources, "--out", str(out), "--exhibits", "claims", "report"]) == 0
    page = (out / "index.html").read_text()
    assert 'href="javascript' not in page
    links = [part.split('"')[0] for part in page.split('<a href="./')[1:]]
    assert [unquote(link).partition("/")[0] for link in links] == names
    assert all((out / unquote(link)).is_file() for link in links)


def test_messages_are_no_commands_to_a_terminal(tmp_path, capsys):
    bad = set_paths(record(), spec__method__label="a\x1b[2J")
    source = write(tmp_path / "b\x1b[31m.jsonl", [bad, bad])
    assert main([str(source), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error and "a\\x1b[2J" in error and "b\\x1b[31m.jsonl" in error


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


def test_only_plain_files_are_read(tmp_path, capsys):
    os.mkfifo(tmp_path / "runs.jsonl")
    assert main([str(tmp_path / "runs.jsonl"), "--out", str(tmp_path / "out")]) == 2
    assert "is no plain file" in capsys.readouterr().err


def all_kinds_of_runs():
    """Three seeds of methods with and without steps, variants, an upper bound, and text."""
    square = [[0.9, None], [0.5, 0.9]]
    kinds = {"seqlora": {}, "treelora": {}, "hidetreelora": {}, "ranpac": {}}
    kinds |= {"treelora-random": {"search": "random"}, "treelora-strong": {"strength": 0.5}}
    for label, config in kinds.items():
        for seed in range(3):
            run = small(label.partition("-")[0], seed, square)
            run["spec"]["method"] |= {"label": label}
            run["spec"]["method"]["config"] |= {"search": "lcb", "strength": 0.1, "layers": None}
            run["spec"]["method"]["config"] |= config
            run["key"] = f"{label} {seed}"
            if label == "ranpac":
                run["tasks"] = [task | {"steps": 0, "train_seconds": 0} for task in run["tasks"]]
            yield run
    for seed in range(3):
        yield small("joint", seed, [[None, None], [0.9, 0.9]])
    for method in ("seqlora", "treelora", "olora", "hidelora"):
        for seed in range(3):
            yield record("docs", method, seed)
    yield set_paths(  # a stream with a single task
        record("cifar100"), R=[[0.5]], stream={"tasks": ["a"]}, tasks=record()["tasks"][:1]
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("draw", range(8))
def test_any_part_of_a_suite_gives_a_report(tmp_path, draw):
    """Whatever is missing, failed or skipped, and however little is left."""
    chance, runs = random.Random(draw), []
    for run in all_kinds_of_runs():
        fate = chance.random()
        if fate < 0.3:
            runs.append(run)
        elif fate < 0.5:
            run = failed(run, chance.choice(["", "broke"]), chance.choice(["failed", "skipped"]))
            for part in chance.sample(["provenance", "stream"], chance.randint(0, 2)):
                run.pop(part)
            runs.append(run)
    suite_of = read_suite(write(tmp_path / "runs.jsonl", runs[: chance.choice([1, 2, 99])]))
    figures = exhibits.FIGURES if draw == 0 else ()  # which take their time
    assert exhibits.make(suite_of, tmp_path, ("summary", *exhibits.TABLES, *figures))
    verdicts = claims.judge([suite_of])
    assert claims.table(verdicts).rows and claims.csv(verdicts)
    assert pages.headlines(verdicts, [suite_of]) and pages.claims_page(verdicts, [suite_of], {})
    assert pages.results_page([suite_of], {})
    if draw == 1:
        assert fidelity.document([suite_of])
        assert "</html>" in report.page(suite_of, accuracy_of(suite_of), {}, [])


def test_published_files_must_have_their_digest(tmp_path):
    source = write(tmp_path / "demo.jsonl", SMALL)
    sums, digest = tmp_path / "SHA256SUMS", hashlib.sha256(source.read_bytes()).hexdigest()
    sums.write_text(f"{digest}  demo.jsonl\n")
    assert read_suite(source).digest == digest
    sums.write_text(f"{'0' * 64}  demo.jsonl\n")
    with pytest.raises(RecordError, match="changed after it was published"):
        read_suite(source)
    sums.write_text(f"{digest}  other.jsonl\n")
    with pytest.raises(RecordError, match="is not listed in"):
        read_suite(source)


@pytest.mark.parametrize(("module", "name"), [(regret, "regret"), (accounting, "accounting")])
def test_published_experiments_must_have_their_digest(tmp_path, module, name):
    (tmp_path / "SHA256SUMS").write_text(f"odd line\n{'0' * 64}  {name}.json\n")
    (tmp_path / f"{name}.json").write_text("{}")
    with pytest.raises(RecordError, match="changed after it was published"):
        module.load(tmp_path / f"{name}.json")


def test_missing_file_and_full_disk_are_one_sentence(tmp_path, capsys, monkeypatch):
    assert main([str(tmp_path / "none.jsonl"), "--out", str(tmp_path)]) == 2
    assert "none.jsonl cannot be read (No such file" in capsys.readouterr().err
    source, out = write(tmp_path / "runs.jsonl", SMALL), tmp_path / "out"
    command = [str(source), "--out", str(out), "--exhibits", "summary"]
    assert main(command) == 0
    old = (out / "summary.csv").read_bytes()

    def full(self, data):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(command) == 2
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.undo()
    assert (out / "summary.csv").read_bytes() == old
    assert [path.name for path in out.iterdir()] == ["summary.csv"]


BLOCKED = """
import runpy, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "timm", "transformers", "benchmarks", "baselines"):
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
sys.argv = ["analysis", *sys.argv[1:]]
runpy.run_module("analysis", run_name="__main__", alter_sys=True)
"""


def test_the_workflow_asks_for_names_without_the_heavy_packages():
    code = "import sys, analysis.exhibits as e; e.files([]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not {"pandas", "matplotlib", "scipy", "jinja2"} & set(done.stdout.split())


def test_everything_is_drawn_without_torch(tmp_path):
    source = write(tmp_path / "runs.jsonl", suite(("docs",), ("seqlora", "treelora"), 2))
    out = tmp_path / "out"
    command = [sys.executable, "-c", BLOCKED, str(source), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = {path.relative_to(out).as_posix() for path in out.rglob("*.*") if path.is_file()}
    assert made == set(exhibits.files([json.loads(line)["spec"] for line in source.open()]))
