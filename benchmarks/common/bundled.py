"""What an unpacked bundle (`make bundle`) says of itself, in `bundle.json` and `SHA256SUMS`.

It brings prepared streams and backbones, and not the data and weights that they were made from: so
their digests, and all else that a plan asks of a source, are those of what was prepared. Anywhere
else there is no such file, and nothing is known.
"""

from __future__ import annotations

import functools
from pathlib import Path

from benchmarks.common import archive
from benchmarks.common.digests import sha256_of
from benchmarks.common.files import ROOT, read_json

FACTS = "bundle.json"


@functools.cache
def facts() -> dict:
    """`commit`, and manifests of `streams` (by their arguments) and `backbones` (by name)."""
    return read_json(ROOT / FACTS) if (ROOT / FACTS).exists() else {}


def manifest(kind: str, name: str) -> dict:
    """Of a stream or backbone that was brought; empty if there is none."""
    return facts().get(kind, {}).get(name, {})


def is_intact(file: Path) -> bool:
    """Whether a file is what the bundle brought."""
    place = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else None
    return _sums().get(place) == sha256_of(file)


@functools.cache
def _sums() -> dict[str, str]:
    lines = (ROOT / archive.SUMS).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
