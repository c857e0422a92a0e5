"""Text in figures: what the fonts of this machine can write, and what is written instead.

Labels and names are text, never mathematics (`figures.mplstyle` says so once for all).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache
from math import log10

import matplotlib
from matplotlib import font_manager
from matplotlib.ticker import FuncFormatter, NullFormatter

from analysis.text import visible

# After Figure Sans, for Latin and Greek, and DejaVu Sans, which matplotlib brings for others: where
# they are installed, fonts for what neither has. Fonts of coloured emoji cannot be drawn.
FALLBACKS = (
    *("Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans CJK TC"),
    *("Noto Sans SC", "Noto Sans JP", "Noto Sans KR", "Source Han Sans SC", "Source Han Sans"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "IPAexGothic"),
    *("PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
    *("Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Bengali", "Noto Sans Tamil"),
    *("Arial Unicode MS", "FreeSans", "Noto Sans Symbols", "Noto Sans Symbols 2", "Noto Emoji"),
    *("Symbola", "Unifont"),
)
LONGEST = 40  # characters of a label in a figure; tables have all of it
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def use_fallbacks() -> None:
    """Let matplotlib look for a letter in the installed fallbacks too."""
    installed = set(font_manager.fontManager.get_font_names())
    known = matplotlib.rcParams["font.family"]
    new = [name for name in FALLBACKS if name in installed and name not in known]
    matplotlib.rcParams["font.family"] = known + new


@cache
def _letters() -> frozenset[int]:
    """The code points for which a font in use has a glyph."""
    paths = map(font_manager.findfont, matplotlib.rcParams["font.family"])
    return frozenset().union(*(font_manager.get_font(path).get_charmap() for path in paths))


def _lacking(text: str) -> list[str]:
    return [letter for letter in text if ord(letter) not in _letters()]


def drawn(text: object, longest: int = LONGEST) -> str:
    """The text as a figure shows it.

    Letters that no font has become escapes, such as \\u4e2d, so that names stay apart where boxes
    would not. The middle of a long text is left out. A leading underscore, which would hide a name
    from the legend, gets a blank before it.
    """
    text = unicodedata.normalize("NFC", visible(str(text)))
    for letter in _lacking(text):
        # what only joins letters or chooses between their forms has no look of its own
        joins = (
            unicodedata.category(letter) in ("Cf", "Mn") and letter in "\u200c\u200d\ufe0e\ufe0f"
        )
        escape = ascii(letter)[1:-1]
        text = text.replace(letter, "" if joins else escape)
    if len(text) > longest:
        text = f"{text[: longest * 2 // 3]}…{text[-(longest // 3 - 1) :]}"
    return f" {text}" if text.startswith("_") else text


def not_drawn(texts: Iterable[str]) -> str:
    """One sentence if figures show escapes for letters of these texts, else nothing."""
    letters = dict.fromkeys(letter for text in texts for letter in _lacking(text))
    seen = [letter for letter in letters if letter not in "\u200c\u200d\ufe0e\ufe0f"]
    if not seen:
        return ""
    return (
        f"No font of this machine has {len(seen)} of the letters in these names, so that figures "
        f"show escapes such as {drawn(seen[0])} for {seen[0]}: install a font that has them, such "
        "as Noto Sans CJK for Chinese, Japanese and Korean, and draw again."
    )


def width(text: str) -> int:
    """How many columns the text takes: East Asian letters and emoji take two."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def powers_of_ten(axis) -> None:
    """Label a logarithmic axis at powers of ten, without mathematics."""
    axis.set_major_formatter(FuncFormatter(_power))
    axis.set_minor_formatter(NullFormatter())


def _power(value: float, _: object) -> str:
    exponent = log10(value) if value > 0 else 0.5
    if value < 10 or abs(exponent - round(exponent)) > 1e-6:
        return f"{value:g}"
    return "10" + str(round(exponent)).translate(_SUPERSCRIPT)
