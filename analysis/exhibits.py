"""What can be drawn from a file of records, and the files that this makes.

Light to import: the workflow asks for the names only.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from analysis.records import Suite, slugs

TABLES = ("accuracy", "cost", "differences", "settings", "tasks")
FIGURES = ("fig4a", "fig4b", "fig4c", "matrix")
NAMES = ("summary", *TABLES, *FIGURES, "report")


def files(specs: list[dict]) -> list[str]:
    """All files that runs of these specs lead to, below the folder in which they are drawn."""
    names = ["summary.csv", "report/index.html"]
    for slug in sorted(set(slugs(specs))):
        names += [f"tables/{t}-{slug}.{kind}" for t in TABLES for kind in ("md", "tex", "csv")]
        names += [f"figures/{f}-{slug}.{kind}" for f in FIGURES for kind in ("pdf", "svg", "png")]
    return names


def make(suite: Suite, folder: Path, names: Iterable[str] = NAMES) -> dict[Path, bytes]:
    """The content of every wanted file by its path in `folder`; nothing is written.

    The report shows all tables and figures. It links to the files made here and to those that
    already lie in `folder`.
    """
    from analysis import tables

    made: dict[str, bytes] = {}
    if "summary" in names:
        made["summary.csv"] = tables.summary(suite).encode()
    for panel in suite.panels:
        for name in (name for name in TABLES if name in names):
            table = tables.TABLES[name](panel)
            made[f"tables/{table.name}.md"] = table.markdown().encode()
            made[f"tables/{table.name}.tex"] = table.latex().encode()
            made[f"tables/{table.name}.csv"] = table.csv().encode()
    svgs: dict[str, bytes] = {}
    for name in (name for name in FIGURES if name in names or "report" in names):
        from analysis import figures, style

        styles = style.styles(run.label for run in suite.runs)
        for panel in suite.panels:
            stem = f"{name}-{panel.slug}"
            formats = figures.FORMATS if name in names else ("svg",)
            drawn = figures.render(figures.FIGURES[name](panel, styles), formats)
            svgs[stem] = drawn["svg"]
            if name in names:
                made |= {f"figures/{stem}.{kind}": drawn[kind] for kind in drawn}
    if "report" in names:
        from analysis import report

        every = files([run.spec for run in suite.runs])
        links = [name for name in every if name in made or (folder / name).is_file()]
        links = [name for name in links if name != "report/index.html"]
        made["report/index.html"] = report.page(suite, svgs, links).encode()
    return {folder / name: content for name, content in made.items()}
