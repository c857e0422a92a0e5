"""Drawing: every announced file, the same bytes each time, the report, and the command line."""

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote
from xml.dom import minidom

import pytest
from fake_records import (
    LABEL,
    SMALL,
    failed,
    record,
    seeds,
    set_paths,
    small,
    suite,
    suite_of,
    write,
)
from matplotlib.figure import Figure

from analysis import catalogue, draw, fidelity, forest, pages
from analysis.__main__ import main
from analysis.catalogue import FIGURES, TABLES
from analysis.claims import judge as claims
from analysis.records import metrics
from analysis.records.runs import Panel
from analysis.scatter import board
from analysis.tables.table import Table

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_summary_keeps_whole_numbers_where_a_run_has_none(tmp_path):
    own = suite_of(tmp_path, [record(), failed(record(seed=1))])
    made = draw.make(own, tmp_path, ["summary"])[1]["summary.csv"].decode()
    assert ",1500," in made.splitlines()[1] and "1500.0" not in made
    assert "record" not in made.splitlines()[0] and ",failed,the loss" in made.splitlines()[2]


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
    _, made = draw.make(suite_of(tmp_path, list(odd_runs())), tmp_path)
    for name, text in made.items():
        if name.endswith(".svg"):
            minidom.parseString(text)
        if not name.endswith(".pdf"):
            assert "\x1b" not in text.decode(), name
    assert b">1 worth $5 and $10</text>" in made["figures/trees-glyphs.svg"]
    page = made["report/index.html"].decode()
    assert "broke $x_$ \\x1b[2J on line 2" in page and "日本語" in page
    assert "| a\\|b\\`c\\`&lt;i>&amp;amp; |" in made["tables/accuracy-glyphs.md"].decode()


BLOCKED = """
import runpy, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        models = ("torch", "torchvision", "timm", "transformers", "peft", "avalanche", "datasets")
        if name.split(".")[0] in (*models, "benchmarks", "baselines"):
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
sys.argv = ["analysis", *sys.argv[1:]]
runpy.run_module("analysis", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A small suite with an unknown method, drawn here, and in a process that has no torch."""
    command, made = [sys.executable, "-c", BLOCKED], []
    for run in (lambda own: main(own), lambda own: subprocess.call(command + own, cwd=ROOT)):
        folder = tmp_path_factory.mktemp("drawn")
        source = write(folder / "runs.jsonl", suite(("glyphs",), ("seqlora", "mine", "joint"), 2))
        assert run([str(source), "--out", str(folder / "out")]) == 0
        made.append(folder / "out")
    return made


def test_two_processes_give_the_same_bytes_of_every_announced_file(drawn):
    first, second = (sorted(p for p in out.rglob("*") if p.is_file()) for out in drawn)
    assert [p.name for p in first] == [p.name for p in second]
    assert {p.suffix for p in first} == {".csv", ".md", ".tex", ".pdf", ".svg", ".html"}
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name
    declared = draw.files([record(method="mine")["spec"]])
    assert sorted(str(drawn[0] / name) for name in declared) == [str(path) for path in first]


@pytest.fixture
def no_figures(monkeypatch):
    """Panels without figures, which take most of the time."""
    kept = {name: own for name, own in FIGURES.items() if own.of is not Panel}
    monkeypatch.setattr(draw, "FIGURES", kept)


def test_report_is_self_contained_and_complete(drawn):
    page = (drawn[0] / "report/index.html").read_text()
    assert f'<p class="banner">{LABEL.replace(chr(39), "&#39;")}</p>' in page
    assert page.count('class="plot"') == len(list(drawn[0].glob("figures/*.svg"))) > 0
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(set(ids)) == len(ids) and set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)
    assert "http" not in page.replace("http://www.w3.org", "") and page.count("<script") == 1
    for stated in ("torch 2.14.1", "c0ffee", "SHA-256", "mine", "Threads", "2026-01-02 00:00"):
        assert stated in page, stated
    for name in metrics.METRICS.values():
        assert f"<dt>{name}</dt>" in page, f"report.html.j2 does not define {name}"
    links = [part.split('"')[0] for part in page.split('<a href="../')[1:]]
    assert links and all((drawn[0] / link).is_file() for link in links)


