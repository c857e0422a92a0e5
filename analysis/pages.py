"""Pages that are made of records: the README's table, the claims, and the scores of all streams."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

from analysis.catalogue import is_result
from analysis.claims.judge import RULE, Measured, evidence
from analysis.claims.summary import (
    Standing,
    chance,
    counts,
    findings,
    lasting,
    standings,
)
from analysis.claims.verdict import (
    CLAIMS,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    Claim,
    Verdict,
)
from analysis.records.runs import Panel, Suite
from analysis.tables.accuracy import accuracy
from analysis.tables.choices import ablations
from analysis.tables.published import peers
from analysis.tables.table import Column, Table, plain
from analysis.tables.tuning import tuning
from analysis.text import markdown

HEADLINES = (  # the claims that the README shows
    *("accuracy", "forgetting", "speed-vision", "speed-language", "speed-same-schedule"),
    *("search", "tree", "regret"),
)
IN_BOLD = "These are in bold."
TOLD = (SUPPORTED, NOT_SUPPORTED, UNDECIDED)
SCORES = ("method", "runs", "acc", "bwt_paper", "time_seconds")  # columns of the table accuracy
CLAIMS_HEAD = """\
# The paper's claims

{counts} [How a verdict is reached](#rule) stands at the end, the scores are in
[results.md](results.md). {chance}

![Our effects with 95 % intervals, where each claim holds, and the paper's values](claims.svg)

By suite, the settings are:

{settings}

"""
RESULTS_HEAD = """\
# Scores

Printed from the records in `benchmarks/published/`; what they say of the paper's claims is in
[claims.md](claims.md). Scores are in percent, mean ± sample standard deviation over seeds, the best
in bold. At the end stand `joint`, which learns all tasks at once for as many epochs and aligns no
classifier, so that a method that does may be ahead of it, and, for text, the floor: what outputs
without any model score. BWT counts forgetting as positive. TIME is training and consolidation, in
parentheses where it is from another device or load. `make figures` draws these tables with every
column, and the others.

"""


# ---- claims -------------------------------------------------------------------------------------


def headlines(verdicts: list[Verdict]) -> str:
    """The README's table: of each main claim in which settings it holds."""
    own = [standing for standing in standings(verdicts) if standing.claim.id in HEADLINES]
    return _by_setting(own, lasting(verdicts), "docs/claims.md", {})


def _by_setting(
    own: list[Standing],
    lasting: list[Verdict],
    page: str,
    more: Mapping[str, Callable[[Claim], str]],
) -> str:
    """One row per claim: the settings by verdict, and what else is told of the claim, by title.

    In bold the settings whose verdict lasts when it is corrected for the number of all.
    """

    def called(verdict: Verdict) -> str:
        name = markdown(verdict.setting)
        return f"**{name}**" if verdict in lasting else name

    rows = [
        {"claim": _linked(standing.claim, page)}
        | {title: tell(standing.claim) for title, tell in more.items()}
        | {word: ", ".join(map(called, standing.of(word))) for word in TOLD}
        for standing in own
    ]
    columns = [Column("claim", "Claim", markup=True)]
    columns += [Column(key, key.capitalize(), markup=key in TOLD) for key in (*more, *TOLD)]
    return _text(Table("", "", columns, rows))


def _linked(claim: Claim, page: str) -> str:
    return f"[{claim.says}]({page}#{claim.id})"


def found(verdicts: list[Verdict]) -> str:
    """What was found, as the README's list; what is undecided stands in its table."""
    lines = []
    for finding in findings(verdicts)[:2]:
        each = [_linked(claim, "docs/claims.md") + markdown(text) for claim, text in finding.items]
        more = [f"[{finding.more} more](docs/claims.md)"] if finding.more else []
        lines.append(f"- **{finding.title}.** {'; '.join(each + more) or 'Nothing'}.")
    return "\n".join([*lines, f"- **Multiplicity.** {chance(verdicts)} {IN_BOLD}"])


def claims_page(
    verdicts: list[Verdict],
    measured: list[Measured],
    suites: list[Suite],
    remarks: Mapping[str, str],
) -> str:
    """Every claim with its verdicts and what they rest on.

    Args:
        remarks: by claim, what its effects cannot say themselves.
    """
    head = CLAIMS_HEAD.format(
        counts=counts(verdicts, measured),
        chance=f"{chance(verdicts)} {IN_BOLD}",
        settings="\n".join(f"- {suite.name}: {markdown(suite.label)}" for suite in suites),
    )
    sections = [_by_setting(standings(verdicts), lasting(verdicts), "", {"paper": _paper})]
    for claim in CLAIMS.values():
        own = [verdict for verdict in verdicts if verdict.claim is claim]
        paper = f"In the paper: {markdown(_paper(claim))} ({claim.where})."
        sections += [f"{_anchor(claim.id)}## {claim.says}", paper, _text(evidence(own))]
        sections += [markdown(remarks[claim.id])] if claim.id in remarks else []
    rule = "\n".join(f"- {markdown(line)}" for line in RULE)
    sections.append(f"{_anchor('rule')}## How a verdict is reached\n\n{rule}")
    return head + "\n\n".join(sections) + "\n"


def _paper(claim: Claim) -> str:
    """The paper's own effect, by modality where they differ."""
    both = not claim.modality and not claim.data
    kinds = ("vision", "language") if both else (claim.modality,)
    texts = {claim.paper(kind).text: kind for kind in kinds}
    if len(texts) == 1:
        return claim.paper(kinds[0]).text
    return "; ".join(f"{kind} {text}" for text, kind in texts.items())


def _anchor(name: str) -> str:
    return f'<a id="{name}"></a>\n\n'


# ---- scores -------------------------------------------------------------------------------------


def results_page(suites: list[Suite], remarks: Mapping[str, list[str]]) -> str:
    """By stream: the scores, what single choices change, and other public code's scores.

    Of suites that run the same stream on the same backbone, the scores are those of the one with
    most methods, and what single choices change is of each that varies what none before it does.

    Args:
        remarks: by suite, what its records cannot say themselves.
    """
    groups: dict[str, list[Panel]] = {}
    for panel in (panel for suite in suites for panel in suite.panels):
        where = json.dumps([panel.spec["stream"], panel.spec["backbone"]], sort_keys=True)
        groups.setdefault(where, []).append(panel)
    parts = [_suites(suites)]
    for panels in groups.values():
        panel = max(panels, key=lambda panel: panel.runs["name"].nunique())
        parts.append(f"## {panel.stream}, {panel.backbone} ({panel.suite.name})")
        if not is_result(panel.spec):
            chosen = tuning(panel)
            chosen.title = "Settings chosen on items held out of training"
            chosen.notes += remarks.get(panel.suite.name, [])
            parts.append(_text(chosen))
            continue
        scores = accuracy(panel)
        kept = {f"{who}{key}" for who in ("", "paper_", "independent_") for key in SCORES}
        scores.columns = [column for column in scores.columns if column.key in kept]
        scores.title, scores.notes = "Scores", scores.notes[1:]  # the first is in the head
        scores.notes += remarks.get(panel.suite.name, [])
        parts.append(_text(scores))
        for more, of in [*_varied(panels), (peers(panel), panel)]:
            more.title = more.title.partition(": ")[2].capitalize()
            if of is panel:
                more.setting = []  # as above
            else:
                more.title += f" ({of.suite.name})"
                more.notes += remarks.get(of.suite.name, [])
            parts += [_text(more)] if more.rows else []
    return RESULTS_HEAD + "\n\n".join(parts) + "\n"


def _varied(panels: list[Panel]) -> Iterator[tuple[Table, Panel]]:
    """What single choices change, in the panels that have rows which no larger one has."""
    seen: set[str] = set()
    for panel in sorted(
        panels, key=lambda panel: panel.runs["name"].nunique() - len(panel.methods)
    ):
        table = ablations(panel)
        own = {row["method"] for row in table.rows}
        if own - seen:
            yield table, panel
        seen |= own


def _suites(suites: list[Suite]) -> str:
    """What was run, and how long it took."""
    rows = []
    for suite in suites:
        took = suite.runs["finished"] - suite.runs["started"]
        row = {"suite": suite.name, "label": suite.label, "runs": str(len(suite.runs))}
        row["hours"] = plain(took.dt.total_seconds().sum() / 3600)
        row["device"] = "; ".join(sorted(set(suite.runs["device"].dropna())))
        rows.append(row)
    columns = [Column("suite", "Suite"), Column("label", "Setting"), Column("runs", "Runs")]
    columns += [Column("hours", "Hours, added over runs"), Column("device", "Devices")]
    return _text(Table("", "", columns, rows))


def _text(table: Table) -> str:
    """A table as Markdown, with nothing above it if it has no title."""
    return table.markdown().removeprefix("****").strip()
