"""report/index.html: verdicts, leaderboard, figures, and folded all tables, on one page.

The page is self-contained; its links lead to the files beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import NamedTuple

import pandas as pd

from analysis.catalogue import FIGURES
from analysis.claims import judge
from analysis.claims.verdict import VERDICTS, Verdict
from analysis.figures.lettering import not_drawn
from analysis.records.leaderboard import FLOOR, leaderboard
from analysis.records.metrics import METRICS, Estimate
from analysis.records.runs import PROVENANCE, Panel, Suite
from analysis.records.schema import STATUSES, task_names
from analysis.scatter import against_time, board
from analysis.tables.setting import (
    distinct,
    missing_notes,
    outdated_notes,
    shared_training,
    source_notes,
    words,
)
from analysis.tables.table import Table
from analysis.templates import PAGES

Plot = tuple[bytes, str]  # an SVG, and what is drawn in words
_LISTED = ["stream", "method", "seed", "status", "key"]
_LISTED += ["started", "device", "threads", "commit", "error"]


def page(
    suite: Suite,
    shown: Mapping[str, tuple[Mapping[str, Table], Mapping[str, Plot]]],
    verdicts: list[Verdict],
    files: list[str],
    back: bool = False,
) -> str:
    """The report as HTML.

    Args:
        shown: the tables and the figures of each panel, by name; those without content are not
            on the page.
        verdicts: on this suite alone.
        files: what to offer for download, relative to the folder above the page.
        back: whether there is an overview of several suites to lead back to.
    """
    panels = [
        {
            "panel": panel,
            "tables": {name: own for name, own in shown[panel.slug][0].items() if own.rows},
            "figures": shown[panel.slug][1],
            "scatter": against_time(panel.slug, board(panel)) if panel.finished else "",
            "heat": _heat(panel, shown[panel.slug][0]["tasks"]),
            "missing": missing_notes(panel),
            "cautions": [*outdated_notes(panel), *_mixed(panel)],
            "notes": shown[panel.slug][0]["leaderboard"].setting,
            "setting": _setting(panel),
        }
        for panel in suite.panels
    ]
    return PAGES.get_template("report.html.j2").render(
        suite=suite,
        panels=panels,
        strip=_strip(verdicts),
        claims=judge.table(verdicts),
        captions={name: figure.caption for name, figure in FIGURES.items()},
        metrics=METRICS,
        provenance=_provenance(suite),
        runs=suite.runs.sort_index()[_LISTED].astype(object).fillna("").to_dict("records"),
        files=files,
        not_drawn=_not_drawn(suite),
        back=back,
    )


def _strip(verdicts: list[Verdict]) -> dict[str, dict[str, list[str]]]:
    """The claims by verdict, each with the places that say so."""
    strip: dict[str, dict[str, list[str]]] = {word: {} for word in VERDICTS}
    for verdict in verdicts:
        strip[verdict.word].setdefault(verdict.claim.says, []).append(verdict.place)
    return {word: claims for word, claims in strip.items() if claims}


def _mixed(panel: Panel) -> list[str]:
    """What is wrong with a mean, as loudly as the tables say it."""
    return [note for note in source_notes(panel) if note.startswith("CAUTION")]


class Heat(NamedTuple):
    """Scores by method and task in whole percent: just learnt and final, None where not tested."""

    tasks: list[str]
    rows: list[tuple[str, list[tuple[int | None, int | None]]]]
    note: str


def _heat(panel: Panel, tasks: Table) -> Heat:
    """The table of tasks as what a page colours; methods best first, without variants if many."""
    cells = {(row["method"], row.get("when", "final")): row for row in tasks.rows + tasks.below}
    columns = [column for column in tasks.columns if column.key.startswith("task ")]

    def score(label: str, when: str, key: str) -> int | None:
        found = cells.get((label, when), {}).get(key)
        known = isinstance(found, Estimate) and not isnan(found.mean)
        return round(100 * found.mean) if known else None

    rows = []
    for row in leaderboard(panel).itertuples():
        if row.Index in (*panel.drawn, FLOOR):
            pairs = [[score(row.Index, w, c.key) for w in ("learnt", "final")] for c in columns]
            if pairs != [[None, None]] * len(columns):
                rows.append((row.method, pairs))
    return Heat([column.title for column in columns], rows, tasks.notes[0])


def _not_drawn(suite: Suite) -> str:
    """Which names in its figures the fonts of this machine could not write."""
    texts = [suite.label, *suite.runs[["stream", "backbone", "method", "name"]].stack()]
    for record in suite.runs["record"]:
        texts += [*task_names(record), *((record.get("stream") or {}).get("groups") or ())]
    return not_drawn(texts)


def _setting(panel: Panel) -> dict[str, str]:
    spec, (shared, _) = panel.spec, shared_training(panel)
    parts = {"Stream": spec["stream"], "Backbone": spec["backbone"], "Training, shared": shared}
    return {name: words(values) for name, values in parts.items()}


def _provenance(suite: Suite) -> dict[str, str]:
    """What the runs have in common, and every value where they differ."""
    runs, statuses = suite.runs, list(suite.runs["status"])
    ends = runs["started"].min(), runs["finished"].max()
    used = [(record.get("provenance") or {}).get("packages") or {} for record in runs["record"]]
    versions = sorted({f"{name} {packages[name]}" for packages in used for name in packages})
    return {
        **{key: ", ".join(distinct(runs, key)) or "unknown" for key in PROVENANCE},
        "runs": ", ".join(f"{statuses.count(status)} {status}" for status in STATUSES),
        "seeds": ", ".join(map(str, sorted(set(runs["seed"])))),
        "times": " to ".join(f"{end:%Y-%m-%d %H:%M}" for end in ends if pd.notna(end)) or "unknown",
        "packages": ", ".join(versions) or "unknown",
    }
