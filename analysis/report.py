"""report/index.html: tables, figures, provenance, failures and definitions on one page.

The page is self-contained; its links lead to the files beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.catalogue import FIGURES
from analysis.figures.canvas import TWO
from analysis.figures.lettering import not_drawn
from analysis.records.metrics import METRICS
from analysis.records.runs import PROVENANCE, Panel, Suite
from analysis.records.schema import STATUSES, task_names
from analysis.tables.setting import distinct, missing_notes, shared_training, words
from analysis.tables.table import Table

Plot = tuple[bytes, str]  # an SVG, and what is drawn in words
PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_LISTED = ["stream", "method", "seed", "status", "key"]
_LISTED += ["started", "device", "threads", "commit", "error"]


def page(
    suite: Suite,
    shown: Mapping[str, tuple[Mapping[str, Table], Mapping[str, Plot]]],
    claims: Table,
    files: list[str],
) -> str:
    """The report as HTML.

    Args:
        shown: the tables and the figures of each panel, by name.
        claims: the verdicts on this suite alone.
        files: what to offer for download, relative to the folder above the page.
    """
    panels = [
        {
            "panel": panel,
            "tables": shown[panel.slug][0],
            "figures": shown[panel.slug][1],
            "missing": missing_notes(panel),
            "setting": _setting(panel),
        }
        for panel in suite.panels
    ]
    return PAGES.get_template("report.html.j2").render(
        suite=suite,
        panels=panels,
        claims=claims,
        captions={name: figure.caption for name, figure in FIGURES.items()},
        metrics=METRICS,
        provenance=_provenance(suite),
        runs=suite.runs.sort_index()[_LISTED].astype(object).fillna("").to_dict("records"),
        files=files,
        not_drawn=_not_drawn(suite),
    )


def _not_drawn(suite: Suite) -> str:
    """Which names in its figures the fonts of this machine could not write."""
    texts = [suite.label, *suite.runs[["stream", "backbone", "method", "name"]].stack()]
    for record in suite.runs["record"]:
        texts += [*task_names(record), *((record.get("stream") or {}).get("groups") or ())]
    return not_drawn(texts)


def inline(svg: bytes) -> Markup:
    """An SVG of ours as an element of a page; `render` made its texts text and its ids its own."""
    return Markup(svg[svg.index(b"<svg") :].decode())


def wide(svg: bytes) -> bool:
    """Whether it has the width of two columns of print."""
    return f'width="{72 * TWO:g}pt"'.encode() in svg[:1000]


def _setting(panel: Panel) -> dict[str, str]:
    spec, (shared, _) = panel.spec, shared_training(panel)
    parts = {"Stream": spec["stream"], "Backbone": spec["backbone"], "Training, shared": shared}
    return {name: words(values) for name, values in parts.items()}


def _provenance(suite: Suite) -> dict[str, str]:
    """What the runs have in common, and every value where they differ."""
    runs, statuses = suite.runs, list(suite.runs["status"])
    times = distinct(runs, "started") + distinct(runs, "finished")
    used = [(record.get("provenance") or {}).get("packages") or {} for record in runs["record"]]
    versions = sorted({f"{name} {packages[name]}" for packages in used for name in packages})
    return {
        **{key: ", ".join(distinct(runs, key)) or "unknown" for key in PROVENANCE},
        "runs": ", ".join(f"{statuses.count(status)} {status}" for status in STATUSES),
        "seeds": ", ".join(map(str, sorted(set(runs["seed"])))),
        "times": f"{min(times)} to {max(times)}" if times else "unknown",
        "packages": ", ".join(versions) or "unknown",
    }


PAGES.filters |= {"inline": inline, "wide": wide}
