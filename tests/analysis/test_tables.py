"""Tables: golden numbers, what each states, variants, language, and text that stays text."""

import copy
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_records import (
    LABEL,
    SMALL,
    changed,
    failed,
    panel_of,
    record,
    seeds,
    set_paths,
    short,
    small,
    suite,
    suite_of,
    with_tasks,
)

from analysis import draw, pages
from analysis.catalogue import FIGURES, TABLES, about, fitting
from analysis.claims.judge import judge, measure
from analysis.claims.judge import table as claims_table
from analysis.figures.sensitivity import swept_settings
from analysis.records import reading
from analysis.records.runs import read_suite
from analysis.tables.accuracy import accuracy, differences, tasks
from analysis.tables.choices import ablations, settings
from analysis.tables.costs import speed
from analysis.tables.diagnostics import diagnostics
from analysis.tables.language import data, general, routing
from analysis.tables.latex import tex
from analysis.tables.setting import setting_notes, source_notes
from analysis.tables.table import Column, Table, csv, percent, plain
from analysis.tables.tuning import choices, tuning
from analysis.text import markdown

GOLDEN = """\
| Method | Seeds | ACC ↑ | BWT (paper) ↓ | TIME s ↓ |
| :--- | :--- | ---: | ---: | ---: |
| SeqLoRA | 2 | 52.50 ± 3.54 | 32.50 ± 10.61 | **5.00 ± 1.41** |
| TreeLoRA | 2 | **72.50 ± 3.54** | **12.50 ± 10.61** | **5.00 ± 1.41** |
| joint | 1 of 2 (1 failed) | 90.00 | – | 2.00 |
"""


def test_golden_table(tmp_path):
    page = pages.results_page([suite_of(tmp_path, SMALL)], {})
    assert GOLDEN in page and "- joint failed, seed 1: out of memory" in page


def test_golden_differences(tmp_path):
    table = differences(panel_of(tmp_path, SMALL))
    assert [cell.text for cell in table.grid[0][0]] == [
        *("SeqLoRA", "−20.00 [−20.00, −20.00]", "+20.00 [+20.00, +20.00]"),
        *("+40.00 [+40.00, +40.00]", "+0.00 [+0.00, +0.00]", "+0.00 [+0.00, +0.00]", "2"),
    ]
    assert table.grid[1][0][1:4] == [("+20.00", False), ("–", False), ("–", False)]


def test_every_table_states_its_setting(tmp_path):
    panel = panel_of(tmp_path, SMALL)
    for name, exhibit in fitting(TABLES, [r["spec"] for r in panel.runs["record"]]).items():
        table = exhibit.draw(panel)
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


def test_the_tables_say_what_labels_the_weights_have_seen(tmp_path):
    runs = [record(seed=seed) for seed in range(2)]
    assert "labels" not in setting_notes(panel_of(tmp_path, runs))[1]
    for run in runs:
        run["provenance"]["weights_labels"] = "in1k"
    notes = setting_notes(panel_of(tmp_path, runs))[1]
    assert "labels seen by its weights: in1k (the paper's have seen none), seeds" in notes


def test_the_tables_say_how_many_runs_shared_a_gpu(tmp_path):
    runs = [record(seed=seed) for seed in range(2)]
    for run, shared in zip(runs, (1, None), strict=True):
        run["provenance"]["runs_per_gpu"] = shared
    assert "on a GPU" not in setting_notes(panel_of(tmp_path, runs))[2]
    runs[1]["provenance"]["runs_per_gpu"] = 14
    assert (
        "threads per run 1, runs on a GPU at a time 1, 14."
        in setting_notes(panel_of(tmp_path, runs))[2]
    )


def test_the_tables_say_that_a_run_was_continued_on_another_device(tmp_path):
    run = record()
    assert "Times from different" not in setting_notes(panel_of(tmp_path, [run]))[2]
    tries = [("unused", 0), ("first", 1), ("cpu", 5)]
    run["provenance"]["tries"] = [
        {"started": "2026-01-02T00:00:00Z", "device": device, "tasks": n} for device, n in tries
    ]
    note = setting_notes(panel_of(tmp_path, [run]))[2]
    assert "Device cpu, first, threads" in note and "Times from different devices" in note


