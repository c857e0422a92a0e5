"""Figures: one look for each method, names that can be read, and what is drawn of the runs."""

import re

import matplotlib
import numpy as np
import pytest
from fake_records import changed, panel_of, record, suite, suite_of, with_gaps
from matplotlib import font_manager

from analysis import draw, report
from analysis.catalogue import FIGURES, fitting
from analysis.figures import accuracy, canvas, lettering, style
from analysis.figures.sensitivity import sensitivity, swept_settings
from analysis.records.runs import METHOD_ORDER, MOST_DRAWN
from analysis.records.schema import task_names
from analysis.tables.accuracy import accuracy as accuracy_table
from analysis.tables.accuracy import differences
from analysis.tables.setting import setting_notes


def test_a_method_looks_the_same_whatever_stands_beside_it():
    added = [f"method{i}" for i in range(50)]
    looks = {name: style.style(name) for name in [*style.KNOWN, *added]}
    assert len({(look.colour, look.marker) for look in looks.values()}) == len(looks)
    assert {name: looks[name] for name in style.KNOWN} == style.KNOWN
    known = {look.colour for look in style.KNOWN.values()}
    assert len(known) == len(style.KNOWN) and set(METHOD_ORDER) <= style.KNOWN.keys()
    assert not known & {looks[name].colour for name in added}


def test_a_variant_has_the_colour_of_its_method_and_another_line_and_fill():
    names = {f"ewc-{i}": "ewc" for i in range(10)} | {"ewc": "ewc", "mine": "mine", "a": "mine"}
    looks = style.styles(names)
    assert len(set(looks.values())) == len(names)
    for label, name in names.items():
        assert looks[label][:2] == style.style(name)[:2]
        assert (looks[label] == style.style(name)) == (label == name)
    empty = [look.plot for look in looks.values() if look.fill != "full"]
    assert all(
        "white" in (look.get("markerfacecolor"), look.get("markerfacecoloralt")) for look in empty
    )
    alone = style.styles({"a": "mine"})
    assert alone["a"] == looks["a"]


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
    monkeypatch.setattr(draw, "FIGURES", {})
    _, made = draw.make(suite_of(tmp_path, [record(label="日")]), tmp_path, ["report"])
    assert "no letter for a<" in made["report/index.html"].decode()


def test_figures_ask_the_fonts_that_are_installed(monkeypatch):
    family = matplotlib.rcParams["font.family"]
    monkeypatch.setattr(
        font_manager.fontManager, "get_font_names", lambda: ["DejaVu Sans", "Noto Sans CJK SC"]
    )
    with matplotlib.rc_context({"font.family": ["DejaVu Sans"]}):
        lettering.use_fallbacks()
        assert matplotlib.rcParams["font.family"] == ["DejaVu Sans", "Noto Sans CJK SC"]
    assert matplotlib.rcParams["font.family"] == family


def test_settings_that_were_varied_alone_are_swept_with_no_limit_last(panel, tmp_path):
    assert swept_settings(panel) == {
        "epochs": {"treelora": {1: "treelora-short", 6: "treelora"}},
        "strength": {"treelora": {0.1: "treelora", 0.5: "treelora-strong"}},
    }
    base = changed(record(), "treelora", {"layers": None})
    records = [base, changed(base, "treelora-layers-2", {"layers": 2})]
    own = panel_of(tmp_path, records)
    assert list(swept_settings(own)["layers"]["treelora"]) == [2, float("inf")]
    (axes,) = sensitivity(own).axes[0].child_axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["2", "no limit"]


def test_a_learning_curve_is_the_mean_over_later_tasks_where_all_were_tested(panel):
    points = [(0, 0, 0.9), (1, 0, 0.1), (2, 0, 0.3), (1, 50, 0.5), (2, 50, 0.7), (1, 60, 0.8)]
    run = {"test_curve": [dict(zip(("task", "samples", "score"), p, strict=True)) for p in points]}
    runs = panel.finished["treelora"].iloc[:1].assign(record=[run])
    curve = accuracy._learning_curves(runs)
    assert curve[0].to_dict() == pytest.approx({0: 0.2, 50: 0.6})
    assert accuracy._learning_curves(panel.finished["treelora"]).empty


