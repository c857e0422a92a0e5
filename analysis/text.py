"""Text from outside, made fit for a sentence or Markdown: on one line, quoted, with a near name."""

from __future__ import annotations

import re
import reprlib
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache

MOST_LISTED = 40  # names in one sentence
_ABSOLUTE = re.compile(  # of Unix, Windows or a home, where no longer word or address ends
    r"(?<![\w.:/\\~-])(?:~?/|[A-Za-z]:[/\\]|\\\\)(?:[^\s/\\'\":;,]+[/\\]+)*(?P<last>[^\s/\\'\":;,]+)[/\\]?"
)

_brief = reprlib.Repr()
_brief.maxlevel, _brief.maxlist, _brief.maxtuple, _brief.maxdict = 2, 4, 4, 4
_brief.maxstring, _brief.maxother, _brief.maxlong = 60, 60, 30


def visible(text: str) -> str:
    """The text as one line, with what does not print as an escape, such as \\x1b.

    Control characters, marks that turn the direction of writing, halves of characters and code
    points without a character would be commands to a terminal, or make a file invalid.
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character in "\t\n\r\u2028\u2029":
        return " "
    joiner = character in "\u200c\u200d"  # of letters and of emoji
    if joiner or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Cn"):
        return character
    return ascii(character)[1:-1]


def pathless(text: str) -> str:
    """The text with the last component of each absolute path, as where it lies is nobody's."""
    return _ABSOLUTE.sub(r"\g<last>", text)


def quoted(value: object) -> str:
    """A value as a sentence shows it: on one line, and cut short however much it stands for."""
    text = visible(_brief.repr(value))
    return text if len(text) <= 200 else f"{text[:197]}..."


def suggest(name: object, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: "did you mean 'x'?" or "there are a, b, c"."""
    known = list(known)
    if near := get_close_matches(str(name)[:100], known, n=1):
        return f"did you mean {quoted(near[0])}?"
    more = [f"{len(known) - MOST_LISTED:,} more"] if len(known) > MOST_LISTED else []
    return f"there are {', '.join(map(visible, known[:MOST_LISTED] + more)) or 'none'}"


@cache
def markdown(text: str) -> str:
    """Text as Markdown shows it: no markup, no mathematics, on one line."""
    text = re.sub(r"\\(?=[!-/:-@\[-`{-~])", r"\\\\", visible(text))
    text = re.sub(r"[|`*~$]", r"\\\g<0>", text)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # within a word it is one
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("<", "&lt;").replace("](", "]\\(")
    text = re.sub(r"^(#+(?=\s|$)|[+=-](?=\s|$)|>)", r"\\\1", text)  # where a line begins
    return re.sub(r"^(\d+)([.)]\s)", r"\1\\\2", text)
