"""Digests that name content, and seeds that depend on nothing but their purpose."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from benchmarks.common.files import require_plain


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    return digest_of_file(path, "sha256")


def digest_of_file(path: Path, algorithm: str) -> str:
    """Hex digest of a file's content by one of hashlib's algorithms."""
    require_plain(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def digest_of(value: Any) -> str:
    """Hex digest of a JSON value, independent of key order."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def seed_for(seed: int, *scope: str | int) -> int:
    """A seed of its own for each purpose, so that none depends on what was drawn elsewhere."""
    text = "/".join(str(part) for part in (seed, *scope))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
