"""Downloads that are checked, continue where they were cut off, and end whole or not at all."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.files import DataError, sha256_of, write_bytes
from benchmarks.progress import Progress

CONNECTIONS = 3  # tried by one call, each continuing the one before
TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 20


def fetch(url: str, sha256: str | None, target: Path) -> Path:
    """Download `url` to `target` unless it is already there, and check its digest.

    Args:
        url: what to fetch.
        sha256: hex digest of the content. None trusts the first download: its digest is recorded
            in `target.sha256` beside the file and required ever after.
        target: the name the file takes once it is complete and checked. Until then it grows as
            `target.part`, which a later call continues if there is a digest to check it by.

    Returns:
        `target`.

    Raises:
        DataError: no network, a connection that keeps breaking, a wrong digest, a full disk.
    """
    record = target.with_name(f"{target.name}.sha256")
    if sha256 is None and record.exists():
        sha256 = record.read_text(encoding="utf-8").strip()
    if target.exists():
        found = sha256_of(target)
        if sha256 not in (None, found):
            raise DataError(
                f"{target} should have sha256 {sha256}, it has {found}: delete it and run again"
            )
    else:
        part = target.with_name(f"{target.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        if sha256 is None:
            part.unlink(missing_ok=True)
        _download(url, part, target)
        found = sha256_of(part)
        if sha256 not in (None, found):
            part.unlink()
            raise DataError(
                f"{url} should have sha256 {sha256}, what came has {found} and was "
                f"removed: run again, or put the right file at {target}"
            )
        part.replace(target)
    if sha256 is None:
        write_bytes(record, f"{found}\n".encode())
    return target


def _download(url: str, part: Path, target: Path) -> None:
    """Let `part` grow until it holds all of `url`."""
    for connection in range(CONNECTIONS):
        time.sleep(connection)
        try:
            received, total = _connect(url, part)
        except urllib.error.HTTPError as error:
            raise DataError(
                f"{url} could not be downloaded, the server answered {error.code} "
                f"{error.reason}: put the file at {target}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            cause = f"{getattr(error, 'reason', None) or error or type(error).__name__}"
        else:
            if received == total:
                return
            cause = f"it broke off after {received} of {total} bytes"
    raise DataError(
        f"{url} could not be downloaded ({cause}): check the network and run again to "
        f"continue, or put the file at {target}"
    )


def _connect(url: str, part: Path) -> tuple[int, int]:
    """One connection: the number of bytes `part` has after it, and the number it should have."""
    received = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "treelora-replication"})
    if received:
        request.add_header("Range", f"bytes={received}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range") == f"bytes */{received}":  # all of it is there
            return received, received
        part.unlink()
        return 0, -1  # more than all of it: start over
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            received = 0
        length = response.headers.get("Content-Length")
        total = received + int(length) if length else None
        progress = Progress(part.stem, total and total / 1e6, "MB", done=received / 1e6)
        try:
            file = open(part, "ab" if received else "wb", buffering=0)
        except OSError as error:
            raise _unwritable(part, error) from error
        with file:
            while chunk := response.read(CHUNK_BYTES):
                received += len(chunk)
                rest = memoryview(chunk)
                try:
                    while rest:
                        rest = rest[file.write(rest) :]
                except OSError as error:
                    raise _unwritable(part, error) from error
                progress.advance(len(chunk) / 1e6)
    return received, received if total is None else total


def _unwritable(part: Path, error: OSError) -> DataError:
    return DataError(
        f"{part} could not be written ({error.strerror}): make room and run again to continue"
    )
