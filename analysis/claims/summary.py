"""The verdicts in a few sentences: counts, findings, and how many chance alone would give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from math import isnan
from typing import NamedTuple

from analysis.claims.judge import Measured, setting_names
from analysis.claims.verdict import (
    ALIKE,
    CLAIMS,
    LEVEL,
    NOT_RUN,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    Claim,
    Effect,
    Verdict,
)

MIXED = "mixed"


class Standing(NamedTuple):
    """A claim, and the verdict that speaks in each setting; one without effects if not run."""

    claim: Claim
    verdicts: tuple[Verdict, ...]

    @property
    def word(self) -> str:
        """Of all settings that tell; mixed where they tell different things."""
        words = {verdict.word for verdict in self.verdicts}
        told = words & {SUPPORTED, NOT_SUPPORTED}
        return MIXED if len(told) == 2 else next(iter(told or words))

    @property
    def suites(self) -> list[str]:
        """Whose runs say so."""
        return sorted({suite for verdict in self.verdicts for suite in verdict.suites})

    def of(self, word: str) -> list[Verdict]:
        """The verdicts with this word."""
        return [verdict for verdict in self.verdicts if verdict.word == word]


class Finding(NamedTuple):
    """What stands for the paper, against it or is open: by claim what shows it; how many more."""

    title: str
    items: list[tuple[Claim, str]]
    more: int


def standings(verdicts: Iterable[Verdict]) -> list[Standing]:
    """Every claim once, in the order in which they are shown."""
    own: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.speaks:
            own.setdefault(verdict.claim.id, []).append(verdict)
    return [Standing(CLAIMS[id], tuple(each)) for id, each in own.items()]


def counts(verdicts: list[Verdict], measured: list[Measured]) -> str:
    """One sentence: how many claims are supported and so on, and in which settings."""
    found = Counter(standing.word for standing in standings(verdicts))
    words = [f"{found[SUPPORTED]} are supported", f"{found[NOT_SUPPORTED]} not supported"]
    if found[MIXED]:
        words.append(f"{found[MIXED]} supported in one setting and not in another")
    words.append(f"{found[UNDECIDED]} undecided")
    words += [f"{found[NOT_RUN]} not run"] if found[NOT_RUN] else []
    names, used = setting_names(measured), {verdict.setting for verdict in verdicts}
    in_paper = {f.setting: f.in_paper for m in measured for f in m.panels.values()}
    theirs, small = (
        [name for key, name in names.items() if name in used and in_paper[key] == wanted]
        for wanted in (True, False)
    )
    settings = [f"the paper's own settings ({', '.join(theirs)})"] if theirs else []
    settings += [f"settings that are not the paper's ({', '.join(small)})"] if small else []
    return (
        f"Of {len(CLAIMS)} claims, the paper's and what checks them, {_listed(words)}, in "
        f"{_listed(settings)}."
    )


def _listed(words: list[str]) -> str:
    *first, last = words or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


def findings(verdicts: list[Verdict]) -> list[Finding]:
    """What stands for the paper, what against it, and what is open: three claims of each."""
    found = standings(verdicts)
    told = [
        (title, [(s.claim, f": {_effects(own)}") for s in found if (own := s.of(w))])
        for title, w in (("For the paper", SUPPORTED), ("Against it", NOT_SUPPORTED))
    ]
    undecided = [s for s in found if s.word == UNDECIDED]
    items = [
        (s.claim, f" ({_nearest(s.verdicts).would_test})")
        for s in sorted(undecided, key=lambda s: _nearest(s.verdicts).p)
    ]
    found = [*told, ("Undecided", items)]
    return [Finding(t, each[:3], len(each[3:])) for t, each in found]


def _nearest(verdicts: Iterable[Verdict]) -> Verdict:
    """The one that fewest seeds would decide."""
    return min(verdicts, key=lambda v: 1.0 if isnan(v.p) else v.p)


def _effects(verdicts: list[Verdict]) -> str:
    """The effects by setting; of what, where that differs; and what speaks against them."""
    differ = len({verdict.effect.what for verdict in verdicts}) > 1
    return ", ".join(
        " ".join([verdict.setting, _brief(verdict.effect, differ), *_but(verdict.others)])
        for verdict in verdicts
    )


def _but(others: list[Effect]) -> list[str]:
    """What beside an effect speaks against it, and what of the method alone does not tell."""
    against = [_brief(other, True) for other in others if other.outcome == NOT_SUPPORTED]
    against += [
        f"{_brief(other, True)}, which may be chance"
        for other in others
        if other.beside == ALIKE and other.outcome == UNDECIDED
    ]
    return [f"but {' and '.join(against)}"] if against else []


def _brief(effect: Effect, of_what: bool) -> str:
    """An effect without its interval, which excludes the other verdict, and without factors."""
    mean = effect.estimate.mean
    alone = effect.estimate._replace(low=mean, high=mean)
    text = replace(effect, parts=(), estimate=alone).text()
    return f"{text} ({effect.named})" if of_what else text


class Chance(NamedTuple):
    """What chance makes of the verdicts by claim and setting that rest on a spread over seeds.

    Attributes:
        tested: how many these are.
        n_effects: of how many effects.
        decided: how many are supported or not supported.
        stay: how many of these stay so by Holm's correction.
    """

    tested: int
    n_effects: int
    decided: int
    stay: int

    def __str__(self) -> str:
        stay = f"{self.stay or 'none'} {'stay' if self.stay > 1 else 'stays'}"
        chance = f"{LEVEL / 2 * self.tested:.1f}"
        return (
            f"{self.tested} verdicts by claim and setting rest on {self.n_effects} effects with a "
            "spread over seeds. With each at the edge of where its claim holds, up to "
            f"{chance} would be supported by chance and as many not. Of {self.decided} decided, "
            f"{stay} so by Holm's correction."
        )


def chance(verdicts: Iterable[Verdict]) -> Chance:
    """Of the verdicts that speak."""
    by_p, stay = _by_p(verdicts)
    decided = sum(verdict.word != UNDECIDED for verdict in by_p)
    return Chance(len(by_p), sum(len(verdict.judged) for verdict in by_p), decided, stay)


def lasting(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The verdicts that stay decided by Holm's correction."""
    by_p, stay = _by_p(verdicts)
    return by_p[:stay]


def _by_p(verdicts: Iterable[Verdict]) -> tuple[list[Verdict], int]:
    """Holm: of m verdicts in the order of p, those before the first with p > 0.05 / (m - i)."""
    by_p = sorted((v for v in verdicts if v.speaks and not isnan(v.p)), key=lambda v: v.p)
    m = len(by_p)
    return by_p, next((i for i, v in enumerate(by_p) if v.p > LEVEL / (m - i)), m)