def test_no_table_says_where_data_lies(tmp_path):
    run = set_paths(record(), spec__stream__path="/srv/me/my data/birds")
    bad = failed(set_paths(run, spec__seed=1, key="2"), error="/srv/me/x.csv is empty")
    text = accuracy(panel_of(tmp_path, [run, bad])).markdown()
    assert "path birds" in text and "seed 1: x.csv is empty" in text and "/srv" not in text


def test_rows_of_different_code_say_so(tmp_path):
    def runs(*digests, **more):
        made = seeds("treelora", 0.5) + seeds("ewc", 0.5) + seeds("gem", 0.5)
        for run, digest in zip(made, digests, strict=False):
            run["provenance"] |= {"source_digest": digest} | more
        return source_notes(panel_of(tmp_path, made))

    assert runs() == []
    rest = record()["provenance"]["source_digest"][:6]
    (note,) = runs(*4 * ["abcdef12"])
    assert note == f"Made by 2 versions of the code: {rest} (GEM, EWC), abcdef (TreeLoRA)."
    loud, _ = runs("abcdef12")
    assert loud.startswith("CAUTION") and loud.endswith("TreeLoRA.")
    files = {"baselines/ewc.py": "111111", "treelora/tree.py": "222222"}
    assert runs(*12 * ["old"], sources=files) == []  # what no run has of its own does not count


def test_a_row_is_called_by_its_title(tmp_path):
    named = [run for run in seeds("treelora", 0.5) + seeds("ewc", 0.4)]
    for run in named[:4]:
        run["spec"]["method"]["title"] = "Tree*LoRA"
    panel = panel_of(tmp_path, named)
    table = differences(panel)
    assert "differences to Tree*LoRA" in table.title and table.rows[0]["method"] == "ewc"
    text = accuracy(panel).markdown()
    assert "| Tree\\*LoRA |" in text and "| EWC |" in text and "| TreeLoRA |" not in text
    for run in named:  # two of one title are called by their labels
        run["spec"]["method"]["title"] = "same"
    assert panel_of(tmp_path, named).titles == {"ewc": "ewc", "treelora": "treelora"}


def test_differences_are_taken_to_the_reference_of_the_suite(tmp_path):
    runs = seeds("treelora", 0.5) + seeds("ewc", 0.4) + seeds("gem", 0.3)
    for run in runs:
        run["suite"]["reference"] = "gem"
    (row, *_) = differences(panel_of(tmp_path, runs)).rows
    assert row["method"] == "ewc" and row["acc"].mean == pytest.approx(0.1)


def test_what_an_added_method_reports_of_itself_is_shown(tmp_path):
    runs = seeds("mine", 0.5)
    for seed, run in enumerate(runs):
        run["diagnostics"] = {"kept": seed, "by layer": {"first": [0.5, seed]}, "mode": "a"}
        run["diagnostics"] |= {"long": [0] * 99, "trees": None}
    table = diagnostics(panel_of(tmp_path, runs))
    rows = {row["what"]: row["value"] for row in table.rows}
    assert rows == {"kept": "1.5", "by layer first": "0.5 1.5", "mode": "a", "trees": "none"}
    assert "diagnostics" in fitting(TABLES, [runs[0]["spec"]])
    assert "diagnostics" not in fitting(TABLES, [record()["spec"]])


