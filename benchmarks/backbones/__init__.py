"""Backbones: a name leads to a network, the file or the recipe that its weights come from.

`catalogue.toml` lists those that have a name of their own, by kind: `embedded` ones are pre-trained
here, a `timm_file` is a checkpoint of a vision transformer, a model of the `hub` and a `gguf_file`
are causal language models. Of the last three any other is named by its file, folder or commit.
"""

import tomllib
from pathlib import Path

from analysis.text import suggest
from benchmarks.backbones import gguf_file, hub, timm_file
from benchmarks.backbones.base import NORMALISATIONS, Backbone
from benchmarks.backbones.causal import CausalModel
from benchmarks.backbones.embedded import Embedded
from benchmarks.backbones.gguf_file import GgufFile
from benchmarks.backbones.hub import HubModel
from benchmarks.backbones.timm_file import TimmFile
from benchmarks.common.errors import DataError
from benchmarks.common.options import parse

__all__ = [
    "NORMALISATIONS",
    "Backbone",
    "CausalModel",
    "Embedded",
    "GgufFile",
    "HubModel",
    "TimmFile",
    "find",
    "overview",
]

KINDS = {"here": Embedded, "file": TimmFile, "hub": HubModel, "gguf": GgufFile}
_catalogue = tomllib.loads((Path(__file__).parent / "catalogue.toml").read_text(encoding="utf-8"))


def _entry(kind: str, name: str, facts: dict) -> Backbone:
    own = facts["architecture"]
    architecture = _catalogue["architectures"][own] if isinstance(own, str) else own
    return parse(KINDS[kind], facts | {"name": name, "architecture": architecture})


BACKBONES: dict[str, Backbone] = {
    name: _entry(kind, name, facts) for kind in KINDS for name, facts in _catalogue[kind].items()
}


def find(name: str) -> Backbone:
    """The backbone of that name; DataError with a near name otherwise."""
    if name.startswith(timm_file.PREFIX):
        return TimmFile.named(name)
    if name.startswith(hub.PREFIX):
        return HubModel.named(name)
    if name.startswith(gguf_file.PREFIX):
        return GgufFile.named(name)
    if name not in BACKBONES:
        raise DataError(f"no backbone is called {name!r}: {suggest(name, BACKBONES)}")
    return BACKBONES[name]


def overview() -> str:
    """The backbones from outside as a table in Markdown."""
    rows = [["Name", "Pre-training", "Labels seen", "Pixels", "Source", "Pinned by"], 6 * [":---"]]
    for b in BACKBONES.values():
        if not isinstance(b, Embedded):
            pixels = b.normalisation if b.modality == "vision" else "–"
            rows.append([f"`{b.name}`", b.pretraining, b.labels, pixels, b.source, b.pinned])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
