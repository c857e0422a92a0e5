"""Checks of a method's settings: ValueError names the setting and its value. None always passes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any


def at_least_1(config: Any, *names: str) -> None:
    _require(config, names, "be at least 1", lambda value: value >= 1)


def not_negative(config: Any, *names: str) -> None:
    _require(config, names, "not be negative", lambda value: value >= 0)


def positive(config: Any, *names: str) -> None:
    _require(config, names, "be positive", lambda value: value > 0)


def shares(config: Any, *names: str) -> None:
    _require(config, names, "lie in [0, 1]", lambda value: 0 <= value <= 1)


def below_1(config: Any, *names: str) -> None:
    _require(config, names, "lie in [0, 1)", lambda value: 0 <= value < 1)


def one_of(config: Any, **known: Collection[str]) -> None:
    for name, choices in known.items():
        if (value := getattr(config, name)) not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def _require(config: Any, names: tuple, rule: str, fits: Callable[[Any], bool]) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not fits(value):
            raise ValueError(f"{name} must {rule}, but is {value}")
