"""From files of records to the files that are drawn of them, each file of records in a process."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import NamedTuple

import analysis.figures
import analysis.tables
from analysis import exhibits, overview, report
from analysis.catalogue import FIGURES, TABLES, about, called, fitting, is_result
from analysis.claims.judge import Measured, Verdict, judge, measure
from analysis.claims.judge import csv as claims_csv
from analysis.claims.judge import table as claims_table
from analysis.exhibits import Ran
from analysis.figures.canvas import has_content, render
from analysis.records import accounting, regret
from analysis.records.reading import PUBLISHED
from analysis.records.runs import RAW, Panel, Suite, read_suite, slugs
from analysis.scatter import Board, board
from analysis.tables.table import Table, csv
from analysis.terminal import columns, say
from analysis.text import quoted, suggest

for room in (analysis.tables, analysis.figures):  # whose modules register what they draw
    for module in iter_modules(room.__path__, f"{room.__name__}."):
        import_module(module.name)

NAMES = ("summary", *about(TABLES, Panel), *about(FIGURES, Panel), "claims", "report")
FORMS = ("md", "tex", "column.tex", "csv")  # of a table
CLAIMS = tuple(f"claims.{kind}" for kind in FORMS)
# What belongs to no suite: file, title, how it is read, and what of it the claims ask for.
EXPERIMENTS = (
    ("regret", "Theorem 1 as an experiment", regret.load, regret.findings),
    ("accounting", "Operations and bytes", accounting.load, accounting.findings),
)


class Drawn(NamedTuple):
    """What was made of one file of records: contents by path below its folder."""

    suite: str
    label: str
    n_runs: int
    measured: Measured
    files: dict[str, bytes]
    boards: list[Board]
    ran: list[Ran]

    @property
    def row(self) -> dict[str, str]:
        """In words, for a line on the terminal."""
        return {"suite": self.suite, "runs": str(self.n_runs), "files drawn": str(len(self.files))}


class Experiments(NamedTuple):
    """What was made of the published experiments: findings for the claims, sections, files."""

    findings: dict[str, object]
    sections: list[dict]
    files: dict[str, bytes]


def files(specs: list[dict]) -> list[str]:
    """All files that runs of these specs lead to, below the folder in which they are drawn."""
    names = ["summary.csv", "report/index.html", *CLAIMS]
    panels: dict[str, list[dict]] = {}
    for spec, slug in zip(specs, slugs(specs), strict=True):
        panels.setdefault(slug, []).append(spec)
    for slug, own in sorted(panels.items()):
        tables, figures = fitting(TABLES, own), fitting(FIGURES, own)
        names += [f"tables/{t}-{slug}.{kind}" for t in tables for kind in FORMS]
        stems = [f"{called(name, own[0]['stream']['name'])}-{slug}" for name in figures]
        names += [f"figures/{stem}.{kind}" for stem in stems for kind in ("pdf", "svg")]
    return names


def draw(
    paths: list[Path],
    out: Path,
    names: Iterable[str] = NAMES,
    published: Path = PUBLISHED,
    reference: str | None = None,
) -> None:
    """Draws each file of records in `out`, or in a folder of its own there if there are several.

    Several are also judged together, with the experiments in `published`, in `out` itself. Nothing
    is written before everything was read, checked and drawn. Differences are taken to the row
    `reference` where a suite has it, else to the one that the suite names.
    """
    several = len(paths) > 1
    if reference is not None:
        _check_reference(paths, reference)
    named = [path.name.partition(".")[0] if several else str(path) for path in paths]
    say(f"draws {', '.join(named)}")
    sizes = {path: path.stat().st_size if path.is_file() else 0 for path in paths}
    largest = sorted(paths, key=sizes.get, reverse=True)  # so that none waits for a long last one
    jobs = [partial(draw_suite, path, out, names, several, reference) for path in largest]
    if several and "claims" in names:
        experiments, *suites = _in_processes([partial(draw_experiments, published), *jobs])
    else:
        experiments, suites = None, _in_processes(jobs)
    suites = list(map(dict(zip(largest, suites, strict=True)).get, paths))
    found = [drawn.suite for drawn in suites]
    if len(set(found)) < len(found):
        raise ValueError(f"Every file must hold another suite, but these are {found}.")
    entry = out / "report/index.html"
    for drawn in suites:
        write(out / drawn.suite if several else out, drawn.files)
    if experiments:
        verdicts = judge([drawn.measured for drawn in suites], experiments.findings)
        made = claims_files(verdicts)
        if "report" in names:
            made |= experiments.files
            files = [f"{own.suite}/{name}" for own in suites for name in own.files] + [*made]
            made["index.html"] = overview.page(
                suites,
                [drawn.measured for drawn in suites],
                verdicts,
                [board for drawn in suites for board in drawn.boards],
                exhibits.index([ran for drawn in suites for ran in drawn.ran], files),
                experiments.sections,
                [*made],
            ).encode()
        write(out, made)
        entry = out / "index.html"
    say(columns([drawn.row for drawn in suites]), entry if entry.is_file() else out)


def _check_reference(paths: list[Path], reference: str) -> None:
    """ValueError unless one of the suites has that row."""
    suites = list(map(read_suite, paths))
    labels = sorted({label for suite in suites for label in suite.runs["method"]})
    if reference not in labels:
        named = ", ".join(suite.name for suite in suites)
        raise ValueError(
            f"There is no row {quoted(reference)} in {named} to take differences to: "
            f"{suggest(reference, labels)}"
        )


def _in_processes(jobs: list[Callable]) -> list:
    """What the jobs return, made by as many processes as there are CPUs for this one."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if min(len(jobs), cpus or 1) == 1:
        return [job() for job in jobs]
    # Figures make more cycles than it pays to look for.
    with ProcessPoolExecutor(min(len(jobs), cpus), initializer=gc.disable) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            return [future.result() for future in futures]
        finally:
            pool.shutdown(cancel_futures=True)


