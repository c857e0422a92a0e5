"""A tar archive that the same files make the same, with the digest of each in `SHA256SUMS`."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.common.errors import DataError

SUMS = "SHA256SUMS"  # `sha256sum --check` reads it
Source = Path | bytes  # of a file's content


def write(target: Path, files: Mapping[str, Source], time: int) -> str:
    """Write an archive whole or not at all; returns its SHA-256.

    Args:
        target: its name, without suffix, is the folder that all of it unpacks into.
        files: by their path in that folder; links are followed.
        time: of all files, in seconds since 1970, as none may seem newer than another.

    Raises:
        DataError: there is no room for it.
    """
    n_bytes = sum(map(size, files.values()))
    if (free := shutil.disk_usage(target.parent).free) < 1.01 * n_bytes:
        raise DataError(
            f"{target} needs {readable(n_bytes)}, but {readable(free)} are free: make room"
        )
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    sums = ""
    try:
        with open(part, "wb") as file:
            whole = _Digesting(file)
            with tarfile.open(fileobj=whole, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                for path in sorted(files):
                    digest = _add(archive, f"{target.stem}/{path}", files[path], time)
                    sums += f"{digest}  {path}\n"
                _add(archive, f"{target.stem}/{SUMS}", sums.encode(), time)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return whole.digest.hexdigest()


def _add(archive: tarfile.TarFile, path: str, source: Source, time: int) -> str:
    member = tarfile.TarInfo(path)  # of nobody
    member.size, member.mtime = size(source), time
    if isinstance(source, Path) and source.stat().st_mode & 0o100:
        member.mode = 0o755
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        content = _Digesting(file)
        archive.addfile(member, content)
    return content.digest.hexdigest()


class _Digesting:
    """A file, and the SHA-256 of what was written to it or read from it."""

    def __init__(self, file):
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def read(self, n: int) -> bytes:
        data = self._file.read(n)
        self.digest.update(data)
        return data


def size(source: Source) -> int:
    """Bytes of a file's content."""
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def readable(n_bytes: float) -> str:
    """As 3.1 GB or 0.2 MB."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"
