"""A table as data, and its forms: Markdown, LaTeX, CSV and cells for the report."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from math import isnan, nan
from typing import NamedTuple

import pandas as pd

from analysis.records.metrics import OF_THE_MACHINE, Estimate
from analysis.tables.latex import typeset
from analysis.text import markdown

ABSENT = "–"


def csv(frame: pd.DataFrame) -> str:
    """Comma-separated values; text that a spreadsheet would take for a formula is quoted."""
    texts = [key for key, kind in frame.dtypes.items() if kind in (object, "str")]
    return frame.assign(**{key: frame[key].map(_no_formula) for key in texts}).to_csv(
        index=False, lineterminator="\n"
    )


def _no_formula(value: object) -> object:
    if not isinstance(value, str) or value[:1] not in ("=", "+", "-", "@", "＝", "＋", "－", "＠"):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


class Number(NamedTuple):
    """How numbers of one kind are printed: scaled how, with how many digits behind the point."""

    scale: float = 1
    digits: int | None = None

    def __call__(self, value: float, signed: bool = False, like: float | None = None) -> str:
        """Where no digits are set: about three of a number, or as many as `like` would have."""
        size = self.scale * abs(value if like is None else like)
        adaptive = 0 if size >= 100 else 1 if size >= 10 else 2
        digits = adaptive if self.digits is None else self.digits
        return f"{self.scale * value:{'+' if signed else ''}z,.{digits}f}".replace("-", "−")


plain, count = Number(), Number(digits=0)
two_digits = Number(digits=2)
percent = Number(100, digits=2)  # as in the paper
mebibytes = Number(2**-20)


@dataclass(frozen=True)
class Column:
    """A column: numeric with a `show`, else text; `better` is +1 or -1 where one value is best.

    A `signed` column holds differences, which are printed with their interval; a `wide` one holds
    sentences, whose lines are broken; one with `markup` holds Markdown of our own. The `main` ones
    are those for which a table in one column of print has room first.
    """

    key: str
    title: str
    show: Number | None = None
    better: int = 0
    signed: bool = False
    wide: bool = False
    markup: bool = False
    main: bool = False

    def text(self, value: object) -> str:
        """The printed cell: mean ± sd [interval] for an estimate, an en dash for what is absent."""
        if not isinstance(value, Estimate):
            return ABSENT if value in (None, "") else str(value)
        if isnan(value.mean):
            return ABSENT
        text = self.show(value.mean, self.signed)
        if value.sd > 0:
            shown = (self.show(value.sd, like=value.mean), self.show(value.sd))
            text += next((f" ± {sd}" for sd in shown if sd.strip("0.")), "")
        if self.signed and not isnan(value.low):
            low, high = (self.show(end, True, value.mean) for end in (value.low, value.high))
            text += f" [{low}, {high}]"
        return text


class Cell(NamedTuple):
    text: str
    bold: bool


@dataclass
class Table:
    """Rows of raw values by column key.

    `below` are the rows under a rule, which do not compete to be best; `setting` are the notes that
    all tables of a panel share; `facts` are columns that only the CSV needs, as it has no notes;
    `names` are what a method's label is printed as where it is not the label itself; the labels in
    `marked` are in bold; the costs of those `elsewhere`, on another device or under another load
    than the others, stand in parentheses and are no best ones.
    """

    name: str
    title: str
    columns: list[Column]
    rows: list[dict]
    below: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    setting: list[str] = field(default_factory=list)
    facts: Mapping[str, object] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    marked: Collection[str] = ()
    elsewhere: Collection[str] = ()

    @cached_property
    def grid(self) -> list[list[list[Cell]]]:
        """The printed cells above and, where there are any, below the rule."""
        best = {column.key: self._best(column) for column in self.columns}
        groups = [(self.rows, best), (self.below, {})]
        return [
            [
                [
                    Cell(text := self._text(c, row), text == chosen.get(c.key))
                    if c.key != "method"
                    else Cell(self.names.get(label := row["method"], label), label in self.marked)
                    for c in self.columns
                ]
                for row in rows
            ]
            for rows, chosen in groups
            if rows
        ]

    def _is_apart(self, column: Column, row: dict) -> bool:
        return column.key in OF_THE_MACHINE and row.get("method") in self.elsewhere

    def _text(self, column: Column, row: dict) -> str:
        text = column.text(row.get(column.key))
        return f"({text})" if self._is_apart(column, row) and text != ABSENT else text

    def _best(self, column: Column) -> str | None:
        values = [row.get(column.key) for row in self.rows if not self._is_apart(column, row)]
        values = [v for v in values if isinstance(v, Estimate) and not isnan(v.mean)]
        if not column.better or len(values) < 2:
            return None
        return column.text(max(values, key=lambda value: column.better * value.mean))

    def markdown(self) -> str:
        """A GitHub table under its title, and the notes as a list."""

        def line(cells: Iterable[str]) -> str:
            return "".join(f"| {cell} " for cell in cells) + "|"

        def shown(cell: Cell, column: Column) -> str:
            text = cell.text
            if column.markup:
                text = text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
            else:
                text = markdown(text)
            return f"**{text}**" if cell.bold else text

        lines = [
            f"**{markdown(self.title)}**\n",
            line(markdown(column.title) for column in self.columns),
            line("---:" if column.show else ":---" for column in self.columns),
            *(line(map(shown, cells, self.columns)) for cells in chain(*self.grid)),
            "",
            *(f"- {markdown(note)}" for note in (*self.setting, *self.notes)),
        ]
        return "\n".join(lines).strip() + "\n"

    def latex(self, narrow: bool = False) -> str:
        """For a document that loads array and booktabs, in two columns or, `narrow`, one."""
        return typeset(self, narrow)

    def csv(self) -> str:
        """Raw values (scores as fractions), with spread and interval in columns of their own."""
        rows = [self._flat(row) for row in [*self.rows, *self.below]]
        return csv(pd.DataFrame(rows, columns=list(self._flat({}))))

    def _flat(self, row: dict) -> dict[str, object]:
        flat = dict(self.facts)
        for column in self.columns:
            value, key = row.get(column.key), column.key
            if column.show is None:
                flat[key] = value
                continue
            known = value if isinstance(value, Estimate) else Estimate(nan)
            flat |= {key: known.mean, f"{key}_sd": known.sd}
            if column.signed:
                flat |= {f"{key}_low": known.low, f"{key}_high": known.high}
        return flat
