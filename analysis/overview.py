"""index.html: the answer on one page, and the way to the reports of the suites."""

from __future__ import annotations

from collections.abc import Mapping

from analysis import exhibits
from analysis.catalogue import FIGURES
from analysis.claims.judge import RULE, Measured, evidence, setting_names
from analysis.claims.summary import chance, counts, findings, standings
from analysis.claims.verdict import Verdict
from analysis.forest import NARROW, WIDE, forest
from analysis.records.leaderboard import BOUNDS
from analysis.records.metrics import Estimate
from analysis.scatter import Board, against_time
from analysis.tables.table import Column, Table, percent
from analysis.templates import PAGES

BEYOND = " (beyond the paper)"


def page(
    suites: list,
    measured: list[Measured],
    verdicts: list[Verdict],
    boards: list[Board],
    index: list[exhibits.Entry],
    experiments: list[dict],
    files: list[str],
) -> str:
    """The page as HTML.

    Args:
        suites: of each `suite` (its name), `label` and `n_runs`.
        boards: of all panels; of those of a setting the one with most methods is shown.
        experiments: of each its `title`, its `tables` and its `figures` by name.
        files: what lies beside the page.
    """
    names = setting_names(measured)
    widest = sorted(boards, key=lambda board: len(board.rows), reverse=True)
    shown = {name: b for key, name in names.items() for b in widest[::-1] if b.setting == key}
    shown = {name: own for name, own in shown.items() if len(own.rows) > 2}

    def link(verdict: Verdict) -> str:
        return f"#{verdict.claim.id}"

    return PAGES.get_template("index.html.j2").render(
        counts=counts(verdicts, measured),
        findings=findings(verdicts),
        chance=str(chance(verdicts)),
        plots=[forest(verdicts, layout, link) for layout in (WIDE, NARROW)],
        claims=[
            (standing, evidence([v for v in verdicts if v.claim is standing.claim]))
            for standing in standings(verdicts)
        ],
        rule=RULE,
        scatters=[(name, own, against_time(name, own)) for name, own in shown.items()],
        scores=scores(shown),
        index=index,
        suites=suites,
        experiments=experiments,
        captions={name: figure.caption for name, figure in FIGURES.items()},
        files=files,
    )


def scores(boards: Mapping[str, Board]) -> Table:
    """Methods x settings: final scores. Below the paper's methods those beyond it, and bounds."""
    means: dict[str, dict[str, Estimate]] = {}
    ranks: dict[str, list[float]] = {}
    below: set[str] = set()
    for setting, board in boards.items():
        order = board.rows["score"].rank(ascending=False, pct=True)
        for row in board.rows.itertuples():
            title = row.method
            if row.role in BOUNDS:
                below.add(title)
            elif row.Index not in exhibits.METHODS:
                title += BEYOND
                below.add(title)
            means.setdefault(title, {})[setting] = Estimate(row.score, row.score_sd)
            ranks.setdefault(title, []).append(order[row.Index] if row.role not in BOUNDS else 2)
    rows = sorted(means, key=lambda title: sum(ranks[title]) / len(ranks[title]))
    cells = [{"method": title} | means[title] for title in rows]
    columns = [Column("method", "Method")]
    columns += [
        Column(name, f"{name}, {board.score}", percent, better=1) for name, board in boards.items()
    ]
    notes = [
        "Mean final score in percent ± sample standard deviation over seeds, best of the paper's "
        "methods in bold, ordered by mean rank. Variants of a method are on the suites' pages."
    ]
    return Table(
        "scores",
        "Final scores",
        columns,
        [row for row in cells if row["method"] not in below],
        [row for row in cells if row["method"] in below],
        notes,
    )
