"""report/index.html: tables, figures, provenance, failures and definitions on one page.

The page is self-contained; its links lead to the files beside it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.exhibits import FIGURES, TABLES
from analysis.metrics import METRICS
from analysis.records import STATUSES
from analysis.runs import Panel, Suite
from analysis.table import Table
from analysis.tables import distinct, missing_notes, shared_training, words

_RUN = ["stream", "method", "seed", "status", "key"]
_RUN += ["started", "device", "threads", "commit", "error"]
_ENTRIES = {
    "device": "Device",
    "threads": "Threads per run",
    "deterministic": "Deterministic",
    "commit": "Commit",
    "dirty": "Uncommitted changes",
    "source_digest": "Source digest",
    "lock_digest": "Lock digest",
    "python": "Python",
}


def page(
    suite: Suite, tables: Mapping[str, Table], svgs: Mapping[str, bytes], files: list[str]
) -> str:
    """The report as HTML.

    Args:
        tables, svgs: tables and figures by exhibit and panel, such as `fig4a-glyphs`.
        files: what to offer for download, relative to the folder above the page.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    panels = [
        {
            "panel": panel,
            "tables": {name: tables[f"{name}-{panel.slug}"] for name in TABLES},
            "figures": {name: _uri(svgs[f"{name}-{panel.slug}"]) for name in FIGURES},
            "missing": missing_notes(panel),
            "setting": _setting(panel),
        }
        for panel in suite.panels
    ]
    return environment.get_template("report.html.j2").render(
        suite=suite,
        panels=panels,
        captions=FIGURES,
        metrics=METRICS,
        provenance=_provenance(suite),
        runs=suite.runs.sort_index()[_RUN].astype(object).fillna("").to_dict("records"),
        files=files,
    )


def _uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _setting(panel: Panel) -> dict[str, str]:
    spec, (shared, _) = panel.spec, shared_training(panel)
    parts = {"Stream": spec["stream"], "Backbone": spec["backbone"], "Training, shared": shared}
    return {name: words(values) for name, values in parts.items()}


def _provenance(suite: Suite) -> dict[str, str]:
    """What the runs have in common, and every value where they differ."""
    times = [*distinct(suite.runs, "started"), *distinct(suite.runs, "finished")]
    provenance = [record.get("provenance") or {} for record in suite.runs["record"]]
    packages = [item for entry in provenance for item in (entry.get("packages") or {}).items()]
    versions = sorted({f"{name} {version}" for name, version in packages})
    statuses = list(suite.runs["status"])
    found = {title: ", ".join(distinct(suite.runs, key)) for key, title in _ENTRIES.items()}
    return {
        "Suite": f"{suite.name}: {suite.label}",
        "Records": f"{suite.file}, SHA-256 {suite.digest}",
        "Runs": ", ".join(f"{statuses.count(status)} {status}" for status in STATUSES),
        "Seeds": ", ".join(map(str, sorted(set(suite.runs["seed"])))),
        "Time (UTC)": f"{min(times)} to {max(times)}" if times else "unknown",
        **{title: value or "unknown" for title, value in found.items()},
        "Packages": ", ".join(versions) or "unknown",
    }
