"""Final scores against TIME as small plots, in SVG: names stand at their points, so no legend."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, exp, hypot, log, log10, nan
from typing import NamedTuple

import pandas as pd

from analysis.figures.lettering import width
from analysis.figures.style import style
from analysis.records import schema
from analysis.records.leaderboard import BOUNDS, leaderboard
from analysis.records.runs import Panel
from analysis.templates import PAGES

WIDE, HIGH = 330, 236
LEFT, RIGHT, TOP, BOTTOM = 34, 52, 8, 34  # margins; in the right one what has no TIME that compares
LETTER, LINE = 6.9, 11  # sizes of the text
LINES = {"upper bound": "joint"}  # what they are called where not their role


@dataclass(frozen=True)
class Board:
    """The leaderboard of a panel.

    Attributes:
        setting: what its runs share, see `schema.panel`.
        score: what it is called.
        rows: methods and bounds, without variants; with a column `compares`, whether TIME does.
    """

    setting: str
    suite: str
    score: str
    rows: pd.DataFrame


def board(panel: Panel) -> Board:
    """The same of a panel."""
    rows = leaderboard(panel)
    own = [
        row.role in BOUNDS or panel.specs[row.Index]["method"]["name"] == row.Index
        for row in rows.itertuples()
    ]
    rows = rows.assign(compares=[label not in panel.elsewhere for label in rows.index])
    return Board(schema.panel(panel.spec), panel.suite.name, panel.score, rows[own])


def against_time(name: str, board: Board) -> str:
    """The methods' scores against TIME; upper bound and floor as lines."""
    competing = board.rows[~board.rows["role"].isin(BOUNDS)]
    points = [
        Point(
            row.method,
            row.score,
            row.time_seconds if row.compares else nan,
            style(row.Index).colour,
            row.marked,
        )
        for row in competing.itertuples()
    ]
    bounds = board.rows[board.rows["role"].isin(BOUNDS)]
    levels = {LINES.get(row.role, row.role): row.score for row in bounds.itertuples()}
    return scatter(name, board.score, points, levels)


class Point(NamedTuple):
    """A method: its score as a fraction; seconds, NaN where they do not compare."""

    name: str
    score: float
    seconds: float
    colour: str
    marked: bool = False


@dataclass
class Placed:
    """A point where it is drawn, and where its name stands."""

    point: Point
    x: float
    y: float
    text_x: float = 0
    text_y: float = 0
    anchor: str = "start"


def scatter(title: str, score: str, points: list[Point], levels: dict[str, float]) -> str:
    """One plot as an SVG element.

    Args:
        score: what it is called.
        levels: scores that are drawn as lines, by name.
    """
    seconds = [point.seconds for point in points if point.seconds > 0]
    low, high = (log(f(seconds)) for f in (min, max)) if seconds else (0.0, 1.0)
    beside = max(0.12 * (high - low), (log(2) - (high - low)) / 2)  # small differences stay small
    low, high = low - beside, high + beside
    top = max([point.score for point in points] + [*levels.values(), 0.05])
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2) if top / s <= 6)
    top = step * ceil(top / step + 0.3)

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDE - LEFT - RIGHT)

    def y(value: float) -> float:
        return HIGH - BOTTOM - value / top * (HIGH - TOP - BOTTOM)

    placed = [
        Placed(p, x(log(p.seconds)) if p.seconds > 0 else WIDE - RIGHT / 2, y(p.score))
        for p in points
    ]
    _name(placed, [_named(name, y(value)) for name, value in levels.items()])
    return PAGES.get_template("scatter.svg.j2").render(
        **{"title": title, "score": score, "placed": placed, "wide": WIDE, "high": HIGH},
        **{"left": LEFT, "right": WIDE - RIGHT, "top": TOP, "bottom": HIGH - BOTTOM},
        levels=[(name, y(value)) for name, value in levels.items()],
        yticks=[(y(i * step), f"{100 * i * step:g}") for i in range(round(top / step) + 1)],
        xticks=[(x(log(value)), f"{value:g}") for value in _round(low, high)],
        apart=any(not point.seconds > 0 for point in points),
    )


def _round(low: float, high: float) -> list[float]:
    """Some round numbers of seconds between two logarithms."""
    powers = range(int(low / log(10)) - 1, int(log10(exp(high))) + 1)
    for firsts in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 6, 8)):
        found = [first * 10.0**power for power in powers for first in firsts]
        found = [value for value in found if low < log(value) < high]
        if len(found) > 2:
            break
    return found


def _named(level: str, y: float) -> tuple[float, ...]:
    """Where the name of a level stands: at the right end, upon its line."""
    return WIDE - 2 - LETTER * width(level), y - LINE, WIDE, y


def _name(placed: list[Placed], levels: list[tuple[float, ...]]) -> None:
    """Each name beside its point, or as near as no other name, point or level's name is in the way.

    No name is nearer to another point than to its own if that can be. Those of points without a
    TIME that compares are a list in the order of scores.
    """
    taken = levels + [(p.x - 4, p.y - 4, p.x + 4, p.y + 4) for p in placed]

    def put(own: Placed, y: float, side: int) -> tuple[float, ...]:
        own.text_x, own.text_y, own.anchor = own.x + 7 * side, y, "start" if side > 0 else "end"
        long = LETTER * width(own.point.name)
        left = own.text_x - (long if side < 0 else 0)
        return left, y - LINE / 2, left + long, y + LINE / 2

    def nearest(own: Placed, dy: float, side: int) -> Placed:
        left, top, right, bottom = put(own, own.y + dy, side)

        def distance(point: Placed) -> float:
            return hypot(
                max(left - point.x, point.x - right, 0), max(top - point.y, point.y - bottom, 0)
            )

        return min(placed, key=distance)

    apart = sorted((p for p in placed if not p.point.seconds > 0), key=lambda p: p.y)
    for own, y in zip(apart, _spaced([p.y for p in apart]), strict=True):
        taken.append(put(own, y, -1))
    rest = [p for p in placed if p.point.seconds > 0]
    for own in sorted(rest, key=lambda p: (not p.point.marked, p.y)):
        shifts = sorted(range(-66, 67, 3), key=abs)
        places = [(dy, side) for dy in shifts for side in (1, -1)]
        free = [p for p in places if _is_free(put(own, own.y + p[0], p[1]), taken)]
        near = [p for p in free if nearest(own, *p) is own]
        dy, side = next(iter([*near, *free]), places[-1])
        taken.append(put(own, own.y + dy, side))


def _is_free(box: tuple[float, ...], taken: list[tuple[float, ...]]) -> bool:
    left, top, right, bottom = box
    inside = LEFT < left and right < WIDE and 0 < top and bottom < HIGH - BOTTOM
    return inside and not any(_overlap(box, other) for other in taken)


def _spaced(heights: list[float]) -> list[float]:
    """Ascending heights of lines of text, as near to the given ones as their size allows."""
    spaced: list[float] = []
    for height in heights:
        spaced.append(max(height, spaced[-1] + LINE) if spaced else height)
    below = sum(spaced) - sum(heights)
    up = max(below / max(1, len(heights)), max(spaced, default=0) - (HIGH - BOTTOM - LINE / 2))
    return [height - up for height in spaced]


def _overlap(one: tuple, other: tuple) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
