"""Continual-learning methods, one per file; dropping a file in here adds a method.

A file defines one subclass of `common.base.Method`. Nothing is registered anywhere: suites name
the file, and contract tests, tables and figures follow. A method may lie elsewhere: suites name its
module or its path then. Where a method is another one on text, `<name>_language.py` beside it
defines that. What methods share lies in `common/`, or in files that begin with `_`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from baselines.common import loading

if TYPE_CHECKING:
    from baselines.common.base import Method

_ON_TEXT = "_language"


def names() -> list[str]:
    """The names of all methods, sorted. Imports none of them."""
    return sorted({stem.removesuffix(_ON_TEXT) for stem in loading.stems(_package())})


def load(place: str, modality: str | None = None) -> type[Method]:
    """The method of a file, on "language" that of its own file for text if there is one.

    Args:
        place: a name, a dotted module or the path of a .py file, see `loading.module_of`.

    Raises:
        ValueError: there is no such method, or its file cannot be imported or defines none.
    """
    from baselines.common.base import Method  # torch, which whoever asks for names does without

    module = _module(place)
    own = modality == "language" and loading.exists(module + _ON_TEXT)
    return loading.load_class(Method, module + _ON_TEXT if own else module)


def of(spec: Mapping[str, Any], modality: str | None = None) -> type[Method]:
    """The method of a record's `spec["method"]`, which has an `origin` if it is from outside."""
    return load(spec.get("origin", spec["name"]), modality)


def name_of(place: str) -> str:
    """The name of the method in a place: that of its file."""
    return _module(place).rpartition(".")[2]


def _module(place: str) -> str:
    return loading.module_of(place, _package(), names()).removesuffix(_ON_TEXT)


def _package():
    return sys.modules[__name__]
