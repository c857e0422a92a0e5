"""What results say of the claims: each is measured once in a panel, then judged over all suites."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import NamedTuple

import pandas as pd

# The claims, in the order in which they are shown.
from analysis.claims import main_tables, schedules, settings, workings  # noqa: F401
from analysis.claims.verdict import CLAIMS, Effect, Verdict
from analysis.records.runs import Suite
from analysis.tables.table import Column, Table
from analysis.tables.table import csv as to_csv

RULE = (
    "An effect is a mean over seeds, paired by seed, with its 95 % t interval. Supported: the "
    "interval lies where the claim holds. Not supported: it lies where the claim fails. Not "
    "testable: it reaches into both (undecided; how many seeds would tell assumes that mean and "
    "spread stay as they are), or runs are missing. A claim about several effects needs all of "
    "them; the least favourable is shown, and intervals are not widened for their number.",
    "Margins are the paper's own. At par: its largest shortfall, against the contenders of its "
    "own table (1 on vision, 3 on language). Robust: the wider spread of its Table 6. Few epochs:"
    " what more gain in its Table 2. Constant cost: the largest relative deviation of TIME that "
    "it prints. A speed-up must be nearer to the paper's factor than to 1, in logarithms; time "
    "per step includes consolidation. Noise of the test items: 1.96 binomial standard errors "
    "against the paper's smallest lead or shortfall; what lies between counting only tasks whose "
    "items score 0 or 1 and counting all is its interval.",
    "What stands beside an effect does not decide. At par: the best of the methods that the "
    "paper's table lacks. Forgetting: what was not learnt cannot be forgotten, so the difference "
    "in learning. Search: where training is as short as here, the bonus outweighs what the bandit"
    " could learn and it pulls nearly in turn, so that a missing difference says little.",
)


class Measured(NamedTuple):
    """What one suite says of the claims.

    Attributes:
        suite: its name.
        panels: by panel and claim the paper's effect as text and those that were measured.
        trees: by stream and seed the adjusted Rand index of TreeLoRA's last tree.
    """

    suite: str
    panels: dict[str, dict[str, tuple[str, tuple[Effect, ...]]]]
    trees: dict[str, dict[int, float]]


def measure(suite: Suite) -> Measured:
    """Every claim about panels in every panel of the suite."""
    panels: dict[str, dict] = {}
    trees: dict[str, dict[int, float]] = {}
    for panel in suite.panels:
        panels[panel.slug] = {
            claim.id: (claim.paper(panel.modality), tuple(claim.test(panel)))
            for claim in CLAIMS.values()
            if not claim.data and claim.modality in ("", panel.modality)
        }
        for (label, seed), own in panel.agreements.items():
            if label == "treelora":
                trees.setdefault(panel.stream, {})[seed] = own.index
    return Measured(suite.name, panels, trees)


def judge(measured: list[Measured], experiments: Mapping[str, object]) -> list[Verdict]:
    """One verdict per claim and place that tests it, else one that says what would.

    Places with the same effects, as where suites share runs, are one.

    Args:
        measured: of each suite.
        experiments: what belongs to no suite, by the name that a claim's `data` gives: `regret`,
            ratios of regrets by structure and gamma, as `records.regret.improvement` has them;
            `accounting`, as `records.accounting.findings` has it.
    """
    trees: dict[str, dict[int, float]] = {}
    for own in measured:
        for stream, by_seed in own.trees.items():
            trees.setdefault(stream, {}).update(by_seed)
    found = {"trees": trees} | experiments
    verdicts = []
    for claim in CLAIMS.values():
        if claim.data:
            results = claim.test(found[claim.data]) if claim.data in found else {}
            effects = [(place, claim.paper(""), tuple(own)) for place, own in results.items()]
        else:
            effects = [
                (f"{slug} ({own.suite})" if len(measured) > 1 else slug, *panel[claim.id])
                for own in measured
                for slug, panel in own.panels.items()
                if claim.id in panel
            ]
        places: dict[str, tuple[list[str], str, tuple[Effect, ...]]] = {}
        for place, paper, own in effects:
            if own:
                places.setdefault(repr((paper, own)), ([], paper, own))[0].append(place)
        verdicts += [
            Verdict(claim, ", ".join(same), paper, own) for same, paper, own in places.values()
        ] or [Verdict(claim, "", claim.paper(claim.modality))]
    return verdicts


def table(verdicts: list[Verdict]) -> Table:
    """Every verdict with its effect."""
    columns = {
        **{"claim": "Claim", "paper": "In the paper", "place": "Here", "verdict": "Verdict"},
        **{"effect": "Effect [95 % interval]", "what": "of", "bar": "Supported if", "n": "Seeds"},
        **{"would_test": "What would test it", "beside": "Beside it"},
    }
    rows = []
    for verdict in verdicts:
        row = {
            "claim": verdict.claim.says,
            "paper": f"{verdict.paper} ({verdict.claim.where})",
            "place": verdict.place,
            "verdict": verdict.word,
            "would_test": verdict.would_test,
        }
        if effect := verdict.effect:
            row |= {"effect": effect.text(), "what": effect.what, "bar": effect.bar()}
            row |= {"beside": verdict.beside}
            row["n"] = effect.n or None
        rows.append(row)
    wide = ("claim", "paper", "effect", "would_test", "beside")
    shown = [Column(key, title, wide=key in wide) for key, title in columns.items()]
    return Table("claims", "The paper's claims", shown, rows, notes=list(RULE))


def _raw(effect: Effect | None) -> dict[str, object]:
    if not effect:
        return {}
    raw = exp if effect.unit == "times" else float
    ends = {end: raw(getattr(effect.estimate, end)) for end in ("mean", "low", "high")}
    return {"what": effect.what, "unit": effect.unit, "n": effect.n} | ends


def csv(verdicts: list[Verdict]) -> str:
    """Raw values: scores as fractions, ratios not as logarithms."""
    columns = ("claim", "place", "verdict", "what", "unit", "n", "mean", "low", "high")
    rows = []
    for verdict in verdicts:
        row = {"claim": verdict.claim.id, "place": verdict.place, "verdict": verdict.word}
        row |= {"paper": verdict.paper, "would_test": verdict.would_test}
        rows.append(row | _raw(verdict.effect))
        others = (effect for effect in verdict.effects if effect.beside)
        rows += [row | {"verdict": "beside", "would_test": ""} | _raw(e) for e in others]
    frame = pd.DataFrame(rows, columns=[*columns, "paper", "would_test"])
    return to_csv(frame.astype({"n": "Int64"}))
