"""Downloads that are checked, continue where they were cut off, and end whole or not at all."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.digests import digest_of_file
from benchmarks.common.errors import DataError, one_sentence
from benchmarks.common.files import require_plain, write_bytes
from benchmarks.common.progress import Progress

CONNECTIONS = 3  # tried by one call, each continuing the one before
TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 20


class _Failed(Exception):
    """One address did not give the file: why, and what the user can do."""

    def __init__(self, cause: str, remedy: str):
        super().__init__(cause)
        self.cause, self.remedy = cause, remedy


def fetch(urls: str | Sequence[str], digest: str | None, target: Path) -> Path:
    """Download a file to `target` unless it is already there, and check its digest.

    Args:
        urls: where it is: one address, or mirrors that are tried in this order.
        digest: of the content in hex, SHA-256, or another after its name ("md5:..."). None trusts
            the first download: its SHA-256 is recorded in `target.sha256` beside the file and
            required ever after.
        target: the name the file takes once it is complete and checked. Until then it grows as
            `target.part`, which a later call or another mirror continues if there is a digest to
            check it by.

    Returns:
        `target`.

    Raises:
        DataError: no network, a connection that keeps breaking, a wrong digest, a full disk, no
            plain file in the way; where there are several addresses, what happened at each.
    """
    urls = [urls] if isinstance(urls, str) else list(urls)
    record = target.with_name(f"{target.name}.sha256")
    part = target.with_name(f"{target.name}.part")
    for file in (target, record, part):
        if file.exists():
            require_plain(file)
    trusting = digest is None
    if trusting and record.exists():
        digest = _recorded(record)
    if target.exists():
        algorithm, wanted, found = _digests(digest, target)
        if wanted not in (None, found):
            raise DataError(
                f"{target} should have {algorithm} {wanted}, it has {found}: "
                "delete it and run again"
            )
    else:
        found = _fetch_first(urls, digest, target, part)
    if trusting and not record.exists():
        write_bytes(record, f"{found}\n".encode())
    return target


def _recorded(record: Path) -> str:
    """The SHA-256 of the first download."""
    digest = record.read_bytes().strip().decode("ascii", "replace")
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise DataError(
            f"{record} needs the SHA-256 of the first download, it has {digest!r:.80}: delete it, "
            "and the file beside it unless you trust that"
        )
    return digest


def _digests(digest: str | None, file: Path) -> tuple[str, str | None, str]:
    """The algorithm that `digest` names, the digest it wants, and the one that the file has."""
    algorithm, _, wanted = (digest or "").rpartition(":")
    algorithm = algorithm or "sha256"
    with one_sentence(f"{file} cannot be read", "correct its permissions"):
        return algorithm, wanted.lower() or None, digest_of_file(file, algorithm)


def _fetch_first(urls: Sequence[str], digest: str | None, target: Path, part: Path) -> str:
    """Download from the first address that gives the file; returns the digest of what came."""
    part.parent.mkdir(parents=True, exist_ok=True)
    causes = []
    for url in urls:
        if digest is None:
            part.unlink(missing_ok=True)
        try:
            _download(url, part, target)
            algorithm, wanted, found = _digests(digest, part)
            if wanted not in (None, found):
                part.unlink()
                raise _Failed(
                    f"{url} should have {algorithm} {wanted}, what came has {found} and was "
                    "removed",
                    f"run again, or put the right file at {target}",
                )
        except _Failed as failed:
            causes.append(failed.cause)
            last = failed
        else:
            part.replace(target)
            return found
    raise DataError(f"{'; '.join(causes)}: {last.remedy}") from last


def _download(url: str, part: Path, target: Path) -> None:
    """Let `part` grow until it holds all of `url`."""
    for connection in range(CONNECTIONS):
        time.sleep(connection)
        try:
            received, total = _connect(url, part)
        except urllib.error.HTTPError as error:
            raise _Failed(
                f"{url} could not be downloaded, the server answered {error.code} {error.reason}",
                f"put the file at {target}",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            cause = f"{getattr(error, 'reason', None) or error or type(error).__name__}"
        else:
            if received == total:
                return
            cause = f"it broke off after {received} of {total} bytes"
    raise _Failed(
        f"{url} could not be downloaded ({cause})",
        f"check the network and run again to continue, or put the file at {target}",
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
        total = received + int(length) if (length or "").isdecimal() else None
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
