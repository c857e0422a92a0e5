"""The regret experiment: fitted exponents with Theorem 1's beside them, and what the tree gains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from analysis.catalogue import table
from analysis.records.metrics import Estimate
from analysis.records.regret import (
    POLICIES,
    RESAMPLES,
    Regret,
    bound,
    fitted,
    flat_bound,
    improvement,
    slopes,
)
from analysis.tables.table import Column, Table, two_digits

FAMILIES = [Column("structure", "structure"), Column("gamma", "γ")]
THEOREM = Column("theorem", "Theorem 1's bound", two_digits)
SMOOTH = (
    "Theorem 1 speaks of smooth trees only; its bound is the smallest over η, with the leaves that "
    "these trees have within η of the best, and constants 1."
)


@dataclass(frozen=True)
class Interval(Column):
    """A column of estimates with their intervals, without the plus signs of differences."""

    signed: bool = True

    def text(self, value: object) -> str:
        return super().text(value).replace("+", "")


def _bootstrap(regret: Regret) -> str:
    return (
        f"in brackets the 95 % percentile interval of {RESAMPLES:,} bootstrap samples of the "
        f"{regret.settings['seeds']} seeds."
    )


def _fit(regret: Regret) -> str:
    return (
        "An exponent is the least-squares slope of log mean regret on the log of what is named; "
        f"{_bootstrap(regret)}"
    )


def _rows(regret: Regret) -> Iterator[tuple[tuple[str, float], dict]]:
    """Each structure and gamma, and the row that begins with them."""
    for family in regret.families:
        yield family, dict(zip(("structure", "gamma"), map(str, family), strict=True))


@table(of=Regret)
def regret_steps(regret: Regret) -> Table:
    """Exponents in the number of steps T."""
    n, rows = regret.shown_arms, []
    for family, row in _rows(regret):
        curves = {policy: regret.values(policy, *family, n=n) for policy in POLICIES}
        curves = {p: curve[curve.index >= curve.index.max() / 100] for p, curve in curves.items()}
        steps = curves["tree"].index
        theorem = slopes(steps, [bound(regret, *family, t, n) for t in steps])
        fits = {policy: fitted(curve) for policy, curve in curves.items()}
        rows.append(row | fits | {"theorem": Estimate(float(theorem))})
    return Table(
        "regret_steps",
        f"Exponent of regret in T, N = {n:,} arms",
        [
            *FAMILIES,
            *(Interval(policy, words, two_digits) for policy, words in POLICIES.items()),
            THEOREM,
        ],
        rows,
        notes=[_fit(regret), SMOOTH, f"The last two decades of T. {regret.left_out}"],
    )


@table(of=Regret)
def regret_arms(regret: Regret) -> Table:
    """Exponents in the number of arms N."""
    horizon, arms, rows = regret.settings["horizon"], regret.arms, []
    few, many = arms[: (len(arms) + 1) // 2], arms[len(arms) // 2 :]
    for family, row in _rows(regret):
        tree, flat = (regret.values(p, *family, t=horizon) for p in ("tree", "lcb_flat"))
        theorem = slopes(arms, [bound(regret, *family, horizon, n) for n in arms])
        fits = {"tree": fitted(tree), "log": fitted(tree, np.log(arms)), "flat": fitted(flat)}
        fits |= {"tree_many": fitted(tree[many]), "flat_few": fitted(flat[few])}
        rows.append(row | fits | {"theorem": Estimate(float(theorem))})
    ranges = {
        "tree": "tree",
        "log": "tree, in log N",
        "tree_many": f"tree, N ≥ {many[0]:,}",
        "flat": "lcb_flat",
        "flat_few": f"lcb_flat, N ≤ {few[-1]:,}",
    }
    return Table(
        "regret_arms",
        f"Exponent of regret in N, {arms[0]} to {arms[-1]:,} arms, T = {horizon:,}",
        [*FAMILIES, *(Interval(*item, two_digits) for item in ranges.items()), THEOREM],
        rows,
        notes=[_fit(regret), SMOOTH],
    )


@table(of=Regret)
def regret_gain(regret: Regret) -> Table:
    """Regret of the tree over that of the flat search, and what the bounds promise."""
    horizon, arms, n, rows = regret.settings["horizon"], regret.arms, regret.shown_arms, []
    early = max(t for curve in regret.regret.values() for _, t in curve if t <= 1000)
    few = arms[(len(arms) - 1) // 2]
    places = dict.fromkeys([(arms[0], early), *((m, horizon) for m in (few, n, arms[-1]))])
    compared = {f"N = {m:,}, T = {t:,}": improvement(regret, m, t) for m, t in places}
    for family, row in _rows(regret):
        theorem = bound(regret, *family, horizon, arms[-1])
        blind = regret.values("random", *family, t=horizon)[arms[-1]].mean()
        row |= {place: gain[family] for place, gain in compared.items()}
        row["bounds"] = Estimate(theorem / flat_bound(horizon, arms[-1]))
        rows.append(row | {"blind": Estimate(theorem / blind)})
    return Table(
        "regret_gain",
        "Regret of the tree in units of the flat search's",
        [
            *FAMILIES,
            *(Interval(place, place, two_digits) for place in compared),
            Column("bounds", f"ratio of the bounds, N = {arms[-1]:,}", two_digits),
            Column("blind", f"Theorem 1's bound / random, N = {arms[-1]:,}", two_digits),
        ],
        rows,
        notes=[
            f"Below 1 the tree is better; {_bootstrap(regret)} 'shuffled' has the arms of "
            "'unique': what the tree gains there, it does not owe to likeness.",
            f"{SMOOTH} Where it exceeds the regret of random choice it promises nothing.",
        ],
    )
