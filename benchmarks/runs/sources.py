"""The files that a run's numbers come from, and digests of their code.

Of a method: its file and all that this imports, directly or not, from baselines/, treelora/ and
from where it lies itself. Of a stream: the file of its class. Imports are read and not executed:
those within functions count, those whose name is made at run time do not. What an `__init__.py`
does counts where something is imported from it. The digest of a file is of its code without
comments, docstrings and blank lines, as it is written, and so the same in each version of Python.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import io
import re
import tokenize
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import baselines
from benchmarks import streams
from benchmarks.common.digests import digest_of
from benchmarks.common.files import ROOT

_OURS = ("baselines", "treelora")
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def of(spec: Mapping[str, Any]) -> dict[str, str]:
    """The digest of each file behind a run, by `place`; `spec` is the record's.

    A process runs the code that it has read first, so that it looks at each file only once.
    """
    return _digests(files(spec))


@functools.cache
def _digests(files: frozenset[Path]) -> dict[str, str]:
    return {place(file): digest(file) for file in sorted(files)}


def of_stream(spec: Mapping[str, Any]) -> str:
    """The digest of the file that defines a stream; `spec` is a record's `spec["stream"]`."""
    return digest(file_of(streams.load(spec.get("origin", spec["name"]))))


def version(digests: Mapping[str, str]) -> str:
    """8 hex digits that stand for them in the names of files."""
    return digest_of(digests)[:8]


def files(spec: Mapping[str, Any]) -> frozenset[Path]:
    """The files behind a run."""
    method, stream = (spec[part].get("origin", spec[part]["name"]) for part in ("method", "stream"))
    return _files(method, spec["modality"], stream)


@functools.cache
def _files(method: str, modality: str, stream: str) -> frozenset[Path]:
    return reached(file_of(baselines.load(method, modality))) | {file_of(streams.load(stream))}


def file_of(cls: type) -> Path:
    """The file that defines a class."""
    return Path(inspect.getfile(cls)).absolute()


def place(file: Path) -> str:
    """A file's path from the checkout on, or from the folder that its package lies in."""
    return file.relative_to(ROOT if of_checkout(file) else _home(file)).as_posix()


def of_checkout(file: Path) -> bool:
    """Whether a file is of the checkout, in which an environment may lie."""
    return file.is_relative_to(ROOT) and not _is_installed(file.relative_to(ROOT))


def changed(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """The files in which two versions differ."""
    return sorted(file for file in {*old, *new} if old.get(file) != new.get(file))


@functools.cache
def digest(file: Path) -> str:
    """12 hex digits for a file's code; for its bytes if it is no Python."""
    data, tree = _read(file)
    return hashlib.sha256(_code(data, tree) if tree else data).hexdigest()[:12]


@functools.cache
def _read(file: Path) -> tuple[bytes, ast.Module | None]:
    """The bytes of a file and its syntax tree."""
    data = file.read_bytes()
    try:
        return data, ast.parse(data)
    except (SyntaxError, ValueError):
        return data, None


@functools.cache
def reached(file: Path) -> frozenset[Path]:
    """The file of a method and those that it imports."""
    home = _home(file)
    own = file.relative_to(home).parts[0]  # its package
    found, left = set(), [file]
    while left:
        file = left.pop()
        if file in found:
            continue
        found.add(file)
        for name in _imports(file):
            top = name.partition(".")[0]
            if top in _OURS:
                left += _module(ROOT, name)
            elif top == own or not _is_installed(home):  # whose neighbours are other packages
                left += _module(home, name)
    return frozenset(found)


@functools.cache
def _imports(file: Path) -> list[str]:
    """The modules that a file imports, and the names from them, which may be modules too."""
    found, package = [], file.relative_to(_home(file)).parent.parts
    _, tree = _read(file)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            module = [*above, *filter(None, [node.module])]
            found += [".".join([*module, alias.name]) for alias in node.names]
    return found


def _module(folder: Path, name: str) -> list[Path]:
    """The file of a module under a folder, or of the one that `name` is defined in, if there is."""
    for module in filter(None, (name, name.rpartition(".")[0])):
        path = folder.joinpath(*module.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return [file]
    return []


def _home(file: Path) -> Path:
    """The folder that a file's package lies in; that of the file if it is in none."""
    folder = file.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _is_installed(path: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def _code(data: bytes, tree: ast.Module) -> bytes:
    """A file's lines without comments, docstrings and trailing blanks, those that are left."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    lines = re.split("\r\n?|\n", data.decode(encoding))
    documented, inside = set(), set()  # numbers of lines: of docstrings; that end inside a string
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr):
            inside.update(range(node.lineno, node.end_lineno))
        elif isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            before = lines[text.lineno - 1].encode()[: text.col_offset]
            after = lines[text.end_lineno - 1].encode()[text.end_col_offset :].strip()
            if not before.strip() and after[:1] in (b"", b"#"):  # else code shares its line
                documented.update(range(text.lineno, text.end_lineno + 1))
    for token in tokenize.tokenize(io.BytesIO(data).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    kept = [
        line if number in inside else line.rstrip()
        for number, line in enumerate(lines, start=1)
        if number not in documented and (number in inside or line.strip())
    ]
    return "\n".join(kept).encode()