def test_tables_and_figures_say_where_scores_between_are_missing(tmp_path):
    runs = suite(("glyphs",), ("seqlora", "treelora", "joint"), seeds=2)
    some = [with_gaps(r) if r["spec"]["method"]["name"] == "seqlora" else r for r in runs]
    panel, whole = panel_of(tmp_path, some), panel_of(tmp_path, runs)
    figure = FIGURES["fig4a"].draw(panel)
    seqlora, treelora = (line.get_ydata() for line in figure.axes[0].lines[:2])
    assert np.flatnonzero(~np.isnan(seqlora)).tolist() == [0, 9] and not np.isnan(treelora).any()
    shown = [figure.get_label(), *differences(panel).notes, *accuracy_table(panel).notes]
    assert [t.endswith("not defined: SeqLoRA.") for t in shown].count(True) == 3
    assert not whole.gaps
    values = [differences(p).rows[0] for p in (panel, whole)]
    assert values[0]["bwt_paper"] == values[1]["bwt_paper"]
    assert np.isnan(values[0]["forgetting"].mean) and values[1]["forgetting"].mean > 0


def with_floor(run: dict, score: float = 0.25) -> dict:
    names = task_names(run)
    run["stream"]["floor"] = [{"task": t, "rule": "majority answer", "score": score} for t in names]
    return run


def lines(figure) -> dict:
    return {line.get_label(): line for line in figure.axes[0].lines}


def test_plots_of_text_have_the_floor_and_the_upper_bound_at_the_last_task_only(tmp_path):
    runs = suite(("docs",), ("fix", "seqlora", "treelora", "joint"), seeds=2)
    panel = panel_of(tmp_path, [with_floor(run) for run in runs])
    curves, points = (lines(FIGURES[name].draw(panel)) for name in ("fig4a", "fig4c"))
    assert set(curves["floor"].get_ydata()) == set(points["floor"].get_ydata()) == {0.25}
    assert list(curves["joint"].get_xdata()) == [8]
    assert list(points["FIX"].get_xdata()) == [0, 1]  # a level, whatever time it took
    whole = panel_of(tmp_path, suite(("glyphs",), ("seqlora", "treelora"), seeds=2))
    assert "floor" not in lines(FIGURES["fig4a"].draw(whole))


def test_times_that_do_not_compare_are_said_and_not_drawn(tmp_path):
    runs = suite(("glyphs",), ("seqlora", "ewc", "l2p", "treelora"), seeds=2)
    for run in runs:
        if run["spec"]["method"]["name"] == "ewc":
            run["provenance"]["device"] = "a faster one"
        if run["spec"]["method"]["name"] == "l2p":
            run["provenance"]["runs_per_gpu"] = 3
    panel = panel_of(tmp_path, runs)
    assert panel.elsewhere == {"ewc": "another device", "l2p": "runs on a GPU"}
    against, bars = FIGURES["fig4c"].draw(panel), FIGURES["fig4b"].draw(panel)
    assert {"SeqLoRA", "TreeLoRA"} <= lines(against).keys() and "EWC" not in lines(against)
    assert against.get_label().endswith("with that of TreeLoRA: EWC, L2P.")
    timed = {bar.get_y() for bar in bars.axes[0].patches if bar.get_width() > 0}
    assert len(timed) == 2
    assert [t.get_text() for t in bars.axes[0].texts if "another device" in t.get_text()]


def test_no_curve_is_drawn_where_tests_are_only_at_the_end():
    runs = [record(method=method) for method in ("seqlora", "joint")]
    specs = [run["spec"] for run in runs]
    assert "fig4a" in fitting(FIGURES, specs)
    specs[0]["train"]["evaluate"] = "final"
    assert "fig4a" not in fitting(FIGURES, specs)


