"""The result record of a run: what was asked, what was measured, and what it was made with."""

from __future__ import annotations

import datetime
import hashlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from analysis.text import quoted
from benchmarks.common import bundled
from benchmarks.common.digests import sha256_of
from benchmarks.common.errors import DataError
from benchmarks.common.files import ROOT, read_json, write_json

SCHEMA = 1
_KEYS = {"schema", "status", "error", "key", "spec"}
_PACKAGES = ("torch", "timm", "transformers", "peft", "avalanche-lib", "numpy")
_CODE = ("treelora", "baselines", "benchmarks")


def write_record(path: Path, record: dict) -> None:
    """Save a record atomically; a value that is not finite is refused."""
    write_json(path, {"schema": SCHEMA} | record)


def read_record(path: Path, key: str) -> dict:
    """Read a record; DataError if it is corrupt, of another schema or of another run."""
    record = read_json(path)
    if not isinstance(record, dict) or not record.keys() >= _KEYS:
        raise DataError(f"{path} is no result record: delete it and run again")
    if record["schema"] != SCHEMA:
        raise DataError(
            f"{path} has schema {quoted(record['schema'])}, but this version reads {SCHEMA}: "
            f"delete it and run again"
        )
    if record["key"] != key:
        raise DataError(
            f"{path} belongs to run {quoted(record['key'])}, not {key}: delete it and run again"
        )
    failed = record["status"] == "failed" and isinstance(record["error"], str)
    spec = record["spec"]
    whole = isinstance(spec, dict) and all(
        isinstance(spec.get(part), dict) for part in ("stream", "backbone", "method")
    )
    if not whole or not (failed or record["status"] == "done"):
        raise DataError(f"{path} is damaged: delete it and run again")
    return without_curve(record)


def without_curve(record: dict) -> dict:
    """A record without the losses of its steps, which earlier versions kept."""
    return {name: value for name, value in record.items() if name != "curve"}


def provenance() -> dict:
    """Commit, code and lock digests and package versions; no names of hosts or users.

    Code that git does not track is dirty as well: Python finds it all the same. An unpacked bundle
    has no git, and knows its commit and the files that this had.
    """
    code = hashlib.sha256()
    for path in sorted(p for folder in _CODE for p in (ROOT / folder).rglob("*.py")):
        code.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    lock = ROOT / "requirements.lock"
    commit = bundled.facts().get("commit")
    return {
        "commit": commit or git("rev-parse", "HEAD"),
        "dirty": _differs_from_bundle() if commit else _differs_from_commit(),
        "source_digest": code.hexdigest(),
        "lock_digest": sha256_of(lock) if lock.exists() else None,
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "python": ".".join(map(str, sys.version_info[:3])),
    }


def _differs_from_commit() -> bool:
    """Where git does not answer it is not known to be committed."""
    untracked = [f"{folder}/*.{kind}" for folder in _CODE for kind in ("py", "toml")]
    changed = git("status", "--porcelain", "--untracked-files=no")
    return changed != "" or git("ls-files", "--others", "--", *untracked) != ""


def _differs_from_bundle() -> bool:
    kinds = (f"{folder}/**/*.{kind}" for folder in _CODE for kind in ("py", "toml"))
    files = (file for kind in kinds for file in ROOT.glob(kind))
    return not all(map(bundled.is_intact, (ROOT / "requirements.lock", *files)))


def now() -> str:
    """This second in UTC, as records have it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def is_committed(file: Path) -> bool:
    """Whether git or a bundle has a user's file as it is; `provenance` looks at the project's.

    Of a file in no repository, such as one that pip has installed, no commit says what it was.
    """
    if any(file.is_relative_to(ROOT / folder) for folder in _CODE):
        return True
    if bundled.facts():
        return bundled.is_intact(file)
    named = ("--", file.name)
    tracked = git("ls-files", "--error-unmatch", *named, folder=file.parent)
    return bool(tracked) and git("status", "--porcelain", *named, folder=file.parent) == ""


def sources_in(path: Path) -> dict[str, str]:
    """The digests of code in a record, none if it is damaged or older than them."""
    try:
        found = read_json(path)["provenance"]["sources"]
    except (DataError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def git(*arguments: str, folder: Path | None = None) -> str | None:
    """What git says in a folder, by default the checkout; None where it does not answer."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder or ROOT, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
