"""Which runs of a panel differ in what: the base run of a method, its variants, and their pairs.

The base run of a method is the one whose label is the method's name; a variant is told by the
settings in which it differs from that, not by its label.
"""

from __future__ import annotations

from functools import cache

import pandas as pd

from analysis.records.runs import Panel

Settings = dict[str, object]


def plain(value: object) -> object:
    """A list of equal entries, such as the epochs of all tasks, as that entry; else a tuple."""
    if isinstance(value, dict):
        return tuple((key, plain(entry)) for key, entry in sorted(value.items()))
    if not isinstance(value, list):
        return value
    same = value and all(entry == value[0] for entry in value)
    return plain(value[0]) if same else tuple(map(plain, value))


@cache
def settings(panel: Panel, label: str) -> Settings:
    """The method's own settings and those of training. What an older record lacks is left out."""
    spec = panel.specs[label]
    return {key: plain(value) for key, value in (spec["train"] | spec["method"]["config"]).items()}


@cache
def variants(panel: Panel, method: str) -> dict[str, Settings]:
    """The finished labels of a method, each with what differs from the base run; {} for itself."""
    names = {label: panel.specs[label]["method"]["name"] for label in panel.finished}
    if names.get(method) != method:
        return {}
    base = settings(panel, method)
    labels = [label for label, name in names.items() if name == method]
    return {
        label: {
            key: value
            for key, value in settings(panel, label).items()
            if key in base and value != base[key]
        }
        for label in labels
    }


def find(panel: Panel, method: str, changes: Settings) -> str | None:
    """The variant that differs from the base run in exactly these settings."""
    found = variants(panel, method).items()
    return next((label for label, different in found if different == changes), None)


def sweep(panel: Panel, method: str, key: str) -> dict[object, str]:
    """Labels by the value of one setting, over the runs that differ from the base in no other."""
    labels: dict[object, str] = {}
    for label, different in variants(panel, method).items():
        if different.keys() <= {key}:
            labels.setdefault(settings(panel, label).get(key), label)  # the base before its likes
    return labels


def alike(panel: Panel, label: str, method: str) -> str | None:
    """The run of a method that has all settings of another method's run, of those it knows."""
    own = settings(panel, label)
    for other in variants(panel, method):
        if all(own.get(key, value) == value for key, value in settings(panel, other).items()):
            return other
    return None


def counterparts(panel: Panel, method: str, changes: Settings) -> list[tuple[str, str]]:
    """Labels with these changes, each with the one that lacks them and is else the same."""
    pairs = [
        (label, find(panel, method, {k: v for k, v in own.items() if k not in changes}))
        for label, own in variants(panel, method).items()
        if changes.items() <= own.items()
    ]
    return [(label, other) for label, other in pairs if other]


def difference(panel: Panel, metric: str, label: str, other: str) -> pd.Series:
    """One label minus another, paired by seed, over the seeds that both finished."""
    values = panel.by_seed[metric]
    return (values[label] - values[other]).dropna()
