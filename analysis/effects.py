"""A measured effect, the region in which a claim holds, and which of the two contains the other."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, isnan

import numpy as np
from scipy.special import stdtrit

from analysis.metrics import Estimate
from analysis.reported import two_digits
from analysis.table import ABSENT, percent

NOT_SUPPORTED, UNDECIDED, SUPPORTED = OUTCOMES = ("not supported", "undecided", "supported")
MOST_SEEDS = 1000
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
        beside: whether it is only shown beside the others and decides nothing.
    """

    what: str
    estimate: Estimate
    n: int
    region: tuple[float, float] = (0.0, inf)
    unit: str = "points"
    parts: tuple[Effect, ...] = ()
    beside: bool = False

    @property
    def outcome(self) -> str:
        """supported, not supported or undecided."""
        (low, high), (_, _, least, most) = self.region, self.estimate
        if low < least and most < high:
            return SUPPORTED
        return NOT_SUPPORTED if most <= low or high <= least else UNDECIDED

    @property
    def slack(self) -> float:
        """How far the interval stays inside the region; negative where it leaves it."""
        slack = min(self.estimate.low - self.region[0], self.region[1] - self.estimate.high)
        return -inf if isnan(slack) else slack

    @property
    def seeds_needed(self) -> str:
        """How many seeds would decide if mean and deviation stayed as they are."""
        mean, sd, *_ = self.estimate
        distance = min(abs(mean - end) for end in self.region)
        n = np.arange(2, MOST_SEEDS + 1)
        enough = n[stdtrit(n - 1, 0.975) * sd / np.sqrt(n) < distance]
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
