"""The runs as one pandas DataFrame, from which every table and figure is made.

In a notebook:

    from analysis.records.runs import load
    runs = load("benchmarks/published/cifar.runs.jsonl.xz")
    runs.groupby(["stream", "method"])[["acc", "time_seconds"]].agg(["mean", "std"])

One row is one run: what it is (`suite`, `stream`, `backbone`, `panel`, `method`, `seed` ...), how
it ended (`status`, `error`), when (`started`, `finished`, in UTC), every metric of
`metrics.METRICS` (NaN unless it is done), its matrix `R` and its whole `record`.
Rows come in the order in which methods are shown.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from math import nan
from pathlib import Path

import pandas as pd

from analysis.records import schema
from analysis.records.metrics import (
    COUNTS,
    METRICS,
    OF_THE_MACHINE,
    Estimate,
    estimate,
    measure,
)
from analysis.records.predictions import Predictions, by_key, file_of
from analysis.records.reading import read
from analysis.records.schema import complete, only_last_row, scores, task_names
from analysis.records.trees import Agreement, agreement
from analysis.text import pathless

# What methods are called, in the order in which tables and legends list them; others follow by
# name, the upper bound last.
METHOD_ORDER = {
    **{"fix": "FIX", "seqlora": "SeqLoRA", "ogd": "OGD", "gem": "GEM", "derpp": "DER++"},
    **{"ewc": "EWC", "magmax": "MagMax", "l2p": "L2P", "dualprompt": "DualPrompt"},
    **{"codaprompt": "CODA-Prompt", "hideprompt": "HiDePrompt", "hidelora": "HiDeLoRA"},
    **{"inflora": "InfLoRA", "sdlora": "SD-LoRA", "ranpac": "RanPAC", "ease": "EASE"},
    **{"olora": "O-LoRA", "sapt": "SAPT", "tasl": "TaSL", "treelora": "TreeLoRA"},
    "hidetreelora": "TreeLoRA in HiDe",
}
UPPER_BOUND = "joint"
REFERENCE = "treelora"  # what differences are taken to where the suite names nothing else
# Records that today's code would not give again, by method: of which modality, below which version,
# and why. They are marked wherever they are shown.
OUTDATED = {
    "ewc": [
        (modality, 3, "made with a term for each task; today's single one differs by rounding")
        for modality in ("vision", "language")
    ],
    "fix": [("language", 3, "made with instructions twice where white space shares a token")],
    "l2p": [
        ("vision", 2, "made before prompts had positions, which costs points; see baselines/l2p.py")
    ],
}
MOST_DRAWN = 12  # methods in one figure
LONGEST_SLUG = 150  # bytes of what becomes part of a file's name
# When and how a run was made.
TIMES = ("started", "finished")
PROVENANCE = (
    *("device", "threads", "runs_per_gpu", "deterministic", "commit", "dirty", "source_digest"),
    *("lock_digest", "python", "weights_labels"),
)
# The columns that hold more than one value, so that no CSV has them.
RAW = ["R", "record"]


def load(*paths: str | Path) -> pd.DataFrame:
    """The runs of one or more files of records; raises DataError for a file that is unusable."""
    return pd.concat([frame(read(Path(path))[0]) for path in paths], ignore_index=True)


def slugs(specs: list[dict]) -> list[str]:
    """The panel of each spec: its stream, where needed with the backbone and a number."""
    panels = [(s["stream"]["name"], s["backbone"]["name"], schema.panel(s)) for s in specs]
    names: dict[str, str] = {}
    for stream, backbone, panel in sorted(set(panels)):
        alone = len({other for name, _, other in panels if name == stream}) == 1
        stem = stream if alone else f"{stream}-{backbone}"
        slug = stem = stem.encode()[:LONGEST_SLUG].decode(errors="ignore")
        number = 2
        while slug in names.values():
            slug, number = f"{stem}-{number}", number + 1
        names[panel] = slug
    return [names[panel] for _, _, panel in panels]


def frame(records: list[dict]) -> pd.DataFrame:
    """The runs of checked records; the index is the line in the file."""
    panels = slugs([record["spec"] for record in records])
    rows = [_row(record, panel) for record, panel in zip(records, panels, strict=True)]
    runs = pd.DataFrame(rows, index=pd.RangeIndex(1, len(rows) + 1, name="line"))
    runs = runs.astype(dict.fromkeys([*COUNTS, "threads", "runs_per_gpu"], "Int64"))
    for key in TIMES:
        runs[key] = pd.to_datetime(runs[key], format="ISO8601", utc=True)
    runs["upper_bound"] = runs.groupby(["panel", "method"])["upper_bound"].transform("any")
    known = {label: place for place, label in enumerate(METHOD_ORDER)}
    order = pd.DataFrame(
        {
            "panel": pd.factorize(runs["panel"])[0],
            "upper_bound": runs["upper_bound"],
            "known": runs["method"].map(known).fillna(len(known)),
            **{key: runs[key] for key in ("method", "seed")},
        }
    )
    return runs.loc[order.sort_values(list(order)).index]


def _title(name: str, label: str, title: str | None = None, **_: object) -> str:
    """What a suite calls a row, else its method's name in the literature and what is varied."""
    known = METHOD_ORDER.get(name, name)
    if title or label == name:
        return title or known
    varied = label.removeprefix(f"{name}-")
    return label if varied == label else f"{known} {varied.replace('-', ' ')}"