def test_csv_holds_fractions_and_empty_fields(tmp_path):
    lines = accuracy(panel_of(tmp_path, SMALL)).csv().splitlines()
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
    text = accuracy(panel).markdown()
    assert "| EWC | 0 of 2 (2 failed) | failed (2) | – |" in text
    assert "| GEM | 0 of 2 (2 skipped) | skipped (2) | – |" in text
    assert "EWC failed, seed 0, 1: the loss became nan at step 17" in text
    assert "GEM skipped, seed 0, 1: needs classes" in text
    all_failed = [failed(run, error="") for run in suite(("docs",), ("ewc",), seeds=1)]
    _, made = draw.make(suite_of(tmp_path, all_failed), tmp_path, ["accuracy"])
    text = made["tables/accuracy-docs.md"].decode()
    assert "failed (1)" in text and "EWC failed, seed 0: no reason recorded" in text


def test_tasks_follow_their_name_through_different_orders(tmp_path):
    second = small("treelora", 1, [[0.2, None], [0.4, 0.6]])
    second["stream"]["tasks"] = ["arrows", "greek"]
    table = tasks(panel_of(tmp_path, [SMALL[2], second]))
    final = next(row for row in table.rows if row["when"] == "final")
    assert final["task greek"].mean == pytest.approx((0.5 + 0.6) / 2)
    assert [row["mean"].mean for row in table.rows] == pytest.approx([0.65, 0.6])
    second["stream"]["tasks"] = ["classes 3 4", "classes 1 2"]
    table = tasks(panel_of(tmp_path, [SMALL[2], second]))
    assert [column.key for column in table.columns[3:]] == ["task 1", "task 2"]


def test_tasks_of_one_name_are_told_by_their_place(tmp_path):
    run = small("treelora", 0, [[0.2, None], [0.4, 0.6]])
    run["stream"]["tasks"] = ["same", "same"]
    table = tasks(panel_of(tmp_path, [run]))
    assert [column.key for column in table.columns[3:]] == ["task 1", "task 2"]


def test_only_differing_training_settings_are_listed_by_method(tmp_path):
    other = set_paths(SMALL[2], spec__train__learning_rate=0.03)
    table = settings(panel_of(tmp_path, [SMALL[0], other]))
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


def test_runs_of_older_code_are_marked(tmp_path):
    old = record("cifar100", "l2p")
    new = set_paths(old, spec__method__version=2, spec__seed=1, key="2")
    text = accuracy(panel_of(tmp_path, [old, record("cifar100", "ewc")])).markdown()
    assert "| L2P † |" in text and "L2P †: " in text and "| EWC |" in text
    panel = panel_of(tmp_path, [old])
    assert "†" not in accuracy(panel).csv()
    assert "†" not in accuracy(panel_of(tmp_path, [new])).markdown()
    assert "†" not in accuracy(panel_of(tmp_path, [record("docs", "l2p")])).markdown()


def test_inferred_tasks_are_shown_where_a_method_infers_them(tmp_path):
    hide, other = record(method="hidelora"), record(method="ewc")
    assert "Acc@task" not in accuracy(panel_of(tmp_path, [hide, other])).markdown()
    hide["tasks"][-1]["task_accuracy"] = [0.5] * 9 + [1.0]
    hide["diagnostics"] = {"cached_features": True}
    shown = accuracy(panel_of(tmp_path, [hide, other])).markdown()
    row = next(line for line in shown.splitlines() if line.startswith("| HiDeLoRA"))
    assert "Acc@task" in shown and "| 55.00 |" in row
    assert "TIME of HiDeLoRA: the frozen backbone's features" in shown


def test_variants_stand_by_what_they_change_with_their_paired_difference(panel):
    table = ablations(panel)
    shown = [(row["method"], row["changed"], row["value"]) for row in table.rows]
    assert shown == [
        ("treelora-short", "epochs", "1"),
        ("treelora-strong", "strength", "0.5"),
        ("treelora-short-strong", "epochs, strength", "1, 0.5"),
    ]
    deltas = [row["delta"].mean for row in table.rows]
    assert deltas == pytest.approx([-0.01, 0.02, 0], abs=1e-9)
    (row, *_), *_ = table.grid
    assert [cell.text for cell in row] == [
        *("TreeLoRA short", "epochs", "1", "6", "2", "57.64 ± 0.69", "−1.00 [−1.00, −1.00]"),
        *("30.77 ± 2.40", "51.1 ± 0.6", "32.8 ± 0.4"),
    ]
    assert [row["base"] for row in table.rows[1:]] == ["0.1", "6, 0.1"]


