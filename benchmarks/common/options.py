"""Options that a user writes: plain dataclasses, checked by pydantic, refused in one sentence.

Nothing is converted but a whole number where a float stands: true is no number, "1" no text for
one. Bounds and choices are declared where the field is, `Annotated[int, Field(ge=1)]`; what
depends on several fields is checked by the class in `__post_init__`, which raises ValueError.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic import ConfigDict, Field

from analysis.text import quoted, suggest
from benchmarks.common.errors import DataError

MOST = 10**6  # of every whole number: no machine has room for what a larger one asks for
Count = Annotated[int, Field(ge=1, le=MOST)]
T = TypeVar("T")
NonEmpty = Annotated[T, Field(min_length=1)]
Options = TypeVar("Options")


@contextmanager
def at(place: str) -> Iterator[None]:
    """What is refused inside is a DataError that begins with the place."""
    try:
        yield
    except ValueError as error:
        raise DataError(f"{place}: {error}") from error


def parse(cls: type[Options], mapping: Any) -> Options:
    """The dataclass `cls` from a mapping.

    Raises:
        DataError: a name is unknown or missing, or a value is not what its field declares.
    """
    check_names(mapping, field_names(cls))
    try:
        checked = _strict(cls)(**mapping)
    except pydantic.ValidationError as error:
        raise DataError(_sentence(error, cls, mapping)) from error
    values = {name: getattr(checked, name) for name in field_names(cls)}
    for name, value in values.items():
        if type(value) is int and abs(value) > MOST:
            raise DataError(f"{name} must be at most {MOST:,}, but is {quoted(value)}")
    return cls(**values)


def check_names(mapping: Any, known: Iterable[str]) -> None:
    """Refuse what is no mapping, or has a name that is not known, with a near one."""
    if not isinstance(mapping, dict):
        raise DataError(f"a mapping of settings was expected, but found {quoted(mapping)}")
    for name in mapping:
        if name not in known:
            raise DataError(f"{quoted(name)} is no setting here: {suggest(name, sorted(known))}")


def field_names(cls: type) -> set[str]:
    """Of the fields of a dataclass."""
    return {field.name for field in dataclasses.fields(cls)}


def changed(options: Any) -> dict[str, Any]:
    """The fields that differ from their default."""
    return {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if getattr(options, field.name) != field.default
    }


@functools.cache
def _strict(cls: type) -> type:
    config = ConfigDict(strict=True, allow_inf_nan=False)
    return pydantic.dataclasses.dataclass(cls, frozen=True, config=config)


def _sentence(error: pydantic.ValidationError, cls: type, mapping: Mapping) -> str:
    """The first thing wrong in words, with all that would be right in its place."""
    errors = error.errors(include_url=False)
    first = errors[0]
    if first["type"] == "value_error":  # of __post_init__
        return str(first["ctx"]["error"])
    name, *inside = first["loc"]
    if first["type"] == "missing":
        hint = typing.get_type_hints(cls)[name]
        choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
        return f"{name} is missing: add {' or '.join(map(str, choices)) or 'it'}"
    place, value = str(name), mapping[name]
    asked = [e["msg"].partition(" should ")[2] for e in errors if e["loc"][0] == name]
    if isinstance(value, list) and inside and isinstance(inside[0], int):
        place, value, asked = f"item {inside[0] + 1} of {name}", value[inside[0]], asked[:1]
    elif isinstance(value, dict) and inside and inside[0] in value:
        place, value, asked = f"{name}, {quoted(inside[0])}", value[inside[0]], asked[:1]
    elif types.NoneType in typing.get_args(typing.get_type_hints(cls)[name]):
        asked.append("be null")
    return f"{place} must {' or '.join(dict.fromkeys(asked))}, but is {quoted(value)}"
