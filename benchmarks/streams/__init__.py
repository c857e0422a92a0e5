"""Streams of tasks: dropping a file in here adds one, under the file's name.

A file defines one subclass of `common.base.Stream`, by way of `VisionStream` or `LanguageStream`,
and needs no torch. Nothing is registered anywhere, and a stream may lie elsewhere: suites name its
module or its path then. Only the text benchmarks, which differ in nothing but their tasks, stand in
one table, `common.task_lists`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.text import quoted
from baselines.common import loading
from benchmarks.common.errors import DataError
from benchmarks.common.files import write_json
from benchmarks.common.options import field_names, parse
from benchmarks.streams.common.base import Stream
from benchmarks.streams.common.task_lists import TASK_LISTS, TextBenchmark

__all__ = ["load", "make", "names", "of", "place", "prepare"]


def names() -> list[str]:
    """Names of all streams, sorted. Imports none of them."""
    return sorted({*TASK_LISTS, *loading.stems(_package())})


def load(place: str) -> type[Stream]:
    """The class of a stream.

    Args:
        place: a name, a dotted module or the path of a .py file, see `loading.module_of`.

    Raises:
        DataError: there is no such stream, or its file cannot be imported or defines none.
    """
    if not isinstance(place, str):
        raise DataError(f"a stream is given by its name, but found {quoted(place)}")
    try:
        module = loading.module_of(place, _package(), names())
        name = module.rpartition(".")[2]
        return TextBenchmark if name in TASK_LISTS else loading.load_class(Stream, module)
    except ValueError as error:
        raise DataError(str(error)) from error


def make(mapping: Mapping[str, Any], data_dir: Path | None = None) -> Stream:
    """The stream that a suite asks for; DataError if an option is wrong or another stream's."""
    place = mapping.get("name")
    cls = load(place)
    name = place if place in names() else cls.__module__.rpartition(".")[2]
    stream = cls(parse(cls.Options, {**mapping, "name": name}), data_dir)
    if name not in names():
        stream.origin = place
    return stream


def of(spec: Mapping[str, Any], data_dir: Path | None = None) -> Stream:
    """The stream of a record's `spec["stream"]`, which says more than its own options.

    It has an `origin` if the stream is from outside.
    """
    place = spec.get("origin", spec["name"])
    known = field_names(load(place).Options)
    return make({k: v for k, v in spec.items() if k in known} | {"name": place}, data_dir)


def place(spec: Mapping[str, Any]) -> str:
    """The name of the folder a stream is prepared in: its own, with its digest if it has options.

    Args:
        spec: a record's `spec["stream"]`.
    """
    cls = load(spec.get("origin", spec["name"]))
    own = any(spec.get(name) is not None for name in cls.content_options)
    return f"{spec['name']}-{spec['digest'][:8]}" if own else spec["name"]


def prepare(place: str, out: Path, data_dir: Path | None = None, **options) -> dict:
    """Prepare the stream of that name, module or path in `out` and return its manifest.

    `out/manifest.json` is written last, so a folder that has one is complete.
    """
    stream = make({"name": place, **options}, data_dir)
    out.mkdir(parents=True, exist_ok=True)
    target = out / "manifest.json"
    target.unlink(missing_ok=True)  # an old manifest must not vouch for half of the new files
    manifest = {
        "name": stream.options.name,
        "modality": stream.modality,
        "fingerprint": stream.fingerprint(),
        **stream.prepare(out),
    }
    write_json(target, manifest)
    return manifest


def _package():
    return sys.modules[__name__]
