"""Where data comes from: folders, archives and parquet tables, of which nothing is believed.

No size counts that a file says of itself. An archive is read member by member and never unpacked;
one that holds absolute paths, `..`, links or sparse files is refused, and so are devices and names
that cannot be printed.

Names are compared composed (NFC): a folder that was copied from a Mac, which may write the letter
and its accent apart, is the same folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tarfile
import time
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import IO

from benchmarks.common.digests import digest_of_file
from benchmarks.common.errors import DataError, one_sentence
from benchmarks.common.files import require_plain, write_json

DIGESTS = Path("resources/digests")

MAX_BYTES = 1 << 28  # of one image file, and of one member of an archive
MAX_MEMBERS = 200_000  # of an archive
MAX_HEADER_BYTES = 1 << 20  # of the headers before a tar member


# ---------------------------------------------------------------------------- names


def composed(name: str) -> str:
    """The name with each letter and its accents as one character, where there is one."""
    return unicodedata.normalize("NFC", name)


def require_printable(name: str, place: object) -> None:
    """DataError for a name with a line break, a control character or bytes that are no UTF-8.

    Any other is accepted: spaces of every width, joiners, letters younger than this Python.
    """
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
        raise DataError(f"{place} holds the name {name!a}, which cannot be printed: rename it")


# ---------------------------------------------------------------------------- digests


def digest_of_files(files: Mapping[str, Path]) -> str:
    """Digest of several files' names, sizes and contents; names have no line breaks."""
    digests = remembered(files.values(), "sha256")
    lines = (
        f"{digest} {file.stat().st_size} {name}\n"
        for (name, file), digest in zip(files.items(), digests, strict=True)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def remembered(files: Iterable[Path], algorithm: str) -> list[str]:
    """Digests of files, computed anew where size or time of change are not the remembered ones.

    A plan asks for them each time. They are remembered below `DIGESTS`, unless a file is so young
    that a second change of it might show the same time.
    """
    files = list(files)
    if not files:
        return []
    root = os.path.commonpath([file.absolute().parent for file in files])
    path = DIGESTS / f"{hashlib.sha256(f'{algorithm} {root}'.encode()).hexdigest()[:12]}.json"
    known = recall(path)
    result, fresh = [], {}
    for file in files:
        try:
            status, name = file.stat(), str(file.absolute())
            size_and_time = [status.st_size, status.st_mtime_ns]
            if known.get(name, [])[:2] != size_and_time:
                known[name] = [*size_and_time, digest_of_file(file, algorithm)]
                fresh[name] = time.time() - status.st_mtime > 2
            result.append(known[name][2])
        except OSError as error:
            raise unreadable(file, error) from error
    if any(fresh.values()):
        remember(path, {name: entry for name, entry in known.items() if fresh.get(name, True)})
    return result


def recall(path: Path) -> dict:
    """What was remembered in a file; nothing if that was never written, or is damaged."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def remember(path: Path, known: dict) -> None:
    """For the next time, if there is room."""
    with suppress(DataError):
        write_json(path, known)


# ---------------------------------------------------------------------------- contents


def unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path} cannot be read ({error.strerror or error}): correct its permissions or remove it"
    )


def content(file: Path, most: float | None = None) -> bytes:
    """The content of a plain file of at most `most` bytes, by default `MAX_BYTES`."""
    try:
        require_plain(file)
        return _whole(partial(open, file, "rb"), str(file), most)
    except OSError as error:
        raise unreadable(file, error) from error


def _whole(opened: Callable[[], IO[bytes]], where: str, most: float | None = None) -> bytes:
    """The content, of which no more is read than is allowed, whatever size it says it has."""
    most, data = MAX_BYTES if most is None else most, bytearray()
    with opened() as file:
        while piece := file.read(1 << 20):
            data += piece
            if len(data) > most:
                raise DataError(
                    f"{where} has more than {most >> 20} MiB, the most that is read of an image "
                    "or of a file in an archive: make it smaller or unpack the archive"
                )
    return bytes(data)


# ---------------------------------------------------------------------------- folders


class Files:
    """Files on the disk by name.

    Attributes:
        place: the folder they belong to.
        paths: where each one is.
        most: bytes that are read of one, by default `MAX_BYTES`.
    """

    def __init__(self, place: Path, paths: Mapping[str, Path], most: float | None = None):
        self.place, self.paths, self.most = place, paths, most

    @property
    def names(self) -> list[str]:
        return list(self.paths)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Names and contents."""
        for name in names:
            yield name, content(self.paths[name], self.most)

    def where(self, name: str) -> str:
        """A file in words."""
        return str(self.paths[name])

    def digests(self, names: Iterable[str]) -> list[str]:
        """SHA-256 of the files' contents."""
        return remembered([self.paths[name] for name in names], "sha256")


def folders_in(folder: Path) -> dict[str, Path]:
    """The folders in a folder by name, sorted, without hidden ones."""
    return {name: path for name, path in _listed(folder).items() if path.is_dir()}


def files_in(folder: Path) -> dict[str, Path]:
    """The files in a class folder by name, sorted, without hidden ones; it has no folders."""
    files = _listed(folder)
    for name, path in files.items():
        if path.is_dir():
            raise DataError(
                f"{folder} needs images only, it holds the folder {name}: a class is one folder, "
                "move it out"
            )
    return files


def _listed(folder: Path) -> dict[str, Path]:
    """What a folder holds by its composed name, sorted, without what is hidden."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError as error:
        raise unreadable(folder, error) from error
    found: dict[str, Path] = {}
    for name in sorted(names, key=lambda name: (composed(name), name)):
        require_printable(name, folder)
        if composed(name) in found:
            raise DataError(
                f"{folder} holds the name {composed(name)!r} twice, once with letters and accents "
                "apart: put both under one name"
            )
        found[composed(name)] = folder / name
    return found


# ---------------------------------------------------------------------------- archives


class Archive:
    """Files in a tar or zip file, by their paths in it; a subclass may name them otherwise.

    Attributes:
        place: the archive.
        origin: where a good one comes from.
    """

    def __init__(self, place: Path, origin: str):
        self.place, self.origin = place, origin

    @cached_property
    def members(self) -> dict[str, int]:
        """The position of each file; of twins that of the last one, which unpacking would leave."""
        return {path: i for i, path, _ in self._walk(lambda *_: False)}

    @cached_property
    def paths(self) -> dict[str, str]:
        """The path in the archive of each file by its name."""
        return {path: path for path in self.members}

    @property
    def names(self) -> list[str]:
        return list(self.paths)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Names and contents, in the order of the archive."""
        wanted = {self.paths[name]: name for name in names}
        for _, path, data in self._walk(lambda i, path: path in wanted and self.members[path] == i):
            if data is not None:
                yield wanted[path], data

    def where(self, name: str) -> str:
        """A file in words."""
        return f"{self.paths[name]} in {self.place}"

    def _walk(self, wanted: Callable[[int, str], bool]) -> Iterator[tuple[int, str, bytes | None]]:
        """Position and path of all files, after a look at every member, and content if wanted."""
        with one_sentence(
            f"{self.place} is truncated or no archive that can be trusted",
            f"get another from {self.origin}, or unpack it yourself",
        ):
            require_plain(self.place)
            with open(self.place, "rb") as file:
                members = _zip_members if file.read(4) == b"PK\3\4" else _tar_members
            for i, (name, link, plain, opened) in enumerate(members(self.place)):
                if i == MAX_MEMBERS:
                    raise ValueError(f"it has more than {MAX_MEMBERS:,} members")
                path = PurePosixPath(name.replace("\\", "/"))
                if link or path.is_absolute() or ".." in path.parts:
                    kind = "link" if link else "path"
                    raise ValueError(f"the {kind} {name!a:.99} could lead outside its folder")
                require_printable(name, self.place)
                if plain:
                    where = f"{path} in {self.place}"
                    yield i, str(path), _whole(opened, where) if wanted(i, str(path)) else None


Member = tuple[str, bool, bool, Callable[[], IO[bytes]]]  # name, whether link and file, and content


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            link = stat.S_ISLNK(member.external_attr >> 16)
            yield member.filename, link, not member.is_dir(), partial(opened.open, member)


def _tar_members(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive, tarinfo=_Header) as opened:
        for member in opened:
            if member.issparse():
                raise _sparse(member)
            link = member.islnk() or member.issym()
            yield member.name, link, member.isfile(), partial(opened.extractfile, member)


class _Header(tarfile.TarInfo):
    """A member's header, believed only within limits."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        header = super().frombuf(buf, encoding, errors)
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise _sparse(header)
        if header.size > MAX_HEADER_BYTES and header.type not in (b"0", b"\0", b"5", b"7"):
            raise ValueError(f"it has a header of {header.size:,} bytes")
        return header


def _sparse(member: tarfile.TarInfo) -> ValueError:
    return ValueError(f"the sparse file {member.name!a:.99} can claim any size")


# ---------------------------------------------------------------------------- parquet


def batches(file: Path, columns: list[str]) -> Iterator:
    """The rows of a parquet file, few at a time: of a repeated one, each is its full size."""
    import pyarrow.parquet

    require_plain(file)
    with pyarrow.parquet.ParquetFile(file) as table:
        yield from table.iter_batches(batch_size=8, columns=columns)


def class_names(file: Path, column: str) -> list[str] | None:
    """The names of a column's whole numbers, where the parquet file was written with them."""
    import datasets
    import pyarrow.parquet

    require_plain(file)
    with suppress(TypeError, KeyError, ValueError, RecursionError):  # a table without can be whole
        feature = datasets.Features.from_arrow_schema(pyarrow.parquet.read_schema(file))[column]
        if isinstance(feature, datasets.ClassLabel):
            return feature.names
    return None
