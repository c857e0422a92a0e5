"""One colour and one marker per method, the same in every figure of every suite."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple


class Style(NamedTuple):
    colour: str
    marker: str


# Okabe and Ito's palette, which stays distinct under the common colour-vision deficiencies.
KNOWN = {
    "seqlora": Style("#7A7A7A", "o"),
    "ewc": Style("#0072B2", "s"),
    "gem": Style("#009E73", "D"),
    "l2p": Style("#CC79A7", "v"),
    "olora": Style("#E69F00", "^"),
    "treelora": Style("#D55E00", "*"),
    "joint": Style("#000000", "h"),
}
# For methods that came later: its remaining colour, then Tol's muted ones.
SPARE = (
    *(Style("#56B4E9", "P"), Style("#332288", "X"), Style("#882255", "<"), Style("#44AA99", ">")),
    *(Style("#999933", "p"), Style("#AA4499", "d"), Style("#117733", "H"), Style("#6B4C2A", "8")),
)


def styles(labels: Iterable[str]) -> dict[str, Style]:
    """A style for every label: fixed for a known method, otherwise drawn from the label's digest.

    Within one call no two labels share a style as long as there are spare ones; beyond that,
    colours and markers are combined anew.
    """
    wanted = sorted(set(labels))
    chosen = {label: KNOWN[label] for label in wanted if label in KNOWN}
    n = len(SPARE)
    pool = [
        Style(SPARE[i].colour, SPARE[(i + shift) % n].marker)
        for shift in range(n)
        for i in range(n)
    ]
    for label in (label for label in wanted if label not in KNOWN):
        start = int(hashlib.sha256(label.encode()).hexdigest(), 16) % n
        taken = set(chosen.values())
        candidates = (*pool[start:n], *pool[:start], *pool[n:])
        chosen[label] = next((s for s in candidates if s not in taken), pool[start])
    return chosen
