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

TABLES = (
    *("accuracy", "differences", "ordering", "ablations", "speed", "cost", "trees", "settings"),
    *("peers", "tasks", "routing", "data"),
)
FIGURES = {
    "fig4a": "The mean score over the tasks seen so far, after each task (as the paper's "
    "Figure 4a). The band is one sample standard deviation; the dashed line is the upper bound.",
    "fig4b": "Seconds of learning for the whole stream (Figure 4b): optimisation steps solid, "
    "consolidation hatched; the whisker is one sample standard deviation of the sum.",
    "fig4c": "Final score against speed (Figure 4c): the upper right corner is best.",
    "matrix": "R, the score on every task after every task; rows are tasks learnt. Grey was not "
    "measured.",
    "fig1": "The score on a new task against its training samples seen, mean over all tasks but "
    "the first (as Figure 1); the band is one sample standard deviation.",
    "sensitivity": "The final score against each numeric setting that was varied alone (as Tables "
    "2, 4 and 6), values at equal distances; whiskers are one sample standard deviation. Layers "
    "are adapted blocks, depth is the matrices that the tree looks at; no limit takes all.",
    "trees": "The tree of one run after the last task and, below, after each task before (as "
    "Figures 5 and 8). Numbers are places in the stream, colours and marks the planted groups. A "
    "bar joins tasks whose adapters were merged.",
}
# What a panel needs to have the exhibit; the others stand in every panel.
NEEDS = {
    "ordering": lambda spec: _is_elsewhere(spec),
    "peers": lambda spec: _has_peers(spec),
    "routing": lambda spec: spec["modality"] == "language",
    "data": lambda spec: spec["modality"] == "language",
    "ablations": lambda spec: spec["method"]["label"] != spec["method"]["name"],
    "sensitivity": lambda spec: spec["method"]["label"] != spec["method"]["name"],
    "fig1": lambda spec: spec["train"].get("curve_tests"),
    "trees": lambda spec: spec["method"]["name"] in ("treelora", "hidetreelora"),
}
NAMES = ("summary", *TABLES, *FIGURES, "claims", "report")
CLAIMS = tuple(f"claims.{kind}" for kind in ("md", "tex", "csv"))


def _is_elsewhere(spec: dict) -> bool:
    """Whether somebody else has published this method on this stream's data."""
    if spec["stream"]["name"] in ("glyphs", "docs"):
        return False
    from analysis.compare import elsewhere  # seconds to import

    return spec["method"]["label"] in elsewhere(spec["stream"]["name"]).index


def _has_peers(spec: dict) -> bool:
    """Whether somebody else's code was run in the setting of this spec."""
    if spec["stream"]["name"] != "cifar100":
        return False
    from analysis.compare import peers_of  # seconds to import

    return len(peers_of(spec)) > 0


def fitting(names: Iterable[str], specs: list[dict]) -> list[str]:
    """The exhibits that make sense for runs of these specs."""
    return [name for name in names if name not in NEEDS or any(map(NEEDS[name], specs))]


def files(specs: list[dict]) -> list[str]:
    """All files that runs of these specs lead to, below the folder in which they are drawn."""
    names = ["summary.csv", "report/index.html", *CLAIMS]
    panels: dict[str, list[dict]] = {}
    for spec, slug in zip(specs, slugs(specs), strict=True):
        panels.setdefault(slug, []).append(spec)
    for slug, own in sorted(panels.items()):
        tables, figures = fitting(TABLES, own), fitting(FIGURES, own)
        names += [f"tables/{t}-{slug}.{kind}" for t in tables for kind in ("md", "tex", "csv")]
        names += [f"figures/{f}-{slug}.{kind}" for f in figures for kind in ("pdf", "svg")]
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
        specs = [record["spec"] for record in panel.runs["record"]]
        for name in (name for name in fitting(TABLES, specs) if whole or name in names):
            stem = f"{name}-{panel.slug}"
            table = built[stem] = getattr(tables, name)(panel)
            if name in names:
                made[f"tables/{stem}.md"] = table.markdown().encode()
                made[f"tables/{stem}.tex"] = table.latex().encode()
                made[f"tables/{stem}.csv"] = table.csv().encode()
        for name in (name for name in fitting(FIGURES, specs) if whole or name in names):
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


def experiments(found: Iterable[Path]) -> list[dict]:
    """What belongs to no suite: the regret of the search and the accounting of costs.

    For each published file its title, its tables and figures by name, and their captions.
    """
    from analysis import accounting, regret

    made = []
    for path in found:
        if path.stem == "regret":
            data = regret.load(path)
            title, tables = "Theorem 1 as an experiment", regret.tables(data)
            figures, captions = regret.figures(data), regret.CAPTIONS
        else:
            data = accounting.load(path)
            title, tables = "Operations and bytes", accounting.tables(data)
            figures, captions = accounting.figures(data), accounting.CAPTIONS
        made.append({"title": title, "tables": tables, "figures": figures, "captions": captions})
    return made


def experiment_files(experiments: list[dict]) -> dict[str, bytes]:
    """Their tables and figures, by file name."""
    from analysis import figures

    made: dict[str, bytes] = {}
    for one in experiments:
        for name, table in one["tables"].items():
            made[f"tables/{name}.md"] = table.markdown().encode()
            made[f"tables/{name}.tex"] = table.latex().encode()
            made[f"tables/{name}.csv"] = table.csv().encode()
        for name, figure in one["figures"].items():
            for kind in ("pdf", "svg"):
                made[f"figures/{name}.{kind}"] = figures.render(figure, kind)
    return made