def test_report_escapes_every_string(tmp_path, no_figures):
    evil = "<script>alert('x')</script>"
    run = set_paths(record(), spec__method__label=evil, suite__label=evil, key=evil)
    run["spec"]["method"]["config"] = {"name": evil}
    bad = failed(set_paths(run, spec__seed=1, key="2"), error=evil)
    _, made = draw.make(suite_of(tmp_path, [run, bad]), tmp_path, ["report"])
    page = made["report/index.html"].decode()
    assert page.count("<script") == 1 and "&lt;script&gt;" in page  # ours, which sorts


def test_report_shows_nothing_without_content(tmp_path):
    """A figure that says why it is empty is a file, but not on the page; so is a table."""
    own = suite_of(tmp_path, suite(("glyphs",), ("seqlora", "treelora"), seeds=2))
    _, made = draw.make(own, tmp_path, ["trees", "report"])
    page = made["report/index.html"].decode()
    assert "figures/trees-glyphs.svg" in made and "No finished run has a tree." not in page
    assert "No run here has a tree" not in page
    assert 'id="missing"' not in page


def test_exhibits_choose_what_is_written(tmp_path, capsys):
    source = write(tmp_path / "runs.jsonl", SMALL)
    out = tmp_path / "out"
    assert main([str(source), "--out", str(out), "--exhibits", "summary", "differences"]) == 0
    written = sorted(path.name for path in out.rglob("*.*") if path.is_file())
    assert written == [
        "differences-glyphs.column.tex",
        "differences-glyphs.csv",
        "differences-glyphs.md",
        "differences-glyphs.tex",
        "summary.csv",
    ]
    assert len((out / "summary.csv").read_text().splitlines()) == 1 + len(SMALL)
    assert main([str(source), "--out", str(out), "--exhibits", "acuracy"]) == 2
    assert capsys.readouterr().err == "There is no exhibit 'acuracy': did you mean 'accuracy'?\n"
    command = [str(source), "--out", str(out), "--exhibits", "differences", "--reference"]
    assert main([*command, "seqlora"]) == 0
    assert "treelora" in (out / "tables/differences-glyphs.csv").read_text().splitlines()[1]
    assert main([*command, "seqlra"]) == 2
    assert "no row 'seqlra'" in capsys.readouterr().err


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
    assert main([sources[0], sources[0], "--out", str(out), "--exhibits", "summary"]) == 2
    assert "another suite" in capsys.readouterr().err


def test_odd_names_are_folders_and_links(tmp_path, no_figures):
    names = ["javascript:alert(1)", 'my suite "2" #1%']
    sources = [
        write(tmp_path / f"{i}.jsonl", [failed(record(suite=name))]) for i, name in enumerate(names)
    ]
    out = tmp_path / "out"
    draw.draw(sources, out, ["claims", "report"], published=tmp_path)
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
@pytest.mark.parametrize("draws", range(5))
def test_any_part_of_a_suite_gives_a_report(tmp_path, draws):
    """Whatever is missing, failed or skipped, and however little is left."""
    chance, runs = random.Random(draws), []
    for run in all_kinds_of_runs():
        fate = chance.random()
        if fate < 0.3:
            runs.append(run)
        elif fate < 0.5:
            run = failed(run, chance.choice(["", "broke"]), chance.choice(["failed", "skipped"]))
            for part in chance.sample(["provenance", "stream"], chance.randint(0, 2)):
                run.pop(part)
            runs.append(run)
    own = suite_of(tmp_path, runs[: chance.choice([1, 2, 99])])
    names = draw.NAMES if draws == 0 else set(draw.NAMES) - {*FIGURES, "report"}
    measured, made = draw.make(own, tmp_path, names)
    verdicts = claims.judge([measured], {})
    assert made and claims.table(verdicts).rows and fidelity.document([own])
    assert pages.headlines(verdicts) and pages.claims_page(verdicts, [measured], [own], {})
    assert forest.forest(verdicts) and [board(panel) for panel in own.panels]
    assert pages.results_page([own], {})


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


def test_every_figure_and_file_that_was_announced_is_made(panel, tmp_path):
    made = draw.make(panel.suite, tmp_path)[1].keys()
    assert made == set(draw.files([record["spec"] for record in panel.runs["record"]]))
    assert {f"figures/{name}-glyphs.svg" for name in ("fig1", "trees", "sensitivity")} <= made


