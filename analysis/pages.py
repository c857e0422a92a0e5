"""Pages that are made of records: the README's table, the claims, and the scores of all streams."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from analysis.claims.judge import RULE, table
from analysis.claims.verdict import (
    CLAIMS,
    NOT_RUN,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    VERDICTS,
    Claim,
    Effect,
    Verdict,
)
from analysis.records.runs import Panel, Suite
from analysis.tables.accuracy import accuracy
from analysis.tables.choices import ablations
from analysis.tables.published import peers
from analysis.tables.table import Column, Table, markdown, plain

HEADLINES = (  # the claims that the README shows
    *("accuracy", "forgetting", "speed-vision", "speed-language", "speed-same-schedule"),
    *("search", "tree", "regret"),
)
WORDS = {SUPPORTED: "yes", NOT_SUPPORTED: "no", UNDECIDED: "open", NOT_RUN: "not run"}
SCORES = ("method", "runs", "acc", "bwt_paper", "time_seconds")  # columns of the table accuracy
CLAIMS_HEAD = """\
# The paper's claims

What the published records say of each claim of the paper: supported, not supported, undecided or
not run. [How a verdict is reached](#rule) stands at the end, the scores are in
[results.md](results.md). Scores are in points of percent. By suite, the settings are:

{settings}

"""
RESULTS_HEAD = """\
# Scores

Printed from the records in `benchmarks/published/`; what they say of the paper's claims is in
[claims.md](claims.md). Scores are in percent, mean ± sample standard deviation over seeds, the best
in bold. At the end stand the upper bound (`joint`) and, for text, the floor: what outputs without
any model score. BWT counts forgetting as positive. TIME is training and consolidation. `make
figures` draws these tables with every column, and the others.

"""


# ---- claims -------------------------------------------------------------------------------------


def headlines(verdicts: list[Verdict], suites: list[Suite]) -> str:
    """The README's table: the main claims, what was measured of each, and whether it holds.

    Where several suites ran a stream, the one with most methods speaks for it.
    """
    n_methods = {
        f"{panel.slug} ({suite.name})": panel.runs["name"].nunique()
        for suite in suites
        for panel in suite.panels
    }

    def width(verdict: Verdict) -> int:
        return max(n_methods.get(place, 0) for place in verdict.place.split(", "))

    rows = []
    for claim, own in _by_claim(verdicts).items():
        if claim.id not in HEADLINES:
            continue
        by_stream: dict[str, list[Verdict]] = {}
        for verdict in own:
            by_stream.setdefault(verdict.place.partition(" (")[0], []).append(verdict)
        shown = {stream: max(each, key=width) for stream, each in by_stream.items()}
        effects = [f"{x} {_brief(v.effect)}" for x, v in shown.items() if v.effect]
        words = Counter(WORDS[verdict.word] for verdict in shown.values())
        holds = [f"{word} ({n})" for word, n in words.most_common()]
        row = {"claim": f"[{claim.says}](docs/claims.md#{claim.id})", "paper": _paper(claim)}
        row["here"] = "; ".join(effects)
        row["holds"] = ", ".join(holds) if len(words) > 1 else [*words][0]
        rows.append(row)
    columns = [Column("claim", "Claim", markup=True), Column("paper", "Paper")]
    columns += [Column("here", "Here, mean [95 % interval]"), Column("holds", "Holds here?")]
    return _text(Table("", "", columns, rows))


def _brief(effect: Effect) -> str:
    """An effect without its factors, and in whose form it is if not TreeLoRA's alone."""
    text = replace(effect, parts=()).text().removesuffix(" points")
    return f"{text} (hidetreelora)" if "hidetreelora" in effect.what else text


def claims_page(verdicts: list[Verdict], suites: list[Suite], remarks: Mapping[str, str]) -> str:
    """Every claim with its verdicts and what they rest on.

    Args:
        remarks: by claim, what its effects cannot say themselves.
    """
    rows, sections = [], []
    for claim, own in _by_claim(verdicts).items():
        row = {"claim": f"[{claim.says}](#{claim.id})", "where": claim.where}
        for place, verdict in _by_place(own).items():
            known = row.get(verdict.word)
            row[verdict.word] = f"{known}, {place}" if known else place
        rows.append(row)
        found = table(own)
        found.title, found.notes = "", []
        found.columns = [
            column
            for column in found.columns
            if column.key not in ("claim", "paper") and any(r.get(column.key) for r in found.rows)
        ]
        paper = f"In the paper: {markdown(_paper(claim))} ({claim.where})."
        sections += [f"{_anchor(claim.id)}## {claim.says}", paper, _text(found)]
        sections += [markdown(remarks[claim.id])] if claim.id in remarks else []
    columns = [Column("claim", "Claim", markup=True), Column("where", "In the paper")]
    columns += [Column(word, word.capitalize()) for word in VERDICTS]
    settings = "\n".join(f"- {suite.name}: {markdown(suite.label)}" for suite in suites)
    rule = "\n".join(f"- {markdown(line)}" for line in RULE)
    sections.append(f"{_anchor('rule')}## How a verdict is reached\n\n{rule}")
    parts = [_text(Table("", "", columns, rows)), *sections]
    return CLAIMS_HEAD.format(settings=settings) + "\n\n".join(parts) + "\n"


def _by_claim(verdicts: list[Verdict]) -> dict[Claim, list[Verdict]]:
    return {claim: [v for v in verdicts if v.claim is claim] for claim in CLAIMS.values()}


def _by_place(own: list[Verdict]) -> dict[str, Verdict]:
    """The verdicts on a claim by place, without suites where the stream alone tells it."""
    streams = [verdict.place.partition(" (")[0] for verdict in own]
    return {
        (stream if streams.count(stream) == 1 else verdict.place): verdict
        for stream, verdict in zip(streams, own, strict=True)
    }


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

    Of suites that run the same stream on the same backbone, each table is of the one with most.

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
        varied = max(panels, key=lambda panel: len(panel.methods) - panel.runs["name"].nunique())
        parts.append(f"## {panel.stream}, {panel.backbone} ({panel.suite.name})")
        scores = accuracy(panel)
        kept = {f"{who}{key}" for who in ("", "paper_", "independent_") for key in SCORES}
        scores.columns = [column for column in scores.columns if column.key in kept]
        scores.title, scores.notes = "Scores", scores.notes[1:]  # the first is in the head
        scores.notes += remarks.get(panel.suite.name, [])
        parts.append(_text(scores))
        for more, of in ((ablations(varied), varied), (peers(panel), panel)):
            more.title = more.title.partition(": ")[2].capitalize()
            if of is panel:
                more.setting = []  # as above
            else:
                more.notes += remarks.get(of.suite.name, [])
            parts += [_text(more)] if more.rows else []
    return RESULTS_HEAD + "\n\n".join(parts) + "\n"


def _suites(suites: list[Suite]) -> str:
    """What was run, and how long it took."""
    rows = []
    for suite in suites:
        begun, ended = (pd.to_datetime(suite.runs[key]) for key in ("started", "finished"))
        row = {"suite": suite.name, "label": suite.label, "runs": str(len(suite.runs))}
        row["hours"] = plain((ended - begun).dt.total_seconds().sum() / 3600)
        row["device"] = "; ".join(sorted(set(suite.runs["device"].dropna())))
        rows.append(row)
    columns = [Column("suite", "Suite"), Column("label", "Setting"), Column("runs", "Runs")]
    columns += [Column("hours", "Hours, one run at a time"), Column("device", "Devices")]
    return _text(Table("", "", columns, rows))


def _text(table: Table) -> str:
    """A table as Markdown, with nothing above it if it has no title."""
    return table.markdown().removeprefix("****").strip()
