"""What can be drawn from a file of records, and the files that this makes.

Light to import, as the workflow asks for the names only. A new table is a function in `tables`
and its name here; a new figure is one in `figures`, its name and its caption.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.records import slugs

if TYPE_CHECKING:
    from analysis.runs import Suite

TABLES = ("accuracy", "cost", "differences", "settings", "tasks")
FIGURES = {
    "fig4a": "The mean score over the tasks seen so far, after each task (as the paper's "
    "Figure 4a). The band is one sample standard deviation; the dashed line is the upper bound.",
    "fig4b": "Seconds of learning for the whole stream (Figure 4b): optimisation steps solid, "
    "consolidation hatched; the whisker is one sample standard deviation of the sum.",
    "fig4c": "Final score against speed (Figure 4c): the upper right corner is best.",
    "matrix": "R, the score on every task after every task; rows are tasks learnt. Grey was not "
    "measured.",
}
NAMES = ("summary", *TABLES, *FIGURES, "claims", "report")
CLAIMS = tuple(f"claims.{kind}" for kind in ("md", "tex", "csv"))


def files(specs: list[dict]) -> list[str]:
    """All files that runs of these specs lead to, below the folder in which they are drawn."""
    names = ["summary.csv", "report/index.html", *CLAIMS]
    for slug in sorted(set(slugs(specs))):
        names += [f"tables/{t}-{slug}.{kind}" for t in TABLES for kind in ("md", "tex", "csv")]
        names += [f"figures/{f}-{slug}.{kind}" for f in FIGURES for kind in ("pdf", "svg")]
    return names


def make(suite: Suite, folder: Path, names: Iterable[str] = NAMES) -> dict[Path, bytes]:
    """The content of every wanted file by its path in `folder`; nothing is written.

    The report shows all tables and figures. It links to the files made here and to those that
    already lie in `folder`.
    """
    from analysis import figures, report, tables
    from analysis.runs import RAW

    whole = "report" in names
    made: dict[str, bytes] = {}
    built, drawn = {}, {}
    if "summary" in names:
        values = suite.runs.drop(columns=RAW)
        made["summary.csv"] = values.to_csv(index=False, lineterminator="\n").encode()
    if "claims" in names:
        made |= claims_files([suite])
    for panel in suite.panels:
        for name in (name for name in TABLES if whole or name in names):
            stem = f"{name}-{panel.slug}"
            table = built[stem] = getattr(tables, name)(panel)
            if name in names:
                made[f"tables/{stem}.md"] = table.markdown().encode()
                made[f"tables/{stem}.tex"] = table.latex().encode()
                made[f"tables/{stem}.csv"] = table.csv().encode()
        for name in (name for name in FIGURES if whole or name in names):
            stem = f"{name}-{panel.slug}"
            figure = getattr(figures, name)(panel)
            drawn[stem] = figures.render(figure, "svg")
            if name in names:
                made[f"figures/{stem}.svg"] = drawn[stem]
                made[f"figures/{stem}.pdf"] = figures.render(figure, "pdf")
    if whole:
        others = files([record["spec"] for record in suite.runs["record"]])
        others.remove("report/index.html")
        links = [name for name in others if name in made or (folder / name).is_file()]
        made["report/index.html"] = report.page(suite, built, drawn, links).encode()
    return {folder / name: content for name, content in made.items()}


def claims_files(suites: list[Suite]) -> dict[str, bytes]:
    """The claims judged on all these suites together, by file name."""
    from analysis import claims

    verdicts = claims.judge(suites)
    table = claims.table(verdicts)
    made = (table.markdown(), table.latex(), claims.csv(verdicts))
    return {name: text.encode() for name, text in zip(CLAIMS, made, strict=True)}
