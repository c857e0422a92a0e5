"""How each method looks, the same in every figure of every suite.

Colour and marker depend on the method's name alone; its variants differ from it in line and fill.
"""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import count, product
from typing import NamedTuple

from matplotlib.colors import to_hex, to_rgb


class Style(NamedTuple):
    """A look; `fill` says which part of the marker is filled, as matplotlib calls it."""

    colour: str
    marker: str | tuple[int, int, int]
    fill: str = "full"
    line: str = "-"

    @property
    def plot(self) -> dict[str, str]:
        """What matplotlib's `plot` takes."""
        looks = {"color": self.colour, "marker": self.marker, "linestyle": self.line}
        if self.fill == "none":  # white and not transparent, as whiskers lie behind
            return looks | {"markerfacecolor": "white"}
        return looks | {"fillstyle": self.fill, "markerfacecoloralt": "white"}


# Okabe and Ito's palette and Tol's muted one, which stay distinct under the common colour-vision
# deficiencies; methods of one family differ in their markers too.
KNOWN = {
    "seqlora": Style("#7A7A7A", "o"),
    "ewc": Style("#0072B2", "s"),
    "gem": Style("#009E73", "D"),
    "l2p": Style("#CC79A7", "v"),
    "dualprompt": Style("#AA4499", "<"),
    "codaprompt": Style("#882255", ">"),
    "hideprompt": Style("#56B4E9", "P"),
    "hidelora": Style("#332288", "X"),
    "inflora": Style("#999933", "p"),
    "sdlora": Style("#6B4C2A", "d"),
    "ranpac": Style("#117733", "H"),
    "olora": Style("#E69F00", "^"),
    "treelora": Style("#D55E00", "*"),
    "hidetreelora": Style("#8C2D04", "*"),
    "joint": Style("#000000", "h"),
    "fix": Style("#B0B0B0", "8"),
    "ogd": Style("#00A000", "d"),
    "sapt": Style("#8040E0", "p"),
    "tasl": Style("#E00080", "H"),
    "derpp": Style("#CC6677", "P"),
    "magmax": Style("#4477AA", "v"),
    "ease": Style("#44AA99", "D"),
}
# Of methods that are not known: stars of 3, 4 and 6 rays, which no known method has, and how far
# their colours are from those of known ones, in the unit cube of RGB.
STARS = ((4, 1, 0), (6, 1, 0), (3, 1, 0), (4, 1, 45), (3, 1, 180))
APART = 0.25
VARIANTS = tuple(product(("--", ":", "-."), ("none", "left", "right", "top", "bottom")))
# For groups of tasks, whose names are printed in their colour: dark ones first.
MARKERS = "PX<>pdH8"
DARK_FIRST = (
    "#332288",
    "#117733",
    "#882255",
    "#6B4C2A",
    "#AA4499",
    "#999933",
    "#44AA99",
    "#56B4E9",
)


@cache
def style(name: str) -> Style:
    """The look of a method: the known one, otherwise one that its name's digest chooses."""
    if name in KNOWN:
        return KNOWN[name]
    for attempt in count():
        hue, light, marker, *_ = hashlib.sha256(f"{name} {attempt}".encode()).digest()
        rgb = colorsys.hls_to_rgb(hue / 256, 0.3 + 0.3 * light / 255, 0.7)
        known = (to_rgb(look.colour) for look in KNOWN.values())
        if all(sum((a - b) ** 2 for a, b in zip(rgb, o, strict=True)) > APART**2 for o in known):
            return Style(to_hex(rgb), STARS[marker % len(STARS)])


def styles(names: Mapping[str, str]) -> dict[str, Style]:
    """The look of every label, given its method's name; that of a variant is its method's.

    A variant's line and fill are chosen by its label's digest. Within one call those of a method
    differ as long as there are others.
    """
    looks: dict[str, Style] = {}
    for label in sorted(names):
        base = looks[label] = style(names[label])
        if label != names[label]:
            start = hashlib.sha256(label.encode()).digest()[0]
            order = (VARIANTS[(start + i) % len(VARIANTS)] for i in range(len(VARIANTS)))
            own = [base._replace(line=line, fill=fill) for line, fill in order]
            looks[label] = next((look for look in own if look not in looks.values()), own[0])
    return looks


def group_styles(groups: Iterable[str]) -> dict[str, Style]:
    """A style for every group of tasks; grey for what is in none, whose name is empty."""
    n, named = len(MARKERS), sorted(set(groups) - {""})
    looks = {
        group: Style(DARK_FIRST[i % n], MARKERS[(i + i // n) % n]) for i, group in enumerate(named)
    }
    return looks | {"": KNOWN["seqlora"]}
