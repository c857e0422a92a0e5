"""The claims as a forest plot, in SVG: per claim and setting the effect, and where the claim holds.

Text and not a figure of matplotlib, so that rows are links, colours follow the reader's, and a
narrow screen gets a layout of its own; it costs milliseconds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil, exp, floor, isnan, log
from typing import NamedTuple

from analysis.claims.summary import standings
from analysis.claims.verdict import Verdict
from analysis.templates import PAGES

ROW, LINE, GAP = 17, 15, 7  # heights: of an effect, of a line of text, between claims
MOST = {"points": 0.4, "times": log(16), "index": 1.0}  # what lies beyond is an arrow at the edge
AXES = {
    "points": "Differences in points of percent, paired by seed",
    "times": "Ratios, on a logarithmic axis",
    "index": "Trees against planted groups (adjusted Rand index)",
}
STEPS = {"points": 0.1, "times": log(2), "index": 0.5}


class Layout(NamedTuple):
    """Where columns begin; the claim has a column of its own, or on a phone lines of its own."""

    name: str
    width: int
    setting: int
    plot: int
    plot_end: int
    effect: int | None
    letters: int  # of a claim in one line


WIDE = Layout("wide", 985, 290, 446, 720, 730, 40)
NARROW = Layout("narrow", 380, 8, 164, 362, None, 52)


@dataclass
class Axis:
    """The scale of all rows of one unit."""

    layout: Layout
    unit: str
    low: float
    high: float

    def x(self, value: float) -> float:
        """Where a value lies, one beyond the ends at the end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.layout.plot + share * (self.layout.plot_end - self.layout.plot), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Where they stand, and what is written there."""
        step = STEPS[self.unit]
        found = [i * step for i in range(round(self.low / step), round(self.high / step) + 1)]
        return [(self.x(value), self._label(value)) for value in found]

    def _label(self, value: float) -> str:
        if self.unit == "times":
            return f"{exp(value):.3g}×"
        shown = 100 * value if self.unit == "points" else value
        return f"{shown:+.3g}".replace("-", "−") if round(shown, 6) else "0"


@dataclass
class Row:
    """A verdict at its height in the plot."""

    verdict: Verdict
    axis: Axis
    y: float
    link: str

    @property
    def look(self) -> str:
        """The class of its marks."""
        return self.verdict.word.replace(" ", "-")

    @property
    def band(self) -> tuple[float, float]:
        """Where the claim holds."""
        low, high = map(self.axis.x, self.verdict.effect.region)
        return low, round(high - low, 1)

    @property
    def mean(self) -> float | None:
        return self._mark(self.verdict.effect.estimate.mean)

    @property
    def interval(self) -> tuple[float, float] | None:
        _, _, low, high = self.verdict.effect.estimate
        return None if isnan(low) else (self.axis.x(low), self.axis.x(high))

    @property
    def beyond(self) -> list[tuple[float, int]]:
        """Ends of the axis that the interval or the mean passes, and in which direction."""
        _, _, low, high = self.verdict.effect.estimate
        ends = [(self.axis.low, -1)] if low < self.axis.low - 1e-9 else []
        ends += [(self.axis.high, 1)] if high > self.axis.high + 1e-9 else []
        return [(self.axis.x(end), way) for end, way in ends]

    @property
    def paper(self) -> str:
        """The paper's own effect as a path: from its lowest to its highest, an arrow if beyond."""
        low, high = self.verdict.paper.low, self.verdict.paper.high
        if isnan(low):
            return ""
        for way, beyond in ((1, low > self.axis.high), (-1, high < self.axis.low)):
            if beyond:
                return f"M{self.axis.x(low)} {self.y}m{-9 * way} -5l{9 * way} 5l{-9 * way} 5z"
        a, b = self.axis.x(low), self.axis.x(high)
        return f"M{a} {self.y}H{b}M{(a + b) / 2:.1f} {self.y - 5}l4 5l-4 5l-4 -5z"

    @property
    def beside(self) -> float | None:
        least = next(iter(self.verdict.others), None)
        return self._mark(least.estimate.mean) if least else None

    def _mark(self, value: float) -> float | None:
        return None if isnan(value) else self.axis.x(value)

    @property
    def text(self) -> str:
        """The effect in a few letters."""
        return replace(self.verdict.effect, parts=()).text().removesuffix(" points")

    @property
    def title(self) -> str:
        """All of it in words."""
        v, effect = self.verdict, self.verdict.effect
        parts = [f"{v.claim.says}. {v.setting}: {v.word}", v.would_test]
        parts += [f"{effect.text()} ({effect.what})", f"supported if {effect.bar()}"]
        parts += [f"in the paper {v.paper.text} ({v.claim.where})"]
        parts += [f"beside it {v.beside}"] if v.beside else []
        return "; ".join(filter(None, parts))