def test_a_panel_without_variants_has_none_of_their_exhibits():
    specs = [r["spec"] for r in suite(("glyphs",), ("seqlora", "ewc"), seeds=1)]
    names = draw.files(specs)
    assert not [n for n in names if any(x in n for x in ("ablations", "sensitivity", "fig1"))]


def test_several_suites_have_one_overview(tmp_path, no_figures):
    sources = [
        write(tmp_path / f"{name}.jsonl", [*seeds("treelora", 0.5, suite=name), *extra])
        for name, extra in (("one", seeds("seqlora", 0.4, suite="one")), ("two", []))
    ]
    out = tmp_path / "out"
    shutil.copy(draw.PUBLISHED / "accounting.json", tmp_path)
    draw.draw(sources, out, ["claims", "report"], published=tmp_path)
    page = (out / "index.html").read_text()
    links = [part.split('"')[0] for part in page.split('<a href="')[1:]]
    within, links = ([x for x in links if x.startswith("#") == is_in] for is_in in (True, False))
    assert all(f'id="{link[1:]}"' in page for link in within)
    assert [link for link in links if not (out / unquote(link)).is_file()] == []
    assert {"#forgetting"} <= set(within)
    assert {"./one/report/index.html", "claims.csv", "figures/accounting.svg"} <= set(links)
    assert "Operations per token" in page
    assert "glyphs (one)" in page and "+6.67 points" in page
    alone = (out / "one/report/index.html").read_text()
    assert '<a href="#claims">' in alone and "It forgets less than SeqLoRA" in alone
    lines = (out / "claims.csv").read_text().splitlines()
    row = next(line for line in lines if line.startswith("forgetting"))
    assert row.startswith("forgetting,glyphs (one),supported,SeqLoRA − TreeLoRA,points,4,0.")
    assert claims.RULE[0][:60] in (out / "claims.md").read_text()
    assert r"\arraybackslash}p{" in (out / "claims.tex").read_text()


def test_the_overview_has_no_scores_of_trials(tmp_path):
    runs = suite(("glyphs",), ("seqlora", "ewc", "treelora"), seeds=1)
    for name, n_boards in (("results", 1), ("trials", 0)):
        path = write(tmp_path / f"{name}.jsonl", runs)
        drawn = draw.draw_suite(path, tmp_path / "out", [], True, None)
        assert (len(drawn.boards), len(drawn.ran)) == (n_boards, n_boards)
        runs = [set_paths(run, spec__stream__holdout=5) for run in runs]


def test_one_function_adds_a_table_and_a_figure(panel, tmp_path, monkeypatch):
    monkeypatch.setitem(TABLES, "mine", None)  # and remove them again
    monkeypatch.setitem(FIGURES, "seen", None)

    @catalogue.table(need=lambda spec: spec["modality"] == "vision")
    def mine(panel: Panel) -> Table:
        return Table("mine", "Mine", [], [])

    @catalogue.figure("What I see.")
    def seen(panel: Panel) -> Figure:
        return Figure()

    monkeypatch.setattr(draw, "FIGURES", {"seen": FIGURES["seen"]})  # the others take seconds
    specs = [record["spec"] for record in panel.runs["record"]]
    assert {"tables/mine-glyphs.csv", "figures/seen-glyphs.svg"} <= set(draw.files(specs))
    assert "tables/mine-docs.csv" not in draw.files([record("docs")["spec"]])
    _, made = draw.make(panel.suite, tmp_path, ["mine", "seen", "report"])
    assert "tables/mine-glyphs.tex" in made and "figures/seen-glyphs.pdf" in made
    assert b"What I see." in made["report/index.html"]


def test_files_drawn_by_several_processes_fail_as_one_does(tmp_path, capsys):
    """Nothing is written, and the sentence is that of the first bad file."""
    sources = [write(tmp_path / f"{n}.jsonl", [record(suite=n)]) for n in ("a", "b")]
    (tmp_path / "bad.jsonl").write_text("{}\n")
    command = [*map(str, sources), str(tmp_path / "bad.jsonl"), "--out", str(tmp_path / "out")]
    assert main([*command, "--exhibits", "summary"]) == 2
    error = capsys.readouterr().err
    assert "bad.jsonl, line 1" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
