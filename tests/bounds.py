"""Whether numbers that a suite sets have bounds."""

import dataclasses
import typing

import pytest

from benchmarks.common.errors import DataError
from benchmarks.common.options import parse

NEEDED = {"name": "x", "epochs": 1, "mask": "all", "path": "x", "tasks": {"a": "exact"}}


def check(options: type) -> None:
    """No number among the options may be what is not finite, negative, too large or true."""
    known = {field.name for field in dataclasses.fields(options)}
    needed = {name: value for name, value in NEEDED.items() if name in known}
    for name, hint in typing.get_type_hints(options).items():
        kinds = {hint, *typing.get_args(hint)}
        values = [float("nan"), float("inf"), -float("inf"), ".inf", -1, -0.5, True]
        if float not in kinds:
            values.append(10**18)  # a number, if a large one
        for value in values if {int, float} & kinds else ():
            with pytest.raises(DataError, match=name):
                parse(options, needed | {name: value})
                raise AssertionError(f"{name} may be {value}")
