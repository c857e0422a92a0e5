"""Streams of tasks: dropping a file in here adds one, under the file's name.

A file defines one subclass of `common.base.Stream`, by way of `VisionStream` or `LanguageStream`,
and needs no torch. Nothing is registered anywhere. Only the text benchmarks, which differ in
nothing but their tasks, stand in one table, `common.task_lists`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.text import quoted, suggest
from benchmarks.common.errors import DataError
from benchmarks.common.files import write_json
from benchmarks.common.options import field_names, parse
from benchmarks.streams.common.base import Stream
from benchmarks.streams.common.task_lists import TASK_LISTS, TextBenchmark

__all__ = ["load", "make", "names", "of", "place", "prepare"]


def names() -> list[str]:
    """Names of all streams, sorted."""
    files = (file.stem for folder in __path__ for file in Path(folder).glob("[!_]*.py"))
    return sorted({*TASK_LISTS, *files})


def load(name: str) -> type[Stream]:
    """The class of the stream `name`.

    Raises:
        DataError: there is no such stream, with the nearest name, or its file defines none.
    """
    if name not in names():
        raise DataError(
            f"there is no stream named {quoted(name)} in benchmarks/streams: "
            f"{suggest(name, names())}"
        )
    if name in TASK_LISTS:
        return TextBenchmark
    module = importlib.import_module(f"{__name__}.{name}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Stream)
        and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise DataError(
            f"benchmarks/streams/{name}.py must define exactly one Stream, but defines {len(found)}"
        )
    return found[0]


def make(mapping: Mapping[str, Any], data_dir: Path | None = None) -> Stream:
    """The stream that a suite asks for; DataError if an option is wrong or another stream's."""
    cls = load(mapping.get("name"))
    return cls(parse(cls.Options, mapping), data_dir)


def of(spec: Mapping[str, Any], data_dir: Path | None = None) -> Stream:
    """The stream of a record's `spec["stream"]`, which says more than its own options."""
    cls = load(spec["name"])
    own = {name: value for name, value in spec.items() if name in field_names(cls.Options)}
    return cls(parse(cls.Options, own), data_dir)


def place(spec: Mapping[str, Any]) -> str:
    """The name of the folder a stream is prepared in: its own, with its digest if it has options.

    Args:
        spec: a record's `spec["stream"]`.
    """
    own = any(spec.get(name) is not None for name in load(spec["name"]).content_options)
    return f"{spec['name']}-{spec['digest'][:8]}" if own else spec["name"]


def prepare(name: str, out: Path, data_dir: Path | None = None, **options) -> dict:
    """Prepare stream `name` in the folder `out` and return its manifest.

    `out/manifest.json` is written last, so a folder that has one is complete.
    """
    stream = make({"name": name, **options}, data_dir)
    out.mkdir(parents=True, exist_ok=True)
    target = out / "manifest.json"
    target.unlink(missing_ok=True)  # an old manifest must not vouch for half of the new files
    own = {"name": name, "modality": stream.modality, "fingerprint": stream.fingerprint()}
    manifest = own | stream.prepare(out)
    write_json(target, manifest)
    return manifest