def _row(record: dict, panel: str) -> dict[str, object]:
    suite, spec = record["suite"], record["spec"]
    method, train, provenance = spec["method"], spec["train"], record.get("provenance") or {}
    R = scores(record) if record["status"] == "done" else None
    return {
        **{"suite": suite["name"], "suite_label": suite["label"]},
        **{"stream": spec["stream"]["name"], "backbone": spec["backbone"]["name"], "panel": panel},
        **{"method": method["label"], "name": method["name"], "version": method["version"]},
        "upper_bound": method["label"] == UPPER_BOUND or (R is not None and only_last_row(R)),
        "seed": spec["seed"],
        **{
            "status": record["status"],
            "error": pathless(record["error"] or "") or None,
            "key": record["key"],
        },
        **measure(record),
        **{key: train[key] for key in ("batch_size", "mask", "optimizer_reset")},
        **{key: provenance.get(key) for key in (*TIMES, *PROVENANCE)},
        **{"R": R, "record": record},
    }


def learnt_on(record: dict) -> set[str]:
    """The devices of tries that learnt a task or a part of one, where a run was continued."""
    tries = (record.get("provenance") or {}).get("tries") or ()
    return {tried["device"] for tried in tries if tried["tasks"] or tried.get("part")}


def _clock(record: dict) -> tuple:
    """On which devices a run was made, if it was continued on each; threads, and runs on a GPU."""
    provenance = record.get("provenance") or {}
    devices = sorted({str(provenance.get("device")), *learnt_on(record)})
    return tuple(devices), provenance.get("threads"), provenance.get("runs_per_gpu") or 1


@dataclass(frozen=True)
class Suite:
    """All runs of one file; `answers` is where their predictions lie if they were kept."""

    name: str
    label: str
    file: str
    digest: str
    runs: pd.DataFrame
    reference: str = REFERENCE
    answers: Path | None = None

    @cached_property
    def predictions(self) -> dict[str, list[Predictions]]:
        """What the runs answered, by their keys; empty where that was not kept."""
        return by_key(self.answers) if self.answers else {}

    @cached_property
    def panels(self) -> list[Panel]:
        """The panels in the order of the file."""
        return [Panel(self, *group) for group in self.runs.groupby("panel", sort=False)]


def read_suite(path: Path) -> Suite:
    """Reads and checks a file of records."""
    records, digest = read(path)
    suite = records[0]["suite"]
    reference = suite.get("reference") or REFERENCE
    named = suite["name"], suite["label"], path.name
    return Suite(*named, digest, frame(records), reference, file_of(path))