def test_speed_is_time_per_step_times_steps(panel):
    rows = {row["method"]: row for row in speed(panel).rows}
    assert rows["treelora-short"]["epochs"] == "1" and "treelora-strong" not in rows
    for row in rows.values():
        product = row["step_ratio"].mean * row["steps_ratio"].mean
        assert row["time_ratio"].mean == pytest.approx(product, rel=0.01)
    assert rows["seqlora"]["time_ratio"].mean == 1


def test_epochs_may_differ_by_task(tmp_path):
    base, other = record("docs"), record("docs")
    base["spec"]["train"]["epochs"] = [2, 1, 3, 2, 1, 2, 2, 3]
    records = [
        base,
        changed(other, "treelora-even"),
        changed(base, "treelora-0.5", {"strength": 0.5}),
    ]
    panel = panel_of(tmp_path, records)
    assert [row["value"] for row in ablations(panel).rows] == ["6", "0.5"]
    assert [row["epochs"] for row in speed(panel).rows] == ["2 1 3 2 1 2 2 3", "6"]
    assert set(swept_settings(panel)) == {"strength"}


def test_tables_show_a_method_without_steps_but_do_not_time_its_steps(tmp_path):
    runs = [record(method=name, seed=s) for name in ("ranpac", "seqlora") for s in (0, 1)]
    for run in runs[:2]:
        for task in run["tasks"]:
            task |= {"steps": 0, "train_seconds": 0.0, "last_loss": None}
    panel = panel_of(tmp_path, runs)
    assert [row["method"] for row in speed(panel).rows] == ["seqlora"]
    rows = {row["method"]: row for row in accuracy(panel).rows}
    assert rows["seqlora"]["mask"] == "all" and "mask" not in rows["ranpac"]
    assert rows["ranpac"]["time_seconds"].mean > 0
    only = panel_of(tmp_path, runs[:2])
    assert speed(only).rows == []


def test_the_accuracy_table_states_metrics_noise_and_floor(tmp_path):
    floor = [
        {"task": "a", "rule": "majority answer", "score": 0.3},
        {"task": "b", "rule": "first 30 words", "score": 0.1},
    ]
    runs = [with_tasks(record("docs", "seqlora"), floor=floor), with_tasks(record("docs", "ewc"))]
    panel = panel_of(tmp_path, runs)
    table = accuracy(panel)
    (bound,) = table.below
    assert bound["method"] == "floor" and bound["acc"].mean == pytest.approx(0.2)
    text = table.markdown()
    assert "Metrics of the tasks: exact (a); rouge l (b)." in text
    assert "by majority answer (a); first 30 words (b)." in text
    error = "OP of one run has a binomial standard error of at most"
    assert f"With 50 to 100 test items a task, {error}" in text and "on the same items" in text
    other = set_paths(runs[1], stream__tasks=["a", "c"])
    other["tasks"][1]["name"] = "c"
    assert (
        "draws its own tasks (2 sets)" in accuracy(panel_of(tmp_path, [runs[0], other])).markdown()
    )
    assert "| floor | – | 20.00 |" in text
    per_task = tasks(panel)
    assert per_task.below[0]["task b"].mean == 0.1 and "| floor |" in per_task.markdown()
    certain = [with_tasks(record("docs", "ewc"), ("exact", "prefix"), (100, 100), (0.5, 0.5))]
    text = accuracy(panel_of(tmp_path, certain)).markdown()
    assert "of about 3.54 points" in text and "| floor" not in text  # 0.5 / (2 * 100)^0.5
    assert "floor" not in accuracy(panel_of(tmp_path, [record("glyphs")])).markdown()


