"""One colour and one marker per method, the same in every figure of every suite."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple


class Style(NamedTuple):
    colour: str
    marker: str


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
}
# For methods that came later.
SPARE = ("#44AA99", "#CC6677", "#4477AA", "#DDAA33", "#661100", "#88CCEE", "#228833", "#BB88DD")
MARKERS = "PX<>pdH8"
# For groups of tasks, whose names are printed in their colour: dark ones first.
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


def styles(labels: Iterable[str]) -> dict[str, Style]:
    """A style for every label: fixed for a known method, otherwise drawn from the label's digest.

    Within one call no two labels share a style as long as there are spare ones; beyond that,
    colours and markers are combined anew.
    """
    wanted, n = sorted(set(labels)), len(SPARE)
    chosen = {label: KNOWN[label] for label in wanted if label in KNOWN}
    pool = [
        Style(colour, MARKERS[(i + shift) % n])
        for shift in range(n)
        for i, colour in enumerate(SPARE)
    ]
    for label in (label for label in wanted if label not in KNOWN):
        start = int(hashlib.sha256(label.encode()).hexdigest(), 16) % n
        candidates = pool[start:n] + pool[:start] + pool[n:]
        free = (style for style in candidates if style not in chosen.values())
        chosen[label] = next(free, pool[start])
    return chosen


def group_styles(groups: Iterable[str]) -> dict[str, Style]:
    """A style for every group of tasks; grey for what is in none, whose name is empty."""
    n, named = len(MARKERS), sorted(set(groups) - {""})
    looks = {
        group: Style(DARK_FIRST[i % n], MARKERS[(i + i // n) % n]) for i, group in enumerate(named)
    }
    return looks | {"": KNOWN["seqlora"]}
