"""What results say of the claims: each is measured once in a panel, then judged over all suites."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import exp, isnan
from typing import NamedTuple

import pandas as pd

# The claims, in the order in which they are shown.
from analysis.claims import main_tables, schedules, settings, workings  # noqa: F401
from analysis.claims.verdict import CLAIMS, Claim, Effect, Reported, Verdict
from analysis.records import schema
from analysis.records.counterparts import cells
from analysis.records.runs import Suite
from analysis.tables.table import Column, Table
from analysis.tables.table import csv as to_csv

RULE = (
    "An effect is a mean over seeds, paired by seed, with its 95 % t interval. Supported: the "
    "interval lies where the claim holds. Not supported: it lies where the claim fails. "
    "Undecided: it reaches into both, or all seeds say the same, which does not tell how others "
    "would differ; how many seeds would tell assumes that mean and spread stay as they are. Not "
    "run: no suite has the runs.",
    "A claim about several effects needs all of them. Of those that fail the surest is shown, else "
    "the least favourable; claims.csv, which make figures leaves, has all. p is "
    "two-sided, from the nearest end of where the claim holds: the largest of a claim that is "
    "supported, and of one that fails the smallest times the number of effects, as any might have "
    "failed by chance. Above 0.05 that is undecided.",
    "Where several suites ran a stream on one backbone, the one with most seeds speaks for that "
    "setting, then the one with most effects and most methods. A setting is named after the first "
    "of them. Times are compared where one device made both runs of a seed.",
    "Margins are the paper's own. At par: its largest shortfall, against the contenders of its "
    "own table (1 on vision, 3 on language). Robust: the wider spread of its Table 6. Few epochs:"
    " what more gain in its Table 2. Constant cost: the largest relative deviation of TIME that "
    "it prints, for memory too, of which it prints none; memory is that of a GPU, as on a CPU it "
    "is the whole process's. A speed-up must be nearer to the paper's factor than to 1, in "
    "logarithms; time per step includes consolidation. Noise of the test items: 1.96 binomial "
    "standard errors of one run against the paper's smallest lead or shortfall; what lies between "
    "counting only tasks whose items score 0 or 1 and counting all is its interval.",
    "What stands beside an effect does not decide. At par: the best of the methods that the "
    "paper's table lacks, and a contender that is trained as TreeLoRA is where each row has its "
    "own rate. Forgetting: what was not learnt cannot be forgotten, so the difference in "
    "learning; and HiDeLoRA beside TreeLoRA in HiDe, which have all but the tree in common. "
    "Robust: values beyond those of Table 6. Search: where training is as short as here, the "
    "bonus outweighs what the bandit could learn and it pulls nearly in turn, so that a missing "
    "difference says little.",
)


class Found(NamedTuple):
    """What one panel says of the claims.

    Attributes:
        setting: what its runs share, see `schema.panel`.
        n_methods: how many were run.
        in_paper: whether a run of it repeats a number of the paper, in its setting.
        claims: by claim the paper's effect and those that were measured.
    """

    setting: str
    n_methods: int
    in_paper: bool
    claims: dict[str, tuple[Reported, tuple[Effect, ...]]]


class Measured(NamedTuple):
    """What one suite says of the claims.

    Attributes:
        suite: its name.
        panels: by their slugs.
        trees: by stream and seed the adjusted Rand index of TreeLoRA's last tree.
    """

    suite: str
    panels: dict[str, Found]
    trees: dict[str, dict[int, float]]


def measure(suite: Suite) -> Measured:
    """Every claim about panels in every panel of the suite."""
    panels: dict[str, Found] = {}
    trees: dict[str, dict[int, float]] = {}
    for panel in suite.panels:
        claims = {
            claim.id: (claim.paper(panel.modality), tuple(claim.test(panel)))
            for claim in CLAIMS.values()
            if not claim.data and claim.modality in ("", panel.modality)
        }
        setting, n_methods = schema.panel(panel.spec), panel.runs["name"].nunique()
        in_paper = any(map(cells, panel.specs.values()))
        panels[panel.slug] = Found(setting, n_methods, in_paper, claims)
        for (label, seed), own in panel.agreements.items():
            if label == "treelora":
                trees.setdefault(panel.stream, {})[seed] = own.index
    return Measured(suite.name, panels, trees)


def setting_names(measured: list[Measured]) -> dict[str, str]:
    """How each setting is called: by its stream, and by a suite where streams have several.

    By the first of its suites; where one is called as the stream is, that name suffices.
    """
    found: dict[str, tuple[str, str]] = {}
    for own in measured:
        for slug, panel in own.panels.items():
            if panel.setting not in found or own.suite == slug:
                found[panel.setting] = slug, own.suite
    slugs = [slug for slug, _ in found.values()]
    return {
        setting: slug if slugs.count(slug) == 1 or suite == slug else f"{slug} ({suite})"
        for setting, (slug, suite) in found.items()
    }


class _Place(NamedTuple):
    """Where a claim was tested, and with what result."""

    setting: str
    name: str
    suite: str
    n_methods: int
    paper: Reported
    effects: tuple[Effect, ...]


def judge(measured: list[Measured], experiments: Mapping[str, object]) -> list[Verdict]:
    """One verdict per claim and place that tests it, else one that says what would.

    Places with the same effects, as where suites share runs, are one. Of the places of a setting
    one `speaks`: that with most seeds, then with most effects and methods.

    Args:
        measured: of each suite.
        experiments: what belongs to no suite, by the name that a claim's `data` gives: `regret`,
            and `accounting`, as `findings` of `records.regret` and `records.accounting` have it.
    """
    trees: dict[str, dict[int, float]] = {}
    for own in measured:
        for stream, by_seed in own.trees.items():
            trees.setdefault(stream, {}).update(by_seed)
    found, names = {"trees": trees} | experiments, setting_names(measured)
    verdicts = []
    for claim in CLAIMS.values():
        if claim.data:
            results = claim.test(found[claim.data]) if claim.data in found else {}
            places = [
                _Place(name, name, "", 0, claim.paper(""), tuple(own))
                for name, own in results.items()
            ]
        else:
            places = [
                _Place(
                    names[panel.setting],
                    f"{slug} ({own.suite})" if len(measured) > 1 else slug,
                    own.suite,
                    panel.n_methods,
                    *panel.claims[claim.id],
                )
                for own in measured
                for slug, panel in own.panels.items()
                if claim.id in panel.claims
            ]
            order = list(names.values())  # in that of the suites, whichever has the runs
            places.sort(key=lambda place: order.index(place.setting))
        verdicts += _of_claim(claim, [place for place in places if place.effects])
    return verdicts


def _of_claim(claim: Claim, places: list[_Place]) -> list[Verdict]:
    if not places:
        return [Verdict(claim, "", "", claim.paper(claim.modality))]
    alike: dict[str, list[_Place]] = {}
    for place in places:
        alike.setdefault(repr((place.setting, place.paper, place.effects)), []).append(place)
    groups, speakers = [], {}
    for same in alike.values():
        first = same[0]
        name = ", ".join(place.name for place in same)
        by = tuple(place.suite for place in same if place.suite)
        verdict = Verdict(claim, first.setting, name, first.paper, first.effects, by)
        weight = (
            verdict.effect.n if verdict.effect else 0,
            len(verdict.judged),
            max(place.n_methods for place in same),
        )
        groups.append(verdict)
        if weight > speakers.get(first.setting, ((),))[0]:
            speakers[first.setting] = weight, verdict
    return [replace(v, speaks=speakers[v.setting][1] is v) for v in groups]


def table(verdicts: list[Verdict]) -> Table:
    """Every verdict with its effect."""
    columns = {
        **{"claim": "Claim", "paper": "In the paper", "place": "Here", "verdict": "Verdict"},
        **{"effect": "Effect [95 % interval]", "what": "of", "bar": "Supported if", "n": "Seeds"},
        **{"p": "p", "would_test": "What would tell", "beside": "Beside it"},
    }
    rows = []
    for verdict in verdicts:
        row = {
            "claim": verdict.claim.says,
            "paper": f"{verdict.paper.text} ({verdict.claim.where})",
            "place": verdict.place,
            "verdict": verdict.word,
            "would_test": verdict.would_test,
        }
        if effect := verdict.effect:
            row |= {"effect": effect.text(), "what": effect.what, "bar": effect.bar()}
            row |= {"beside": verdict.beside}
            row |= {"n": effect.n or None, "p": _p(verdict)}
        rows.append(row)
    wide = ("claim", "paper", "effect", "would_test", "beside")
    shown = [Column(key, title, wide=key in wide) for key, title in columns.items()]
    return Table("claims", "The paper's claims", shown, rows, notes=list(RULE))


def _p(verdict: Verdict) -> str:
    """That of the verdict, and of how many effects one was to tell."""
    if isnan(verdict.p):
        return ""
    p = "< 0.001" if verdict.p < 0.001 else f"{verdict.p:.3f}"
    n = len(verdict.judged)
    return f"{p}, of {n}" if n > 1 else p


def evidence(own: list[Verdict]) -> Table:
    """The verdicts on one claim, without what its heading says and columns without content."""
    found = table(own)
    found.title, found.notes = "", []
    found.columns = [
        column
        for column in found.columns
        if column.key not in ("claim", "paper") and any(row.get(column.key) for row in found.rows)
    ]
    return found


def _raw(effect: Effect) -> dict[str, object]:
    raw = _unlogged(effect)
    ends = {end: raw(getattr(effect.estimate, end)) for end in ("mean", "low", "high")}
    return {"what": effect.what, "unit": effect.unit, "n": effect.n} | ends


def _unlogged(effect: Effect) -> Callable[[float], float]:
    return exp if effect.unit == "times" else float


def csv(verdicts: list[Verdict]) -> str:
    """Raw values: scores as fractions, ratios not as logarithms.

    A claim holds between `region_low` and `region_high`; the paper's own effect is from `paper_low`
    to `paper_high`. Behind the effect that decides come the `other` ones that the claim is about,
    each with a p of its own, and those `beside` it.
    """
    columns = ("claim", "place", "verdict", "what", "unit", "n", "mean", "low", "high")
    columns += ("region_low", "region_high", "paper_low", "paper_high", "p", "paper", "would_test")
    rows = []
    for verdict in verdicts:
        row = {"claim": verdict.claim.id, "place": verdict.place, "verdict": verdict.word}
        row |= {"paper": verdict.paper.text, "would_test": verdict.would_test}
        if not (effect := verdict.effect):
            rows.append(row)
            continue
        raw, (low, high) = _unlogged(effect), effect.region
        row |= {f"paper_{end}": raw(getattr(verdict.paper, end)) for end in ("low", "high")}
        judged = row | {"region_low": raw(low), "region_high": raw(high)}
        rows.append(judged | _raw(effect) | {"p": verdict.p})
        row["would_test"] = judged["would_test"] = ""
        others = [e for e in verdict.judged if e is not effect]
        rows += [judged | {"verdict": "other", "p": e.p} | _raw(e) for e in others]
        beside = [replace(e, what=e.named) for e in verdict.effects if e.beside]
        rows += [row | {"verdict": "beside"} | _raw(e) for e in beside]
    frame = pd.DataFrame(rows, columns=columns)
    return to_csv(frame.astype({"n": "Int64"}))
