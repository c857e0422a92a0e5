"""report/index.html: tables, figures, provenance, failures and definitions on one page.

The page is self-contained; its links lead to the files beside it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.metrics import METRICS
from analysis.records import STATUSES, Panel, Run, Suite
from analysis.tables import TABLES, distinct, missing_notes, shared_training, words

CAPTIONS = {
    "fig4a": "The mean score over the tasks seen so far, after each task (as the paper's "
    "Figure 4a). The band is one sample standard deviation; the dashed line is the upper bound.",
    "fig4b": "Seconds of learning for the whole stream (Figure 4b): optimisation steps solid, "
    "consolidation hatched; the whisker is one sample standard deviation of the sum.",
    "fig4c": "Final score against speed (Figure 4c): the upper right corner is best.",
    "matrix": "R, the score on every task after every task; rows are tasks learnt. Grey was not "
    "measured.",
}
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


def page(suite: Suite, svgs: Mapping[str, bytes], files: list[str]) -> str:
    """The report as HTML.

    Args:
        svgs: figures by exhibit and panel, such as `fig4a-glyphs`.
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
            "tables": {name: build(panel) for name, build in TABLES.items()},
            "figures": {name: _uri(svgs[f"{name}-{panel.slug}"]) for name in CAPTIONS},
            "missing": missing_notes(panel),
            "setting": _setting(panel),
        }
        for panel in suite.panels
    ]
    return environment.get_template("report.html.j2").render(
        suite=suite,
        panels=panels,
        captions=CAPTIONS,
        metrics=METRICS,
        provenance=_provenance(suite),
        runs=[_run(run) for run in suite.runs],
        files=files,
    )


def _uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _setting(panel: Panel) -> dict[str, str]:
    spec = panel.runs[0].spec
    shared, _ = shared_training(panel)
    parts = {"Stream": spec["stream"], "Backbone": spec["backbone"], "Training, shared": shared}
    return {name: words(values) for name, values in parts.items()}


def _provenance(suite: Suite) -> dict[str, str]:
    """What the runs have in common, and every value where they differ."""
    times = [*distinct(suite.runs, "started"), *distinct(suite.runs, "finished")]
    packages = [run.provenance.get("packages") or {} for run in suite.runs]
    versions = sorted({f"{name} {used[name]}" for used in packages for name in used})
    statuses = [run.status for run in suite.runs]
    found = {title: ", ".join(distinct(suite.runs, key)) for key, title in _ENTRIES.items()}
    return {
        "Suite": f"{suite.name}: {suite.label}",
        "Records": f"{suite.file}, SHA-256 {suite.digest}",
        "Runs": ", ".join(f"{statuses.count(status)} {status}" for status in STATUSES),
        "Seeds": ", ".join(str(seed) for seed in sorted({run.seed for run in suite.runs})),
        "Time (UTC)": f"{min(times)} to {max(times)}" if times else "unknown",
        **{title: value or "unknown" for title, value in found.items()},
        "Packages": ", ".join(versions) or "unknown",
    }


def _run(run: Run) -> dict[str, object]:
    given = ("started", "device", "threads", "commit")
    return {
        "stream": run.spec["stream"]["name"],
        "method": run.label,
        "seed": run.seed,
        "status": run.status,
        "key": run.key,
        **{entry: run.provenance.get(entry, "") for entry in given},
        "error": run.record["error"] or "",
    }