def draw_suite(
    path: Path, out: Path, names: Iterable[str], own_folder: bool, reference: str | None
) -> Drawn:
    """Reads, checks and draws one file of records; `own_folder` is one within `out`."""
    suite = read_suite(path)
    if reference in set(suite.runs["method"]):
        suite = replace(suite, reference=reference)
    folder = out / suite.name if own_folder else out
    measured, made = make(suite, folder, names, back=own_folder and "claims" in names)
    results = [panel for panel in suite.panels if is_result(panel.spec)]
    boards, ran = ([of(panel) for panel in results] for of in (board, exhibits.ran))
    return Drawn(suite.name, suite.label, len(suite.runs), measured, made, boards, ran)


def make(
    suite: Suite, folder: Path, names: Iterable[str] = NAMES, back: bool = False
) -> tuple[Measured, dict[str, bytes]]:
    """What the suite says of the claims, and the content of every wanted file by its path.

    Nothing is written. The report shows all tables and figures. It links to the files made here,
    to those that already lie in `folder` and, with `back`, to an overview above.
    """
    whole = "report" in names
    measured = measure(suite)
    verdicts = judge([measured], {})
    made: dict[str, bytes] = {}
    if "summary" in names:
        made["summary.csv"] = csv(suite.runs.drop(columns=RAW)).encode()
    if "claims" in names:
        made |= claims_files(verdicts)
    shown = {}
    for panel in suite.panels:
        specs = [record["spec"] for record in panel.runs["record"]]
        tables, svgs = shown[panel.slug] = {}, {}
        for name, exhibit in fitting(TABLES, specs).items():
            if whole or name in names:
                tables[name] = exhibit.draw(panel)
            if name in names:
                made |= table_files(f"{name}-{panel.slug}", tables[name])
        for name, exhibit in fitting(FIGURES, specs).items():
            if whole or name in names:
                stem = f"{called(name, panel.stream)}-{panel.slug}"
                drawn = render(figure := exhibit.draw(panel), stem)
                if has_content(figure):
                    svgs[name] = drawn["svg"], figure.get_label()
            if name in names:
                made |= {f"figures/{stem}.{kind}": drawn[kind] for kind in drawn}
    if whole:
        others = files([record["spec"] for record in suite.runs["record"]])
        others.remove("report/index.html")
        links = [name for name in others if name in made or (folder / name).is_file()]
        page = report.page(suite, shown, verdicts, links, back)
        made["report/index.html"] = page.encode()
    return measured, made


def findings(published: Path = PUBLISHED) -> dict[str, object]:
    """What the claims ask of the published experiments, by their names."""
    return {
        name: find(load(published / f"{name}.json"))
        for name, _, load, find in EXPERIMENTS
        if (published / f"{name}.json").is_file()
    }


def draw_experiments(published: Path) -> Experiments:
    """Draws what belongs to no suite: the regret of the search, and operations and bytes."""
    found, sections, made = {}, [], {}
    for name, title, load, find in EXPERIMENTS:
        if not (published / f"{name}.json").is_file():
            continue
        data = load(published / f"{name}.json")
        found[name] = find(data)
        tables = {n: own.draw(data) for n, own in about(TABLES, type(data)).items()}
        figures = {n: own.draw(data) for n, own in about(FIGURES, type(data)).items()}
        drawn = {stem: render(figure, stem) for stem, figure in figures.items()}
        shown = {stem: (drawn[stem]["svg"], figures[stem].get_label()) for stem in drawn}
        sections.append({"title": title, "tables": tables, "figures": shown})
        for stem, table in tables.items():
            made |= table_files(stem, table)
        for stem, forms in drawn.items():
            made |= {f"figures/{stem}.{kind}": forms[kind] for kind in ("pdf", "svg")}
    return Experiments(found, sections, made)


def table_files(stem: str, table: Table) -> dict[str, bytes]:
    """A table in its forms."""
    texts = (table.markdown(), table.latex(), table.latex(narrow=True), table.csv())
    return {f"tables/{stem}.{kind}": text.encode() for kind, text in zip(FORMS, texts, strict=True)}


def claims_files(verdicts: list[Verdict]) -> dict[str, bytes]:
    """The verdicts on the claims in the same forms."""
    table = claims_table(verdicts)
    made = (table.markdown(), table.latex(), table.latex(narrow=True), claims_csv(verdicts))
    return {name: text.encode() for name, text in zip(CLAIMS, made, strict=True)}


def write(folder: Path, made: dict[str, bytes]) -> None:
    """Writes each file whole or not at all."""
    for name, content in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            part.write_bytes(content)
            os.replace(part, path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(path)) from error
