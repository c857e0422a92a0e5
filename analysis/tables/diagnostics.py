"""What methods report of themselves, where no table of its own is about it."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.catalogue import table
from analysis.records.runs import METHOD_ORDER, UPPER_BOUND, Panel
from analysis.tables.setting import brief, of_methods
from analysis.tables.table import Column, Table

LONGEST = 20  # entries of a list that is shown


@table(need=lambda spec: spec["method"]["name"] not in (*METHOD_ORDER, UPPER_BOUND))
def diagnostics(panel: Panel) -> Table:
    """Scalars and short lists of `diagnostics`, beside a method that the suite does not know."""
    columns = [Column("what", "Diagnostic"), Column("value", "Mean over seeds", wide=True)]
    rows = []
    for label, runs in panel.finished.items():
        found: dict[str, list] = {}
        for record in runs["record"]:
            for what, value in _flat(record.get("diagnostics") or {}):
                found.setdefault(what, []).append(value)
        rows += [{"method": label, "what": x, "value": _mean(own)} for x, own in found.items()]
    note = f"What is longer than {LONGEST} entries, or nested, stands in the records alone."
    title = "what methods report of themselves"
    return of_methods(panel, "diagnostics", title, columns, rows, [note])


def _flat(values: dict) -> Iterator[tuple[str, object]]:
    """What can be shown on one line, the keys of a mapping joined."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from ((f"{key} {inner}", own) for inner, own in _flat(value))
        elif not isinstance(value, list):
            yield key, value
        elif len(value) <= LONGEST and not any(isinstance(x, list | dict) for x in value):
            yield key, value


def _mean(values: list) -> str:
    """One of them over seeds, entry by entry; each value once where they are no numbers."""
    rows = [value if isinstance(value, list) else [value] for value in values]
    if len(set(map(len, rows))) > 1 or not all(
        type(x) in (int, float) for row in rows for x in row
    ):
        return "; ".join(dict.fromkeys(map(brief, values)))
    return " ".join(f"{sum(column) / len(rows):.4g}" for column in zip(*rows, strict=True))