def test_the_accuracy_table_has_a_floor_that_does_not_know_the_task_and_legal_answers(tmp_path):
    blind = {"rule": "majority answer", "scores": [0.3, 0.2]}
    runs = [with_tasks(record("docs", "seqlora", seed)) for seed in (0, 1)]
    for run, shares in zip(runs, ([0.5, 1.0], [None, 0.25]), strict=True):
        run["stream"]["blind_floor"] = blind
        run["tasks"][-1]["legal_share"] = shares
    table = accuracy(panel_of(tmp_path, runs))
    (bound,) = table.below
    assert bound["method"] == "floor of all tasks" and bound["acc"].mean == pytest.approx(0.25)
    (row,) = table.rows
    assert row["legal_share"].mean == pytest.approx(0.5)  # of 0.75 and of what one task says
    text = table.markdown()
    assert "by one rule for all (majority answer)" in text and "Legal: final outputs" in text
    text = accuracy(panel_of(tmp_path, [record("docs")])).markdown()
    assert "Legal" not in text and "of all tasks" not in text


def test_routing_stands_beside_word_counts(tmp_path):
    runs = []
    for seed, (own, words) in enumerate([([0.8, 0.6], [0.9, 1.0]), ([0.9, 0.7], [0.9, 0.9])]):
        hide, plain = (with_tasks(record("docs", m, seed)) for m in ("hidelora", "seqlora"))
        hide["tasks"][-1] |= {"task_accuracy": own}
        for run in (hide, plain):
            run["tasks"][-1] |= {"router_accuracy": words}
        runs += [hide, plain]
    (row,) = routing(panel_of(tmp_path, runs)).rows
    assert row["method"] == "hidelora" and row["n"] == 2
    assert row["task_accuracy"].mean == pytest.approx(0.75)
    assert row["router_accuracy"].mean == pytest.approx(0.925)
    assert row["difference"].mean == pytest.approx(-0.175)
    text = routing(panel_of(tmp_path, runs[1::2])).markdown()
    assert "No method here infers the task; by word counts 92.50 % are found." in text
    text = routing(panel_of(tmp_path, [record("docs")])).markdown()
    assert "do not say how often word counts" in text


def test_general_ability_stands_before_and_after(tmp_path):
    runs = []
    for seed, after in enumerate([3.5, 3.75]):
        run = record("docs", "seqlora", seed)
        run["spec"]["train"]["general"] = "docs"
        run["general"] = {"text": "docs", "tokens": 100, "before": 3.25, "after": after}
        runs.append(run)
    assert "general" in fitting(TABLES, [runs[0]["spec"]])
    assert "general" not in fitting(TABLES, [record("docs")["spec"]])
    made = general(panel_of(tmp_path, runs))
    (row,) = made.rows
    assert row["before"].mean == 3.25 and row["difference"].mean == pytest.approx(0.375)
    assert "nats per token" in made.markdown() and "general docs" in made.markdown()
    gone = runs[0] | {"status": "failed", "error": "x", "R": None, "general": None}
    assert general(panel_of(tmp_path, [gone])).rows == []


def test_defects_stand_with_their_tasks(tmp_path):
    found = [
        {"task": "a", "kind": "duplicates", "count": 4, "note": "in train"},
        {"task": "a", "kind": "leaks", "count": 1, "note": "dropped"},
        {"task": "c", "kind": "reconstructed", "count": 500, "note": ""},
    ]
    floor = [{"task": "a", "rule": "majority answer", "score": 0.3}]
    run = with_tasks(record("docs", "seqlora"), defects=found, floor=floor)
    again = with_tasks(record("docs", "seqlora", 1), defects=copy.deepcopy(found))
    table = data(panel_of(tmp_path, [run, again]))
    assert [row["task"] for row in table.rows] == ["a", "b", "c"]
    assert table.rows[0]["defects"] == "duplicates: 4 (in train); leaks: 1 (dropped)"
    assert table.rows[0]["floor"].mean == 0.3 and np.isnan(table.rows[1]["floor"].mean)
    text = table.markdown()
    assert "| a | exact | 400 | 100 | 30.00 | majority answer | duplicates: 4 (in train);" in text
    assert "| c | – | – | – | – | – | reconstructed: 500 |" in text and "suite demo" in text
    _, made = draw.make(suite_of(tmp_path, [run, again]), tmp_path, ["data", "routing"])
    assert {Path(name).name for name in made} == {
        f"{table}-docs.{kind}" for table in ("data", "routing") for kind in draw.FORMS
    }
    vision = [record("glyphs")["spec"]]
    assert not {"data", "routing"} & set(fitting(TABLES, vision))


