"""Downloads that are checked, continue where they were cut off, and end whole or not at all."""

from __future__ import annotations

import errno
import http.client
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from benchmarks.files import DataError, sha256_of, write_bytes

ATTEMPTS = 3  # connections, each of which continues the one before
TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 20


def fetch(url: str, sha256: str | None, target: Path) -> Path:
    """Download `url` to `target` unless it is already there, and check its digest.

    Args:
        url: what to fetch.
        sha256: hex digest of the content. None trusts the first download: its digest is recorded
            in `target.sha256` beside the file and required ever after.
        target: the name the file takes once it is complete and checked; until then it grows as
            `target.part`, which a later call continues.

    Returns:
        `target`.

    Raises:
        DataError: no network, a connection that keeps breaking, a wrong digest, a full disk.
    """
    record = target.with_name(f"{target.name}.sha256")
    expected = sha256 or (record.read_text(encoding="utf-8").strip() if record.exists() else None)
    if target.exists():
        found = sha256_of(target)
        if expected is not None and found != expected:
            raise DataError(
                f"{target} should have sha256 {expected}, it has {found}: delete it and run again")
    else:
        part = target.with_name(f"{target.name}.part")
        _complete(url, part)
        found = sha256_of(part)
        if expected is not None and found != expected:
            _forget(part)
            raise DataError(f"{url} should have sha256 {expected}, the download has {found}: it "
                            f"was removed; run again, or put the right file at {target}")
        part.replace(target)
        _forget(part)
    if expected is None:
        write_bytes(record, f"{found}\n".encode())
    return target


def _complete(url: str, part: Path) -> None:
    """Let `part` grow until it holds all of `url`."""
    part.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            received, total = _connect(url, part)
        except urllib.error.HTTPError as error:
            raise DataError(f"{url} could not be downloaded, the server answered "
                            f"{error.code} {error.reason}: {_remedy(part)}") from error
        except _DiskError as error:
            raise DataError(f"{part} could not be written ({error}): make room and run again, "
                            "what was downloaded is kept") from error
        except (OSError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS:
                reason = getattr(error, "reason", None) or error
                raise DataError(f"{url} could not be downloaded ({reason}): check the network and "
                                f"run again, or {_remedy(part)}") from error
        else:
            if total is None or received == total:
                return
            if attempt == ATTEMPTS:
                raise DataError(f"{url} broke off after {received} of {total} bytes: run again to "
                                f"continue, or {_remedy(part)}")
        time.sleep(attempt - 1)


def _remedy(part: Path) -> str:
    return f"put the file at {part.with_suffix('')}"


def _connect(url: str, part: Path) -> tuple[int, int | None]:
    """One connection; the bytes of `part` after it, and how many there should be if known."""
    tag = _tag(part)
    offset = part.stat().st_size if part.exists() and tag.exists() else 0
    headers = {"User-Agent": "treelora-replication"}
    if offset:
        # Only a continuation of the very same content is one: If-Range asks for all of it else.
        headers |= {"Range": f"bytes={offset}-", "If-Range": tag.read_text(encoding="utf-8")}
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and offset:  # nothing lies beyond what is there
            size = re.search(r"/(\d+)$", error.headers.get("Content-Range", ""))
            if size and int(size[1]) == offset:
                return offset, offset
            _forget(part)
            return 0, -1
        raise
    with response:
        continued = response.status == 206
        if continued and not _starts_at(response, offset):
            _forget(part)
            return 0, -1
        received = offset if continued else 0
        length = response.headers.get("Content-Length")
        total = received + int(length) if length else None
        show = _progress(part.with_suffix("").name, received, total)
        with _writing(part, "ab" if continued else "wb") as file:
            # A weak validator does not promise the same bytes, so it cannot be continued.
            validator = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            if validator and not validator.startswith("W/"):
                write_bytes(tag, validator.encode())
            else:
                tag.unlink(missing_ok=True)
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                received += len(chunk)
                show(received)
    return received, total
