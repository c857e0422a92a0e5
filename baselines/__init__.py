"""Continual-learning methods, one per file; dropping a file in here adds a method.

A file defines one subclass of `common.base.Method`. Nothing is registered anywhere: suites name
the file, and contract tests, tables and figures follow. Where a method is another one on text,
`<name>_language.py` defines that. What methods share lies in `common/`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from baselines.common.base import Method

_ON_TEXT = "_language"


def names() -> list[str]:
    """The names of all methods, sorted."""
    return sorted({stem.removesuffix(_ON_TEXT) for stem in _stems()})


def load(name: str, modality: str | None = None) -> type[Method]:
    """The method of that name, on "language" that of its own file for text if there is one.

    Raises:
        ValueError: there is no such method, or its file defines none.
    """
    from baselines.common.base import Method  # torch, which whoever asks for names does without

    if name not in names():
        raise ValueError(f"no method is called {name!r} in baselines/, but {', '.join(names())}")
    own = modality == "language" and name + _ON_TEXT in _stems()
    module = importlib.import_module(f"baselines.{name}{_ON_TEXT if own else ''}")
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Method)
        and value.__module__ == module.__name__
        and not value.__name__.startswith("_")
    ]
    if len(classes) != 1:
        raise ValueError(
            f"{module.__name__} must define exactly one Method, but defines {len(classes)}"
        )
    return classes[0]


def _stems() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg}