@pytest.mark.parametrize(
    ("found", "fails"),
    [([1.0] + 7 * [0.0], True), (8 * [0.0], True), ([0.5, 0.4] + 6 * [0.0], False)],
)
def test_a_method_that_finds_one_task_only_says_so(tmp_path, found, fails):
    runs = [record("docs", "sapt", seed) for seed in (0, 1)]
    runs[0]["tasks"][-1]["task_accuracy"] = [1.0] + 7 * [0.0]
    runs[1]["tasks"][-1]["task_accuracy"] = found
    panel = panel_of(tmp_path, runs)
    for table in (accuracy(panel), routing(panel)):
        assert any("SAPT" in note and "fails" in note for note in table.notes) == fails


TEX = r"""\documentclass[10pt%s]{article}
\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}
\usepackage{textcomp}\usepackage{array}\usepackage{booktabs}\usepackage{longtable}
\textwidth=6.75in\columnsep=0.25in\textheight=9in\topmargin=-0.5in\oddsidemargin=-0.1in
\begin{document}
%s
\end{document}
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex is installed")
def test_every_published_table_fits_its_page(tmp_path):
    suites = [read_suite(path) for path in reading.published().values()]
    tables = [claims_table(judge([measure(own) for own in suites], {}))]
    for panel in (panel for own in suites for panel in own.panels):
        tables += [own.draw(panel) for own in fitting(TABLES, list(panel.specs.values())).values()]
    for name, _, load, _ in draw.EXPERIMENTS:
        data = load(draw.PUBLISHED / f"{name}.json")
        tables += [own.draw(data) for own in about(TABLES, type(data)).values()]
    texts = [table.latex(narrow) for table in tables for narrow in (False, True)]
    for columns in ("one", "two"):
        own = [text for text in texts if (columns == "one") == ("{longtable}" in text)]
        body = "\\clearpage\n".join(own)
        (tmp_path / "all.tex").write_text(TEX % (f",{columns}column", body))
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]
        assert not re.findall("Overfull .hbox.*|.*Float too large.*", done.stdout)


def test_a_table_without_rows_has_its_columns_in_its_csv():
    columns = [Column("method", "Method"), Column("acc", "ACC", percent, signed=True)]
    assert Table("t", "t", columns, []).csv() == "method,acc,acc_sd,acc_low,acc_high\n"


def trial(label, score, **config):
    """A run of a grid with one seed, tested on images that training left out."""
    rate = config.pop("learning_rate")
    made = record("glyphs", "seqlora", seed=9)
    made = set_paths(
        made, spec__method__label=label, spec__stream__holdout=5, spec__train__learning_rate=rate
    )
    made["spec"]["method"]["config"] |= config
    made["R"][-1] = [score] * len(made["R"])
    return made


def test_the_best_trial_is_chosen_and_the_edge_of_its_grid_is_named(tmp_path):
    trials = [
        trial(f"pull-learning-rate-{rate}-strength-{strength}", score, **settings)
        for rate, strength, score in [
            *((0.001, 0.1, 0.4), (0.001, 1.0, 0.6), (0.002, 0.1, 0.7), (0.002, 1.0, 0.5)),
            *((0.004, 0.1, 0.7), (0.004, 1.0, 0.2)),
        ]
        for settings in [{"learning_rate": rate, "strength": strength}]
    ]
    trials += [
        trial(f"plain-learning-rate-{rate}", score, learning_rate=rate)
        for rate, score in [(0.001, 0.3), (0.002, 0.5)]
    ]
    panel = panel_of(tmp_path, trials)
    found = choices(panel)
    assert found["pull"].settings == {"learning_rate": 0.002, "strength": 0.1}
    assert found["pull"].trials == 6
    assert found["pull"].edge == ["strength"] and found["plain"].edge == ["learning_rate"]
    text = tuning(panel).markdown()
    assert "| pull | 6 | learning rate 0.002, strength 0.1 | 70.00 | 20.00 |" in text
    assert "| plain | 2 | learning rate 0.002 | 50.00 | 30.00 | learning rate |" in text


def test_of_trials_the_choice_is_shown_and_no_scores_as_results(tmp_path):
    trials = [trial(f"plain-learning-rate-{rate}", 0.5, learning_rate=rate) for rate in (1, 2)]
    suite = suite_of(tmp_path, trials)
    assert list(fitting(FIGURES, list(suite.panels[0].specs.values()))) == ["sensitivity"]
    page = pages.results_page([suite], {})
    assert "| plain | 2 | learning rate 1 | 50.00 | 50.00 | learning rate |" in page
    assert "**Scores**" not in page


def test_tables_say_which_rows_are_tuned(tmp_path):
    tuned = set_paths(record("glyphs", "ewc"), spec__method__tuned="pilot/ewc")
    text = accuracy(panel_of(tmp_path, [tuned, record("glyphs", "seqlora")])).markdown()
    assert "in the suite pilot: EWC." in text and "Not tuned: SeqLoRA." in text
    assert "tuned" not in accuracy(panel_of(tmp_path, SMALL)).markdown().lower()


def test_scores_show_what_each_suite_has_varied_and_nothing_twice(tmp_path):
    def varying(name, rows):
        (folder := tmp_path / name).mkdir()
        runs = [
            short(label, seed, 0.5, "treelora", config, suite=name)
            for label, config in {"treelora": {}, **rows}.items()
            for seed in range(2)
        ]
        return suite_of(folder, runs)

    weak, strong = {"strength": 0.01}, {"strength": 1.0}
    suites = [
        varying("demo", {"weak": weak}),
        varying("varied", {"weak": weak, "strong": strong}),
        varying("deep", {"shallow": {"layers": 1}}),
    ]
    page = pages.results_page(suites, {})
    assert page.count("**Scores**") == 1
    titles = [line for line in page.splitlines() if line.startswith("**One choice")]
    assert titles == ["**One choice at a time (varied)**", "**One choice at a time (deep)**"]


@pytest.mark.parametrize("moved", ["device", "part of a task"])
def test_costs_of_another_device_are_in_parentheses_and_never_the_best(tmp_path, moved):
    """Also where a run was continued there, if only within a task."""
    runs = suite(("glyphs",), ("treelora", "ewc", "seqlora"), 2)
    tried = [{"started": "2026-01-02T00:00:00Z", "device": "other", "tasks": 0, "part": True}]
    changes = {
        "device": {"provenance__device": "other"},
        "part of a task": {"provenance__tries": tried},
    }
    for i, run in enumerate(runs):
        if run["spec"]["method"]["label"] == "ewc":
            runs[i] = set_paths(run, **changes[moved])
            for task in runs[i]["tasks"]:
                task["train_seconds"] /= 1000
    table = accuracy(panel_of(tmp_path, runs))
    times = {
        row[0].text: row[[c.key for c in table.columns].index("time_seconds")]
        for row in table.grid[0]
    }
    assert {name for name, cell in times.items() if cell.text.startswith("(")} == {"EWC"}
    assert [name for name, cell in times.items() if cell.bold] in (["SeqLoRA"], ["TreeLoRA"])
    assert "(In parentheses): does not compare with TreeLoRA's" in table.markdown()
