"""What the results of a suite say, as `make replicate` ends: leaderboards, verdicts, and whether
they are the published ones."""

from __future__ import annotations

from collections import Counter
from math import isnan
from pathlib import Path

from analysis.claims.judge import judge, measure
from analysis.claims.verdict import VERDICTS
from analysis.records import reading
from analysis.records.leaderboard import leaderboard
from analysis.records.runs import Panel, read_suite
from analysis.tables.table import ABSENT
from analysis.terminal import columns
from analysis.verify import compare


def text(runs: Path) -> str:
    """In words and columns, of a file of collected records; DataError if that is unusable."""
    suite = read_suite(runs)
    parts = [f"{panel.stream} on {panel.backbone}:\n{_board(panel)}" for panel in suite.panels]
    found = Counter(verdict.word for verdict in judge([measure(suite)], {}))
    counts = ", ".join(f"{found[word]} {word}" for word in VERDICTS)
    parts.append(f"the paper's claims in the light of this suite alone: {counts}")
    if published := reading.published().get(suite.name):
        parts.append(compare(suite, read_suite(published)).text())
    return "\n\n".join(parts)


def _board(panel: Panel) -> str:
    """The methods by their score; an asterisk marks the reference and those that were added."""
    return columns(
        [
            {
                "method": f"{row.method}{'*' * row.marked}",
                panel.score: _points(row.score),
                f"to {panel.titles.get(panel.reference, 'none')}": _points(row.difference, "+"),
                "95 % interval": _interval(row.low, row.high),
                "BWT": _points(row.bwt),
                "just learnt": _points(row.just_learnt),
                "TIME s": ABSENT if isnan(row.time_seconds) else f"{row.time_seconds:,.1f}",
            }
            for row in leaderboard(panel).itertuples()
        ]
    )


def _points(score: float, sign: str = "") -> str:
    return ABSENT if isnan(score) else f"{100 * score:{sign}.1f}"


def _interval(low: float, high: float) -> str:
    return "" if isnan(low) or low == high else f"[{_points(low, '+')}, {_points(high, '+')}]"
