"""Continual-learning methods, one per file; dropping a file in here adds a method.

A file defines one subclass of `baselines.base.Method`. Nothing is registered anywhere: suites name
the file, and contract tests, tables and figures follow.
"""

from __future__ import annotations

import importlib
import inspect
from difflib import get_close_matches
from pathlib import Path

from baselines.base import Method

_SHARED = {"__init__", "augment", "base", "compiler", "hide", "lora", "loop", "prefix", "prompts"}


def names() -> list[str]:
    """The names of all methods, sorted."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem not in _SHARED)


def load(name: str) -> type[Method]:
    """The method of that name.

    Raises:
        ValueError: there is no such method, or its file defines none.
    """
    if name not in names():
        near = get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names())}"
        raise ValueError(f"no method is called {name!r} in baselines/: {hint}")
    module = importlib.import_module(f"baselines.{name}")
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
            f"baselines/{name}.py must define exactly one Method, but defines {len(classes)}"
        )
    return classes[0]
