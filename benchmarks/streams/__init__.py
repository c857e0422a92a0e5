"""Streams of tasks: one module per stream, found by its file name.

A stream module needs no torch and exposes

    MODALITY       "vision" or "language"
    N_TASKS        number of tasks (of a class split: the default number)
    N_CLASSES      of a class split: number of classes
    N_ITEMS        optional, for estimates of time: the whole stream's "train" and "test" items and,
                   on vision, its "classes", as a mapping
    N_TOKENS       optional, for the same, on language: of each task the tokens of a training item,
                   of a test prompt and of an answer
    fingerprint(data_dir)      hex digest that names the exact content, without preparing it
    prepare(out, data_dir)     writes the data files into the folder `out`, returns the manifest

A stream whose content depends on the suite file names those fields of `StreamOptions` in OPTIONS.
Both functions then take them as keyword arguments, and each content is prepared in a folder of its
own (`place`). `n_classes(**options)` stands for N_CLASSES and `n_items(**options)`, which may
return None, for N_ITEMS; N_TASKS may be None, `n_tasks(**options)` stands for it if there is one.
Instead of all this a module may have one object `stream` with these attributes.
A new stream is a new file in this folder and nothing else.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common.files import DataError, write_json

__all__ = ["load", "names", "own_options", "place", "prepare"]


def names() -> list[str]:
    """Names of all streams, sorted."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in found if not name.startswith("_"))


def load(name: str) -> Any:
    """Stream `name`, a module or its `stream`; DataError with the nearest name if there is none."""
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}."
        raise DataError(f"There is no stream named {name!r} in benchmarks/streams: {hint}")
    module = importlib.import_module(f"{__name__}.{name}")
    return getattr(module, "stream", module)


def own_options(spec: Mapping) -> dict:
    """The options in a stream's spec that its content depends on, those that are None left out."""
    names = getattr(load(spec["name"]), "OPTIONS", ())
    return {name: spec[name] for name in names if spec.get(name) is not None}


def place(spec: Mapping) -> str:
    """The name of the folder a stream is prepared in: its own, with its digest if it has options.

    Args:
        spec: a record's `spec["stream"]`.
    """
    return f"{spec['name']}-{spec['digest'][:8]}" if own_options(spec) else spec["name"]


def prepare(name: str, out: Path, data_dir: Path | None = None, **options) -> dict:
    """Prepare stream `name` in the folder `out` and return its manifest.

    `out/manifest.json` is written last, so a folder that has one is complete.
    """
    stream = load(name)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    target = out / "manifest.json"
    target.unlink(missing_ok=True)  # an old manifest must not vouch for half of the new files
    manifest = stream.prepare(out, Path(data_dir) if data_dir else None, **options)
    write_json(target, manifest)
    return manifest