@dataclass
class Block:
    """A claim with its rows; without rows it was not run, and `needs` is at `needs_y`."""

    lines: list[str]
    y: float
    height: float
    link: str
    rows: list[Row] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
    needs_y: float = 0


@dataclass
class Part:
    """All claims of one unit."""

    title: str
    axis: Axis | None
    y: float
    bottom: float
    blocks: list[Block]


def forest(
    verdicts: list[Verdict],
    layout: Layout = WIDE,
    link: Callable[[Verdict], str] = lambda verdict: "",
    alone: bool = False,
) -> str:
    """The plot as an SVG element, or `alone` as a file with a background of its own.

    Args:
        link: where a row leads.
    """
    by_unit: dict[str, list] = {}
    for standing in standings(verdicts):
        tested = [v for v in standing.verdicts if v.effect]
        unit = tested[0].effect.unit if tested else ""
        by_unit.setdefault(unit, []).append((standing.claim, tested, standing.verdicts[0]))
    y, parts = 34.0 if layout is WIDE else 66.0, []
    for unit in (*AXES, ""):
        if own := by_unit.get(unit):
            axis = _axis(layout, unit, [v for _, tested, _ in own for v in tested])
            part, y = _part(layout, axis, own, y, link)
            parts.append(part)
    made = PAGES.get_template("forest.svg.j2").render(
        layout=layout, parts=parts, height=y, alone=alone, row=ROW, line=LINE
    )
    return made.strip()


def _axis(layout: Layout, unit: str, verdicts: list[Verdict]) -> Axis | None:
    """From and to whole steps that hold all intervals, but not more than `MOST`."""
    if not unit:
        return None
    ends = [end for v in verdicts for end in v.effect.estimate[:1] + v.effect.estimate[2:]]
    step, most = STEPS[unit], MOST[unit]
    ends = [-step, step] + [end for end in ends if not isnan(end)]
    low, high = max(min(ends), -most), min(max(ends), most)
    return Axis(layout, unit, floor(low / step + 1e-9) * step, ceil(high / step - 1e-9) * step)


def _part(layout: Layout, axis: Axis | None, own: list, y: float, link: Callable) -> tuple:
    top, blocks = y, []
    y += 46 if axis else 30  # its title, and the labels of the ticks
    for claim, verdicts, first in own:
        lines = textwrap.wrap(claim.says, layout.letters)
        beside = layout.effect is not None  # the claim stands beside its rows, else above them
        begin = y if beside else y + LINE * len(lines)
        letters = WIDE.width if beside else layout.letters  # nothing else is in that line
        needs = [] if verdicts else textwrap.wrap(first.would_test, letters)
        block = Block(lines, y, 0, link(first), needs=needs, needs_y=begin)
        for i, verdict in enumerate(verdicts):
            block.rows.append(Row(verdict, axis, begin + ROW * (i + 0.5), link(verdict)))
        rows = ROW * len(verdicts) + LINE * len(needs)
        block.height = max(rows, LINE * len(lines)) if beside else begin - y + rows
        y += block.height + GAP
        blocks.append(block)
    title = AXES[axis.unit] if axis else "Not run"
    return Part(title, axis, top, y, blocks), y + 16