@dataclass(frozen=True, eq=False)  # so that what is known of it can be cached
class Panel:
    """The runs of one stream on one backbone; `slug` is its part of a file name."""

    suite: Suite
    slug: str
    runs: pd.DataFrame

    spec = cached_property(lambda self: self.runs["record"].iloc[0]["spec"])
    stream = property(lambda self: self.spec["stream"]["name"])
    backbone = property(lambda self: self.spec["backbone"]["name"])
    modality = property(lambda self: self.spec["modality"])

    @property
    def score(self) -> str:
        """What the literature calls the mean final score: ACC on vision, OP on language."""
        return "OP" if self.modality == "language" else "ACC"

    @property
    def task_names(self) -> list[str]:
        """The tasks as one of the runs learnt them."""
        return next(filter(None, map(task_names, self.runs["record"])), [])

    @cached_property
    def methods(self) -> dict[str, pd.DataFrame]:
        """The runs of every method, by seed, in the order in which methods are shown."""
        return dict(iter(self.runs.groupby("method", sort=False)))

    @cached_property
    def specs(self) -> dict[str, dict]:
        """Of every method the spec of its first run."""
        return {label: runs["record"].iloc[0]["spec"] for label, runs in self.methods.items()}

    @cached_property
    def titles(self) -> dict[str, str]:
        """How every method is called in tables and legends; by its label where another is so."""
        titles = {label: _title(**spec["method"]) for label, spec in self.specs.items()}
        called = list(titles.values())
        return {x: t if called.count(t) == 1 else x for x, t in titles.items()}

    @property
    def reference(self) -> str:
        """The label that differences are taken to: the suite's, else one that finished."""
        wanted = (self.suite.reference, REFERENCE, *self.finished)
        return next((label for label in wanted if label in self.finished), "none")

    @cached_property
    def done(self) -> pd.DataFrame:
        """The runs that finished."""
        return self.runs[self.runs["status"] == "done"]

    @cached_property
    def finished(self) -> dict[str, pd.DataFrame]:
        """The same of the runs that are done, without the methods that have none."""
        return dict(iter(self.done.groupby("method", sort=False)))

    @cached_property
    def drawn(self) -> dict[str, pd.DataFrame]:
        """The finished runs that a figure of all methods shows.

        Where these would be more than can be told apart, the variants of those that stand here
        under their own name are left out.
        """
        if len(self.finished) <= MOST_DRAWN:
            return self.finished
        base = {label: self.specs[label]["method"]["name"] for label in self.finished}
        return {
            label: runs
            for label, runs in self.finished.items()
            if label == base[label]
            or base.get(base[label]) != base[label]
            or label in self.upper_bounds
        }

    @cached_property
    def clocks(self) -> dict[str, dict[int, tuple]]:
        """Where each finished run was made and beside how many, by method and seed."""
        return {
            label: dict(zip(runs["seed"], runs["record"].map(_clock), strict=True))
            for label, runs in self.finished.items()
        }

    @cached_property
    def timed(self) -> dict[str, pd.DataFrame]:
        """The finished runs that a method's TIME is of: where they were made on several devices,
        those on the one with most runs of the panel."""
        runs_on = Counter(clock for own in self.clocks.values() for clock in own.values())

        def on_one(label: str, runs: pd.DataFrame) -> pd.DataFrame:
            own = self.clocks[label]
            most = max(own.values(), key=runs_on.get)
            return runs[[own[seed] == most for seed in runs["seed"]]]

        return {label: on_one(label, runs) for label, runs in self.finished.items()}

    def comparable(self, label: str, other: str) -> list[int]:
        """The seeds whose costs compare: made by both on one device, that of most such seeds."""
        seeds: dict[tuple, list[int]] = {}
        theirs = self.clocks.get(other, {})
        for seed, clock in self.clocks.get(label, {}).items():
            if theirs.get(seed) == clock:
                seeds.setdefault(clock, []).append(seed)
        return max(seeds.values(), key=len, default=[])

    @cached_property
    def elsewhere(self) -> dict[str, str]:
        """The finished methods whose TIME does not compare with the reference's, and why."""
        clocks = {label: _clock(runs["record"].iloc[0]) for label, runs in self.timed.items()}
        own, kinds = clocks.get(self.reference), ("another device", "threads", "runs on a GPU")
        return {
            label: next(kind for kind, a, b in zip(kinds, clock, own, strict=True) if a != b)
            for label, clock in clocks.items()
            if clock != own
        }

    @cached_property
    def outdated(self) -> dict[str, str]:
        """The methods with runs of a version that today's code does not repeat, and why."""
        return {
            label: why
            for label, runs in self.methods.items()
            for modality, version, why in OUTDATED.get(self.specs[label]["method"]["name"], ())
            if modality == self.modality and runs["version"].min() < version
        }

    @cached_property
    def gaps(self) -> list[str]:
        """One sentence on the methods whose R lacks what curves over tasks need, if any do."""
        titles = [
            self.titles[label]
            for label, runs in self.finished.items()
            if label not in self.upper_bounds and not all(map(complete, runs["R"]))
        ]
        what = "Tested only after a task's own training and at the end (evaluate: final)"
        why = f"{what}, so Forgetting, Incremental and curves over tasks are not defined"
        return [f"{why}: {', '.join(titles)}."] if titles else []

    @cached_property
    def values(self) -> pd.DataFrame:
        """Every metric by method and seed, without what identifies the runs."""
        return self.runs.set_index(["method", "seed"])[list(METRICS)].astype(float)

    @cached_property
    def by_seed(self) -> pd.DataFrame:
        """The same with a row per seed and a column per metric and method."""
        return self.values.unstack("method")

    @cached_property
    def estimates(self) -> dict[str, dict[str, Estimate]]:
        """Every metric of every method over its finished seeds; times over those that are timed."""
        values = self.values.copy()
        timed = [(label, seed) for label, runs in self.timed.items() for seed in runs["seed"]]
        values.loc[~values.index.isin(timed), list(OF_THE_MACHINE)] = nan
        return estimate(values, "method")

    def beside(self, other: str) -> pd.DataFrame:
        """Every metric by method and seed, to be set beside that of a method with the same seed:
        times and memory of the seeds whose costs compare, see `comparable`."""
        apart = {
            (label, seed)
            for label, runs in self.finished.items()
            if label != other
            for seed in set(runs["seed"]).difference(self.comparable(label, other))
        }
        values = self.values.copy()
        values.loc[[run in apart for run in values.index], list(OF_THE_MACHINE)] = nan
        return values

    @cached_property
    def agreements(self) -> dict[tuple[str, int], Agreement]:
        """How well the last tree of each finished run, by method and seed, finds planted groups."""
        runs = zip(*(self.done[key] for key in ("method", "seed", "record")), strict=True)
        found = {(method, seed): agreement(record) for method, seed, record in runs}
        return {run: own for run, own in found.items() if own}

    @cached_property
    def upper_bounds(self) -> set[str]:
        """The methods that see all tasks at once and so are no competitors."""
        return set(self.runs["method"][self.runs["upper_bound"]])

    def is_untrained(self, label: str) -> bool:
        """Whether it learns nothing, as a model that is shown examples, and so does not compete."""
        return self.specs[label]["method"]["name"] == "fix"
