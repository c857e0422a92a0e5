"""Whether results made here are the published ones: `python -m analysis.verify SUITE`.

Runs pair by their key, so that settings, data and weights are the same. Equal to the bit means that
all scores of R are. Another kind of processor rounds otherwise, and a run then takes another course
of the same kind, as with another seed: two such scores differ by at most

    limit = t * sqrt(2) * s

in 95 % of cases, and the means of n pairs by at most limit / sqrt(n). s is the standard deviation
over the published seeds, pooled over the methods on a stream and backbone, and t the quantile for
its degrees of freedom. What is further away, a run or the mean of a method's, the spread does not
explain. Records that `make restore` has copied say nothing and are left out.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from math import isnan, nan, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from analysis.records import reading
from analysis.records.runs import Suite, read_suite
from analysis.terminal import columns, ends_in_one_sentence
from analysis.text import quoted, suggest


@dataclass(frozen=True)
class Comparison:
    """Results made here beside the published ones; scores are fractions.

    Attributes:
        suite: its name.
        runs: a row for each pair that is done: `panel`, `method`, `seed`, the `difference` in the
            mean final score, here minus published, `equal` to the bit, and the `limit` that the
            spread sets, NaN where a single seed was published.
        n_restored: copies of published records.
        n_failed: that failed here.
        n_absent: published runs that are not here, or not with the same settings, data and weights.
        unlike: the streams and backbones whose content here is not that of the published runs.
    """

    suite: str
    runs: pd.DataFrame
    n_restored: int
    n_failed: int
    n_absent: int
    unlike: tuple[str, ...] = ()

    @property
    def methods(self) -> pd.DataFrame:
        """By `panel` and `method`: `n` pairs, `equal` ones, `mean` and `furthest` difference, the
        `limit` of a run, and whether a run or the mean is `too_far`."""
        groups = self.runs.groupby(["panel", "method"], sort=False)
        found = groups.agg(
            n=("seed", "size"),
            equal=("equal", "sum"),
            mean=("difference", "mean"),
            furthest=("difference", lambda values: max(values, key=abs)),
            limit=("limit", "first"),
        )
        run, mean = found["furthest"].abs(), found["mean"].abs() * found["n"] ** 0.5
        return found.assign(too_far=np.maximum(run, mean) > found["limit"])

    @property
    def holds(self) -> bool:
        """Whether something was compared, nothing failed and nothing is too far away."""
        return bool(len(self.runs)) and not self.n_failed and not self.methods["too_far"].any()

    def text(self) -> str:
        """One sentence, and a line for each method."""
        if self.runs.empty:
            return f"No run of {self.suite} was compared with a published one{self._others()}."
        n, equal, methods = len(self.runs), int(self.runs["equal"].sum()), self.methods
        said = f"{equal} of {n} runs of {self.suite} are equal to the published ones to the bit"
        if equal < n:
            far = [f"{method} on {panel}" for panel, method in methods.index[methods["too_far"]]]
            said += (
                f", the others lie within {100 * self.runs['difference'].abs().max():.1f} points"
            )
            said += (
                f"; further away than the spread over seeds explains: {', '.join(far) or 'none'}"
            )
        rows = [
            {
                "stream": panel,
                "method": method,
                "equal": f"{row.equal} of {row.n}",
                "mean difference": _beside(row.mean, row.limit / sqrt(row.n)),
                "furthest run": _beside(row.furthest, row.limit),
                "": "too far" if row.too_far else "",
            }
            for (panel, method), row in zip(methods.index, methods.itertuples(), strict=True)
        ]
        return f"{said}{self._others()}.\n{columns(rows)}"

    def _others(self) -> str:
        others = {
            "failed": self.n_failed,
            "restored from them and left out": self.n_restored,
            "published but not here with the same settings, data and weights": self.n_absent,
        }
        said = ", ".join(f"{n} {what}" for what, n in others.items() if n)
        if self.unlike:
            said += f"; of another content here: {', '.join(self.unlike)}, see docs/running.md"
        return f" ({said})" if said else ""


def _beside(difference: float, limit: float) -> str:
    """In points, with what the spread explains where that is known."""
    explained = "" if isnan(limit) else f" of ±{100 * limit:.2f}"
    return f"{100 * difference:+.2f}{explained}"


def compare(here: Suite, published: Suite) -> Comparison:
    """The runs of a suite that were made here beside the published ones of the same key."""
    limits = {panel.slug: _limit(panel.done) for panel in published.panels}
    theirs = published.runs[published.runs["status"] == "done"]
    pairs = theirs.merge(here.runs, on="key", suffixes=("", "_here"))
    made = pairs["status_here"] == "done"
    copied = made & (pairs["started"] == pairs["started_here"])
    copied &= pairs["finished"] == pairs["finished_here"]
    runs = pairs[made & ~copied]
    matrices = zip(runs["R_here"], runs["R"], strict=True)
    runs = runs[["panel", "method", "seed"]].assign(
        difference=runs["acc_here"] - runs["acc"],
        equal=[np.array_equal(ours, other, equal_nan=True) for ours, other in matrices],
        limit=runs["panel"].map(limits),
    )
    n_failed = int((pairs["status_here"] == "failed").sum())
    n_absent = len(theirs) - theirs["key"].isin(here.runs["key"]).sum()
    ours, others = _contents(here), _contents(published)
    unlike = tuple(name for name in others if name in ours and not others[name] & ours[name])
    return Comparison(here.name, runs, int(copied.sum()), n_failed, int(n_absent), unlike)


def _contents(suite: Suite) -> dict[str, set[str]]:
    """The digests of each stream's data and each backbone's weights, by name."""
    found: dict[str, set[str]] = {}
    for record in suite.runs["record"]:
        for part in ("stream", "backbone"):
            asked = record["spec"][part]
            found.setdefault(f"{part} {asked['name']}", set()).add(asked.get("digest"))
    return found


def _limit(runs: pd.DataFrame) -> float:
    """How far two runs of a panel may be apart; NaN where no method has two seeds."""
    groups = runs.groupby("method")["acc"]
    squares = ((runs["acc"] - groups.transform("mean")) ** 2).sum()
    freedom = len(runs) - groups.ngroups
    return stdtrit(freedom, 0.975) * sqrt(2 * squares / freedom) if freedom else nan


@ends_in_one_sentence
def main(arguments: list[str] | None = None) -> int:
    """Compares: 0 if the results are the published ones, 1 if not, 2 if they cannot be compared."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suite", help="a suite's name, or the path of a suite file")
    name = reading.suite_name(parser.parse_args(arguments).suite)
    published = reading.published()
    if name not in published:
        raise ValueError(f"No results of {quoted(name)} are published: {suggest(name, published)}")
    own = Path("results") / name / "runs.jsonl"
    if not own.is_file():
        raise ValueError(f"{own} is missing: make replicate SUITE={name} makes it")
    comparison = compare(read_suite(own), read_suite(published[name]))
    print(comparison.text())
    return 0 if comparison.holds else 1


if __name__ == "__main__":
    sys.exit(main())