def test_a_time_is_of_the_runs_on_the_device_with_most(tmp_path):
    """Differences stay paired by seed, each pair on a device of its own."""
    runs = suite(("glyphs",), ("seqlora", "ewc", "treelora"), seeds=3)
    for run in runs:
        if run["spec"]["method"]["name"] != "ewc" and run["spec"]["seed"] == 1:
            run["provenance"]["device"] = "a slow one"
            for task in run["tasks"]:
                task["train_seconds"] *= 100
                task["peak_bytes"] = 10**9
    panel = panel_of(tmp_path, runs)
    assert panel.elsewhere == {}
    assert list(panel.timed["treelora"]["seed"]) == [0, 2]
    assert list(panel.timed["ewc"]["seed"]) == [0, 1, 2]
    means, every = panel.estimates["treelora"], panel.values.loc["treelora"]
    for name in ("time_seconds", "ms_per_step", "peak_bytes"):
        assert means[name].mean == pytest.approx(every[name][[0, 2]].mean())
    assert means["acc"].mean == pytest.approx(every["acc"].mean())
    assert every["time_seconds"][1] > 50 * means["time_seconds"].mean
    said = "Times from different devices or thread counts do not compare. TIME is on one device: "
    assert f"{said}SeqLoRA, TreeLoRA of seeds 0, 2." in setting_notes(panel)[2]


def test_figures_are_as_wide_as_one_column_or_two_in_fonts_that_journals_take(panel):
    for name, exhibit in fitting(FIGURES, list(panel.specs.values())).items():
        figure = exhibit.draw(panel)
        assert (
            figure.get_figwidth() in (canvas.ONE, canvas.TWO) and panel.stream in figure.get_label()
        )
        drawn = canvas.render(figure, name)
        assert b"/Type3" not in drawn["pdf"] and b"/CIDFontType2" in drawn["pdf"], name
        assert b"</text>" in drawn["svg"] and canvas.STYLE.encode() in drawn["svg"], name


def test_figures_of_two_names_share_no_ids(panel):
    ids = [
        set(re.findall(rb' id="([^"]+)"', canvas.render(accuracy.fig4a(panel), name)["svg"]))
        for name in ("a", "b")
    ]
    assert all(ids) and not ids[0] & ids[1]


def test_figures_6_and_7_are_those_of_their_streams():
    specs = {
        name: record()["spec"] | {"stream": {"name": name}} for name in ("imagenet_r", "cub200")
    }
    assert "figures/fig6a-imagenet_r.pdf" in draw.files([specs["imagenet_r"]])
    assert "figures/fig7c-cub200.svg" in draw.files([specs["cub200"]])


def test_figures_without_their_data_say_so(tmp_path):
    panel = panel_of(tmp_path, [record()])
    said = {
        "sensitivity": "No run differs from its base in a numeric setting alone.",
        "fig1": "No finished run was tested while it learnt.",
        "trees": "No finished run has a tree.",
    }
    for name, text in said.items():
        figure = FIGURES[name].draw(panel)
        assert [t.get_text() for t in figure.axes[0].texts] == [text]


def test_a_crowded_panel_draws_no_variants(panel, tmp_path):
    (run,) = (r for r in panel.runs["record"] if r["key"] == panel.runs["key"].iloc[0])
    many = [changed(run, f"olora-{i}", {"rank": i}) for i in range(MOST_DRAWN)]
    crowded = panel_of(tmp_path, [run, *many])
    assert set(crowded.drawn) == {run["spec"]["method"]["label"]}
    assert "12 variants of these methods" in FIGURES["fig4a"].draw(crowded).get_label()
    assert len(panel.drawn) == len(panel.finished)
    alone = [changed(record(method="ewc"), "ewc-mild"), record(method="joint")]
    alone += [changed(alone[1], "at-once")]
    crowded = panel_of(tmp_path, [run, *many, *alone])
    assert set(crowded.drawn) == {run["spec"]["method"]["label"], "ewc-mild", "joint", "at-once"}
