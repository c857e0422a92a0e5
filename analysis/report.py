"""report/index.html: tables, figures, provenance, failures and definitions on one page.

The page is self-contained; its links lead to the files beside it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

from analysis.claims import judge
from analysis.claims import table as claims_table
from analysis.exhibits import FIGURES, TABLES
from analysis.lettering import not_drawn
from analysis.metrics import METRICS
from analysis.records import STATUSES, task_names
from analysis.runs import PROVENANCE, Panel, Suite
from analysis.table import TEMPLATES, Table
from analysis.tables import distinct, missing_notes, shared_training, words

_LISTED = ["stream", "method", "seed", "status", "key"]
_LISTED += ["started", "device", "threads", "commit", "error"]


def page(
    suite: Suite, tables: Mapping[str, Table], svgs: Mapping[str, bytes], files: list[str]
) -> str:
    """The report as HTML.

    Args:
        tables, svgs: tables and figures by exhibit and panel, such as `fig4a-glyphs`.
        files: what to offer for download, relative to the folder above the page.
    """
    panels = [
        {
            "panel": panel,
            "tables": _of(panel, TABLES, tables),
            "figures": {name: _uri(svg) for name, svg in _of(panel, FIGURES, svgs).items()},
            "missing": missing_notes(panel),
            "setting": _setting(panel),
        }
        for panel in suite.panels
    ]
    return TEMPLATES.get_template("report.html.j2").render(
        suite=suite,
        panels=panels,
        claims=claims_table(judge([suite])),
        captions=FIGURES,
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


def overview(
    suites: list[Suite], claims: Table, experiments: list[dict], files: Mapping[str, bytes]
) -> str:
    """A page of the claims and of what belongs to no suite, which leads to the suites' reports.

    Args:
        experiments: as `exhibits.experiments` returns them.
        files: the drawn figures among them, by file name.
    """
    return TEMPLATES.get_template("index.html.j2").render(
        suites=suites,
        claims=claims,
        experiments=experiments,
        files=list(files),
        uri=lambda name: _uri(files[f"figures/{name}.svg"]),
    )


def _of(panel: Panel, names: Iterable[str], made: Mapping[str, object]) -> dict:
    """By exhibit what was made for a panel."""
    stems = {name: f"{name}-{panel.slug}" for name in names}
    return {name: made[stem] for name, stem in stems.items() if stem in made}


def _uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


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
