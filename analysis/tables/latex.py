"""A table for LaTeX: how text is set, and which columns fit into one column of print or two."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import chain
from math import ceil
from typing import Protocol

from analysis.text import visible

_TEX = {character: "\\" + character for character in "&%$#_{}"} | {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", "−": r"$-$", "–": "--"},
    **{"×": r"$\times$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "Δ": r"$\Delta$"},
    **{"γ": r"$\gamma$", "δ": r"$\delta$", "η": r"$\eta$", "λ": r"$\lambda$"},
    **{"≥": r"$\geq$", "≤": r"$\leq$", "√": r"$\surd$", "|": r"\textbar{}"},
}
# Beyond Latin letters and these, only LuaLaTeX and XeLaTeX can set a character.
_BEYOND_LATEX = re.compile("[^\x00-\u017f–—‘’“”•…†‡€™]+")
# All in points, for footnotes (8 pt) in a document of 10 pt.
ONE, TWO, PAGE = 234, 486, 600  # a column of print, two, and the height of a page
GAP, LINE, NOTE = 6, 9.8, 8.2  # between columns, of a line, of a line of a note


class _Widths(dict):
    def __missing__(self, letter: str) -> float:
        beyond = letter not in _TEX and _BEYOND_LATEX.match(letter)
        return self.setdefault(letter, 35 if beyond else 4.4)


WIDTHS = _Widths(
    dict.fromkeys("ijl.,:;'|!()[]- ", 2.9)
    | dict.fromkeys("ftr/", 3.4)
    | dict.fromkeys("mwMWQOGHNUDV@%±−×+=Δ≥≤", 7.1)
    | dict.fromkeys("ABCEFIJKLPRSTXYZ&", 6.2)
)
WRAP = r">{\raggedright\arraybackslash}p"
SMALL = "\\footnotesize\\setlength{\\tabcolsep}{3pt}"
LONG = (
    "% Higher than a page: load longtable, and set it where pages have one column.\n"
    f"\\begingroup{SMALL}\n"
)
WRAPPED = 84  # what a column of text gets at least, if it has more to say


class Table(Protocol):
    """What is asked of a `table.Table`."""

    name: str
    title: str
    columns: list
    notes: list[str]
    setting: list[str]
    grid: list[list[list]]


@cache
def tex(text: str) -> str:
    """Text as LaTeX sets it; where an engine knows no Unicode, code points stand for letters."""

    def either(found: re.Match) -> str:
        points = " ".join(f"U+{ord(letter):04X}" for letter in found[0])
        return f"{{\\ifdefined\\Umathchar {found[0]}\\else {points}\\fi}}"

    def plain_part(part: str) -> str:  # two hyphens are no dash
        return _BEYOND_LATEX.sub(either, re.sub("-(?=-)", "-{}", part))

    text = unicodedata.normalize("NFC", visible(text))
    parts = re.split(f"([{''.join(map(re.escape, _TEX))}])", text)
    made = "".join(_TEX.get(part) or plain_part(part) for part in parts)
    return "{}" + made if made[:1] in ("[", "*") else made  # no option of the \\ before it


def tex_label(name: str) -> str:
    """A name that a cross-reference may have."""
    return re.sub("[^A-Za-z0-9-]", "-", name)


@cache
def width(text: str) -> float:
    """About how wide a text is."""
    return sum(map(WIDTHS.__getitem__, text))


def typeset(table: Table, narrow: bool = False) -> str:
    """The table for a document that loads array and booktabs, its notes below it.

    It floats over two columns of print; columns that do not fit stand below the others, behind
    those that tell the rows apart. If it is higher than a page it is a longtable, for a part of a
    document with one column. A `narrow` one is as wide as one column and has of its columns what
    fits, the `main` ones first.
    """
    most, grid = ONE if narrow else TWO, table.grid
    texts = [
        [column.title, *(cell.text + "X" * cell.bold for cell in cells)]
        for column, *cells in zip(table.columns, *chain.from_iterable(grid), strict=True)
    ]
    parts, notes = _parts(table, texts, most), [*table.setting, *table.notes]
    if narrow and len(parts) > 1:
        left = [c.title for n, c in enumerate(table.columns) if n not in parts[0]]
        parts, notes = parts[:1], [*notes, f"Left out here: {', '.join(left)}."]
    shapes = [_shape(part, table, texts, most) for part in parts]
    height = sum(high for _, high in shapes)
    height += NOTE * sum(0.75 * width(note) // most + 1 for note in [table.title, *notes])
    caption = f"\\caption{{{tex(table.title)}}}\\label{{tab:{tex_label(table.name)}}}"
    below = "\n".join(f"{tex(note)}\\par" for note in notes)
    below = f"\\par\\medskip\\raggedright\\scriptsize\n{below}\n" if notes else ""
    bodies = [_body(part, table, grid) for part in parts]
    if height > PAGE:
        made = [LONG]
        for preamble, (head, body) in zip((p for p, _ in shapes), bodies, strict=True):
            made.append(f"\\begin{{longtable}}{{{preamble}}}\n")
            made.append(f"{caption}\\\\\n" if len(made) == 2 else "")
            made.append(f"{head}\\endhead\n\\bottomrule\n\\endfoot\n{body}\\end{{longtable}}\n")
        return "".join([*made, below, "\\endgroup\n"])
    kind = "table" if narrow else "table*"
    tabulars = "\\par\\medskip\n".join(
        f"\\begin{{tabular}}{{{preamble}}}\n{head}{body}\\bottomrule\n\\end{{tabular}}\n"
        for (preamble, _), (head, body) in zip(shapes, bodies, strict=True)
    )
    return f"\\begin{{{kind}}}\n{SMALL}\\centering\n{caption}\n{tabulars}{below}\\end{{{kind}}}\n"


def _parts(table: Table, texts: list[list[str]], most: float) -> list[list[int]]:
    """The places of the columns that stand side by side, in as many parts as the width asks for."""
    needs = [
        _least(cells, column.show is None) + GAP
        for column, cells in zip(table.columns, texts, strict=True)
    ]
    keys = _keys(texts)
    if sum(needs[key] for key in keys) > most / 2:
        keys = [0]
    others = [place for place in range(len(texts)) if place not in keys]
    parts = [list(keys)]
    for place in sorted(others, key=lambda place: not table.columns[place].main):
        if len(parts[-1]) > len(keys) and sum(needs[p] for p in [*parts[-1], place]) > most:
            parts.append(list(keys))
        parts[-1].append(place)
    return [sorted(part) for part in parts]


def _keys(texts: list[list[str]]) -> list[int]:
    """The first columns, as many as tell the rows apart."""
    for n in range(1, len(texts)):
        rows = list(zip(*(cells[1:] for cells in texts[:n]), strict=True))
        if len(set(rows)) == len(rows):
            return list(range(n))
    return [0] if texts else []


def _least(cells: list[str], wraps: bool) -> float:
    """What a column needs: of text that wraps not the whole width."""
    whole = max(map(width, cells))
    if not wraps:
        return whole
    return min(whole, max(WRAPPED, *(width(word) for cell in cells for word in cell.split())))


def _shape(part: list[int], table: Table, texts: list[list[str]], most: float) -> tuple[str, float]:
    """The preamble of a tabular and its height; columns that wrap share what is left."""
    natural = {place: max(map(width, texts[place])) for place in part}
    least = {place: _least(texts[place], table.columns[place].show is None) for place in part}
    wanted = sum(natural[place] - least[place] for place in part)
    free = max(most - sum(need + GAP for need in least.values()), 0)
    share = min(1, free / wanted) if wanted else 0
    wide = {p: least[p] + share * (natural[p] - least[p]) for p in part if natural[p] > least[p]}
    marks = [
        f"{WRAP}{{{wide[p]:.0f}pt}}" if p in wide else "r" if table.columns[p].show else "l"
        for p in part
    ]
    rows = zip(*(texts[place] for place in part), strict=True)
    lines = [
        max([1, *(ceil(1.15 * width(row[n]) / wide[p]) for n, p in enumerate(part) if p in wide)])
        for row in rows
    ]
    return "".join(marks), LINE * (sum(lines) + 2)


def _body(part: list[int], table: Table, grid: list) -> tuple[str, str]:
    """The head and the rows of a tabular."""

    def row(cells: list[str]) -> str:
        return f"{' & '.join(cells)} \\\\\n"

    groups = [
        "".join(
            row(
                [
                    f"\\textbf{{{tex(c.text)}}}" if c.bold else tex(c.text)
                    for c in map(cells.__getitem__, part)
                ]
            )
            for cells in rows
        )
        for rows in grid
    ]
    head = row([tex(table.columns[place].title) for place in part])
    return f"\\toprule\n{head}\\midrule\n", "\\midrule\n".join(groups)
