"""docs/fidelity.md: where paper, released code and this suite differ, and what that changes.

Its points are in `fidelity.toml`, their measured differences come from records.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from analysis.claims.verdict import Effect
from analysis.records.metrics import interval
from analysis.records.runs import Panel, Suite
from analysis.records.variants import alike, counterparts, difference, variants
from analysis.records.variants import settings as chosen
from analysis.tables.table import Column, Table

LEDGER = Path(__file__).with_name("fidelity.toml")
HEAD = """\
# Fidelity

Every point where the paper, its released code and this suite differ, or where the paper is silent
or contradicts itself. The points are in `analysis/fidelity.toml`; the differences come from the
records in `benchmarks/published/`, whose settings are listed in [results.md](results.md).

*Other choice*: what to write in a suite to get it. *Difference*: the final score with that choice
minus the score with ours, both trained alike, in percentage points, paired by seed, with its 95 % t
interval; of BWT, another definition minus the paper's, for TreeLoRA, each counting forgetting as
positive. Where it is not plain which runs these are, their labels stand before. A dash: there is
nothing to switch.
"""
COLUMNS = {
    **{"topic": "What", "paper": "Paper", "released": "Released code", "here": "Here"},
    **{"option": "Other choice", "measured": "Difference"},
}


def read() -> dict[str, list[dict]]:
    """The entries of the ledger by group; "null" stands for None."""
    groups = tomllib.loads(LEDGER.read_text(encoding="utf-8"))
    for entry in (entry for entries in groups.values() for entry in entries):
        for settings in entry.get("option", {}).values():
            settings.update({key: None for key, value in settings.items() if value == "null"})
    return groups


def measured(entry: dict, suites: list[Suite]) -> str:
    """What difference the other choice makes, wherever it was measured."""
    found: dict[str, list[str]] = {}
    for panel in (panel for suite in suites for panel in suite.panels):
        for text in _measured(entry, panel):
            found.setdefault(text, []).append(f"{panel.slug} ({panel.suite.name})")
    if not found:
        return "not measured" if "option" in entry or "metric" in entry else ""
    return "; ".join(f"{', '.join(places)}: {text}" for text, places in found.items())


def _measured(entry: dict, panel: Panel) -> Iterator[str]:
    if (metric := entry.get("metric")) and "treelora" in panel.finished:
        values = panel.values.xs("treelora")
        yield _text((-values[metric] - values["bwt_paper"]).round(12) + 0.0)  # no minus before 0
    for method, settings in entry.get("option", {}).items():
        if label := entry.get("variant"):
            pairs = _under_other_names(panel, label, method, entry.get("sets_strength", False))
        else:
            near = {x for x, own in variants(panel, method).items() if own.keys() <= {"strength"}}
            pairs = [pair for pair in counterparts(panel, method, settings) if pair[1] in near]
        for label, other in pairs:
            plain = other == method and label == entry.get("variant", label)
            own = "" if plain and len(entry["option"]) == 1 else f"{label} − {other} "
            strengths = [chosen(panel, each).get("strength", "none") for each in (label, other)]
            if "preset" in settings and "sets_strength" not in entry and len({*strengths}) > 1:
                own += "(strengths {} and {}) ".format(*strengths)
            yield own + _text(difference(panel, "acc", label, other))


def _under_other_names(
    panel: Panel, label: str, method: str, sets_strength: bool
) -> list[tuple[str, str]]:
    """The run that stands for many choices at once, or for none, and one that was trained alike.

    If it can be, that one has the same strength, but where this is one of those choices.
    """
    found = variants(panel, method)
    if found and label in panel.finished and label not in found:  # another method
        label = alike(panel, method, label)
        return [(label, method)] if label else []
    if label not in found:
        return []
    own, training = chosen(panel, label), panel.specs[label]["train"].keys() - {"curve_tests"}

    def alike_in(other: str, keys: Iterable[str]) -> bool:
        return all(chosen(panel, other).get(key, own.get(key)) == own.get(key) for key in keys)

    others = [
        other
        for other, changes in found.items()
        if changes.keys() <= {*training, "curve_tests", "strength"} and alike_in(other, training)
    ]
    if not sets_strength:
        others.sort(key=lambda other: not alike_in(other, ["strength"]))
    return [(label, other) for other in others[:1]]


def _text(values: pd.Series) -> str:
    values = values.dropna()
    seeds = "1 seed" if len(values) == 1 else f"{len(values)} seeds"
    return f"{Effect('', interval(values), len(values)).text()}, {seeds}"


def _yaml(settings: dict) -> str:
    """Settings as a suite holds them."""
    shown = {k: v if isinstance(v, str) else json.dumps(v) for k, v in settings.items()}
    return ", ".join(f"{key}: {value}" for key, value in shown.items())


def document(suites: list[Suite]) -> str:
    """The whole text."""
    parts = [HEAD]
    for group, entries in read().items():
        rows = [
            entry
            | {
                "option": ", ".join(
                    f"`{owner}: {{{_yaml(settings)}}}`"
                    for owner, settings in entry.get("option", {}).items()
                ),
                "measured": measured(entry, suites),
            }
            for entry in entries
        ]
        columns = [Column(key, title, markup=True) for key, title in COLUMNS.items()]
        text = Table("", group, columns, rows).markdown()
        parts.append(text.replace(f"**{group}**", f"## {group}", 1))
    return "\n".join(parts)
