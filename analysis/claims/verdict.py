"""A claim of the paper, an effect that was measured, and the verdict that it leads to.

A claim registers itself where its test stands: a function of a panel that returns effects, none
where the panel has not the runs. One with `data` is tested on what another computation found
instead: its function gets that and returns effects by where they were measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import exp, inf, isfinite, isnan, log, nan, sqrt

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from analysis.claims import claimed
from analysis.records.metrics import Estimate
from analysis.tables.table import ABSENT, percent, two_digits

NOT_SUPPORTED, UNDECIDED, SUPPORTED = OUTCOMES = ("not supported", "undecided", "supported")
NOT_RUN = "not run"
VERDICTS = (SUPPORTED, NOT_SUPPORTED, UNDECIDED, NOT_RUN)
MOST_SEEDS = 1000
SEEDS = np.arange(2, MOST_SEEDS + 1)
LEVEL = 0.05
ALIKE = "else alike"  # of what stands beside: the pair that differs in the method alone
_UNITS = {"points": " points", "times": "×", "index": ""}


@dataclass(frozen=True)
class Effect:
    """A measured difference or ratio and the open region in which the claim holds.

    Attributes:
        what: what it is the difference or the ratio of.
        estimate: mean, deviation and interval; logarithms where `unit` is "times".
        n: how many seeds it is a mean over; 0 where it was computed and not sampled.
        region: its ends, infinite where there is none.
        unit: "points" (of scores, which are fractions), "times" (a ratio) or "index" (as it is).
        parts: the factors of a ratio.
        beside: why it is only shown beside the others and decides nothing; "" where it decides.
    """

    what: str
    estimate: Estimate
    n: int
    region: tuple[float, float] = (0.0, inf)
    unit: str = "points"
    parts: tuple[Effect, ...] = ()
    beside: str = ""

    @property
    def named(self) -> str:
        """What it is of, and why it decides nothing."""
        return ", ".join(filter(None, (self.what, self.beside)))

    @property
    def is_constant(self) -> bool:
        """Whether all seeds say the same, so that nothing tells how much others would differ."""
        return self.n > 1 and not self.estimate.sd > 1e-12

    @property
    def outcome(self) -> str:
        """supported, not supported or undecided."""
        (low, high), (_, _, least, most) = self.region, self.estimate
        if self.is_constant:
            return UNDECIDED
        if low < least and most < high:
            return SUPPORTED
        return NOT_SUPPORTED if most <= low or high <= least else UNDECIDED

    @property
    def p(self) -> float:
        """Two-sided p, were the effect at the nearest end of its region: t test over the seeds.

        Below 0.05 where the 95 % interval lies on one side of it. NaN without spread over seeds.
        """
        mean, sd, *_ = self.estimate
        if self.n < 2 or self.is_constant:
            return nan
        distance = min(abs(mean - end) for end in self.region if isfinite(end))
        return 2 * float(stdtr(self.n - 1, -distance * sqrt(self.n) / sd))

    @property
    def slack(self) -> float:
        """How far the interval stays inside the region; negative where it leaves it."""
        slack = min(self.estimate.low - self.region[0], self.region[1] - self.estimate.high)
        return -inf if isnan(slack) else slack

    def seeds_needed(self, n_effects: int = 1) -> str:
        """How many seeds would decide if mean and deviation stayed as they are.

        Args:
            n_effects: among which this one must tell, so that chance has as many goes.
        """
        mean, sd, *_ = self.estimate
        distance = min(abs(mean - end) for end in self.region)
        quantiles = stdtrit(SEEDS - 1, 1 - LEVEL / 2 / n_effects)
        enough = SEEDS[quantiles * sd / np.sqrt(SEEDS) < distance]
        return f"about {enough[0]}" if len(enough) else f"more than {MOST_SEEDS}"

    def _print(self, value: float, signed: bool = True) -> str:
        if self.unit == "times":
            return two_digits(exp(value))
        return (percent if self.unit == "points" else two_digits)(value, signed)

    def text(self, unit: bool = True) -> str:
        """The effect with its interval, its unit and its factors."""
        mean, _, low, high = self.estimate
        if isnan(mean):
            return ABSENT
        text = self._print(mean)
        if high - low > 1e-9:  # more than rounding
            text += f" [{self._print(low)}, {self._print(high)}]"
        if unit:
            text += _UNITS[self.unit]
        factors = " × ".join(f"{part.text(unit=False)} ({part.what})" for part in self.parts)
        return f"{text} = {factors}" if factors else text

    def bar(self) -> str:
        """Where the interval must lie for the claim to be supported."""
        low, high = self.region
        unit = _UNITS[self.unit]
        if low == -high:
            return f"within ±{self._print(high, signed=False)}{unit}"
        sign, end = (">", low) if high == inf else ("<", high)
        zero = end == 0 and self.unit != "times"
        return f"{sign} 0" if zero else f"{sign} {self._print(end)}{unit}"


Effects = list[Effect]


@dataclass(frozen=True)
class Reported:
    """The paper's own effect as text, and its ends in the unit of an estimate.

    The ends are NaN where the paper prints no such number.
    """

    text: str
    low: float = nan
    high: float = nan


@dataclass(frozen=True)
class Claim:
    """One of the paper's claims.

    Attributes:
        id: its short name.
        test: see the module.
        says: the paper's statement in our words.
        where: the exhibits that carry it.
        paper: the paper's own effect, by modality ("vision" or "language").
        needs: what makes it testable.
        modality: the only one that it is about, or "" for both.
        data: the name of the findings that it is tested on instead of panels.
    """

    id: str
    test: Callable
    says: str
    where: str
    paper: Callable[[str], Reported]
    needs: str
    modality: str = ""
    data: str = ""


CLAIMS: dict[str, Claim] = {}


def claim(id: str, *facts: object, **more: str) -> Callable:
    """Registers a function as the test of a claim with these facts."""

    def register(test: Callable) -> Callable:
        CLAIMS[id] = Claim(id, test, *facts, **more)
        return test

    return register


def span(values: pd.Series | list[float], unit: str = " points", signed: bool = True) -> Reported:
    """From the smallest to the largest value, given in points or as ratios."""
    ends = min(values), max(values)
    text = " to ".join(dict.fromkeys(two_digits(value, signed) for value in ends)) + unit
    return Reported(text, *(log(end) if unit == "×" else end / 100 for end in ends))


def faster(other: str) -> Callable[[str], Reported]:
    """How many times as fast the paper says it is: in its abstract, and than another method."""

    def reported(modality: str) -> Reported:
        each = span(claimed.times_faster(modality, other), "×", signed=False)
        headline = two_digits(claimed.headline(modality))
        return replace(each, text=f"{headline}×; {each.text} that of {other}")

    return reported


@dataclass(frozen=True)
class Verdict:
    """What the results say of a claim in one place; no `effects` where nothing tests it.

    Attributes:
        setting: the stream and backbone of the place, or where else it was measured; places of
            several suites may share it.
        place: the panels of the suites that say so. suites: their names.
        speaks: whether this is the verdict in its setting: see `judge.judge`.
    """

    claim: Claim
    setting: str
    place: str
    paper: Reported
    effects: tuple[Effect, ...] = ()
    suites: tuple[str, ...] = ()
    speaks: bool = True

    @property
    def judged(self) -> list[Effect]:
        """The effects that the claim is about."""
        return [effect for effect in self.effects if not effect.beside]

    @property
    def effect(self) -> Effect | None:
        """The least favourable one, which decides: of those that fail the one that surely does."""

        def favour(effect: Effect) -> tuple:
            fails = effect.outcome == NOT_SUPPORTED
            p = effect.p if fails and not isnan(effect.p) else 0.0
            return OUTCOMES.index(effect.outcome), p, effect.slack

        return min(self.judged, key=favour, default=None)

    @property
    def others(self) -> list[Effect]:
        """What stands beside it and decides nothing: the lowest for each reason, in their order."""
        others = [e for e in self.effects if e.beside and not isnan(e.estimate.mean)]
        others.sort(key=lambda effect: effect.estimate.mean)
        return list({effect.beside: effect for effect in reversed(others)}.values())[::-1]

    @property
    def beside(self) -> str:
        """These as text, and of what they are."""
        return "; ".join(f"{other.text()} ({other.named})" for other in self.others)

    @property
    def word(self) -> str:
        """One of `VERDICTS`; of several effects one that fails must do so beyond chance."""
        if not self.effect:
            return NOT_RUN
        chance = self.effect.outcome == NOT_SUPPORTED and self.p > LEVEL
        return UNDECIDED if chance else self.effect.outcome

    @property
    def p(self) -> float:
        """Of the verdict: all effects must support the claim, or one of them, any, must fail it."""
        if not self.effect or isnan(self.effect.p):
            return nan
        if self.effect.outcome == SUPPORTED:
            return max(effect.p for effect in self.judged)
        return min(1.0, self.effect.p * len(self.judged))

    @property
    def would_test(self) -> str:
        """Of a claim that is undecided how many seeds would tell, of one not run what it needs."""
        if self.word == NOT_RUN:
            return f"needs {self.claim.needs}"
        if self.word != UNDECIDED:
            return ""
        if isnan(self.effect.estimate.mean):
            return f"no seed has all of {self.effect.what}"
        if isnan(self.effect.estimate.low):
            return "one seed gives no interval, more would"
        if self.effect.is_constant:
            return "all seeds say the same, and so do not tell how others would differ"
        fails = self.effect.outcome == NOT_SUPPORTED
        goes = len(self.judged) if fails else 1
        seeds = self.effect.seeds_needed(goes) if self.effect.n else "more"
        return f"{seeds} seeds would tell"
