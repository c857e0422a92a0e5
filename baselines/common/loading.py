"""The one class that a file defines, found by a name, a dotted module or a path.

For methods and streams alike, and without torch. Whatever a file raises when it is imported is said
in one sentence, so that a half-written one fails alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Collection
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from types import ModuleType

_LIBRARIES = tuple(sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib"))


def stems(package: ModuleType) -> set[str]:
    """Names of a package's files; those that begin with `_` only help the others."""
    files = (path for folder in package.__path__ for path in Path(folder).glob("[!_]*.py"))
    return {path.stem for path in files}


def module_of(place: str, package: ModuleType, known: Collection[str]) -> str:
    """The dotted name of the module that a place stands for.

    Args:
        place: a name in `known`, a dotted module such as `my_package.derpp`, or the path of a .py
            file from the current folder on. Such a file imports those beside it as in a package:
            `from .other import ...`.
        package: of the modules with the names in `known`.

    Raises:
        ValueError: there is none, or one from outside has the name of one in the package.
    """
    home = package.__name__
    if place in known:
        return f"{home}.{place}"
    if "/" in place or place.endswith(".py"):
        path = Path(place).expanduser().resolve()
        if not path.exists():
            raise ValueError(f"{place[:200]!r} is not there, as {path}: correct the path")
        if not (path.is_file() and re.fullmatch(r"[A-Za-z]\w*\.py", path.name)):
            raise ValueError(
                f"{place[:200]!r} is no file to import: give the path of a .py file whose name has "
                "letters, digits and _ only"
            )
        inside = path.parent in [Path(folder).resolve() for folder in package.__path__]
        module = f"{home if inside else _package_of(path.parent)}.{path.stem}"
    elif "." in place:
        module = place
    else:
        near = get_close_matches(place[:100], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
        raise ValueError(f"nothing is called {place[:200]!r} in {home}: {hint}")
    stem = module.rpartition(".")[2]
    if stem in known and module != f"{home}.{stem}":
        raise ValueError(f"{place!r} has the name of a file in {home}, {stem}: rename it")
    return module


def exists(module: str) -> bool:
    """Whether there is such a module, be it broken."""
    return _file_of(module) is not None


def load_class(base: type, module: str) -> type:
    """The one class of a module that derives from `base`; those that begin with `_` do not count.

    Raises:
        ValueError: the module cannot be imported, with the line that fails, or it defines no such
            class or several.
    """
    shown = _shown(_file_of(module)) or module
    try:
        namespace = vars(importlib.import_module(module))
    except Exception as error:  # a file under work raises anything
        raise ValueError(f"{shown} cannot be imported: {_reason(error, module)}") from error
    found = [
        value
        for name, value in namespace.items()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module
        and not name.startswith("_")
    ]
    if len(found) != 1:
        number = ", ".join(cls.__name__ for cls in found) or "none"
        raise ValueError(f"{shown} must define exactly one {base.__name__}, but defines {number}")
    return found[0]


def _package_of(folder: Path) -> str:
    """A package that stands for a folder outside."""
    name = f"outside_{sha256(str(folder).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        package = sys.modules[name] = ModuleType(name, f"The files of {folder}.")
        package.__path__ = [str(folder)]
    return name


def _file_of(module: str) -> str | None:
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # its package cannot be imported
        return None
    return spec and spec.origin


def _shown(file: str | None) -> str | None:
    """A file as a sentence names it: from the current folder on if it lies there."""
    inside = file and Path(file).is_relative_to(Path.cwd())
    return os.path.relpath(file) if inside else file


def _reason(error: Exception, module: str) -> str:
    """What a module raised, and the last line that led there outside the libraries."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} ({_shown(error.filename)}, line {error.lineno})"
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((*_LIBRARIES, "<", __file__))
    ]
    if frames:
        text += f" ({_shown(frames[-1].filename)}, line {frames[-1].lineno})"
    if isinstance(error, ModuleNotFoundError) and error.name:
        if exists(f"{module.rpartition('.')[0]}.{error.name}"):
            text += f"; a file beside it is imported as `from .{error.name} import ...`"
    return text
