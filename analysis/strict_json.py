"""JSON of which each value can be computed with, printed, and written as JSON again."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import isfinite
from typing import Any

from analysis.text import quoted

MOST_DEPTH = 100  # of a value within values: a tree over as many tasks has not more


def parse(text: str | bytes, as_text: Callable[[str], str] = str) -> Any:
    """The value of a JSON text, with `as_text` of each string; ValueError says what is wrong.

    Beyond what JSON says, no key may stand twice, and numbers are finite and have at most 64 bits.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict:
        return unique_keys([(as_text(key), value) for key, value in pairs])

    def plain(value: Any, depth: int) -> Any:
        if depth > MOST_DEPTH:
            raise ValueError("values are nested too deeply")
        if isinstance(value, dict):
            return {key: plain(entry, depth + 1) for key, entry in value.items()}
        if isinstance(value, list):
            if {*map(type, value)} <= {int, float} and all(map(isfinite, value)):
                return value  # nearly all that a record holds is in such lists
            return [plain(entry, depth + 1) for entry in value]
        if isinstance(value, float) and not isfinite(value):
            raise ValueError("a number is not finite")
        return as_text(value) if isinstance(value, str) else value

    try:
        read = json.loads(text, parse_int=_whole, object_pairs_hook=unique)
        return plain(read, 0)
    except RecursionError:
        raise ValueError("values are nested too deeply") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict:
    """An object of JSON; of two equal keys `dict` would keep the last one without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {quoted(doubled)} stands twice")
    return found


def _whole(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= (number := int(text)) < 2**63:
        raise ValueError(f"the whole number {quoted(text)} has more than 64 bits")
    return number
