"""Published datasets of images: where they are looked for, and where they are downloaded from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar

from benchmarks.common.download import fetch
from benchmarks.common.errors import DataError, one_sentence
from benchmarks.streams.common import pictures
from benchmarks.streams.common.base import VisionStream
from benchmarks.streams.common.sources import (
    Archive,
    Files,
    batches,
    class_names,
    digest_of_files,
    files_in,
    folders_in,
    remembered,
)
from benchmarks.streams.common.splits import Splits

DOWNLOADS = Path("resources/downloads")


def download(urls: tuple[str, ...], digest: str, archive: str, data_dir: Path | None) -> Path:
    """The official archive in the data directory, among other downloads if that is read-only."""
    writable = data_dir is not None and os.access(data_dir, os.W_OK)
    return fetch(urls, digest, (data_dir if writable else DOWNLOADS) / archive)


def incomplete(found: str) -> DataError:
    """A copy that lacks what a dataset has."""
    return DataError(f"{found}: use a complete copy")


class Copy(Archive):
    """An archive of a dataset; its images are named "class/file", its text files "file"."""

    title = "a copy of the archive"

    def __init__(self, place: Path, dataset: type[CanonicalStream]):
        super().__init__(place, dataset.urls[0])
        self._dataset = dataset

    @cached_property
    def paths(self) -> dict[str, str]:
        root, texts = PurePosixPath(self._dataset.folder), self._dataset.texts
        image = re.compile(rf"{re.escape(str(root / self._dataset.images))}/([^/]+/[^/.][^/]*)")
        images = filter(None, map(image.fullmatch, sorted(self.members)))
        found = {text: str(root / text) for text in texts if str(root / text) in self.members}
        return found | {match[1]: match[0] for match in images}

    def fingerprint(self) -> str:
        return _of_archive(remembered([self.place], "md5")[0])


class Folder(Files):
    """A folder of a dataset; its images are named "class/file", its text files "file"."""

    title = "a folder of images"

    def __init__(self, place: Path, dataset: type[CanonicalStream]):
        classes = folders_in(place / dataset.images)
        images = {f"{c}/{n}": p for c, own in classes.items() for n, p in files_in(own).items()}
        super().__init__(place, {text: place / text for text in dataset.texts} | images)

    def fingerprint(self) -> str:
        return pictures.digest_as_read(digest_of_files(self.paths))


class Parquet:
    """A Hugging Face copy: the column `image` with bytes and file name, and one with the class.

    Args:
        place: the folder of the tables.
        tables: below it; their paths tell the split.
        column: of the class; where it holds numbers, the table must name them.
    """

    title = "a parquet copy"

    def __init__(self, place: Path, tables: list[Path], column: str):
        self.place, self.tables, self._column = place, tables, column

    @cached_property
    def names(self) -> list[str]:
        return sorted(self.splits)

    @cached_property
    def splits(self) -> dict[str, str]:
        """The split of each image; "" where the table's name does not tell."""
        result: dict[str, str] = {}
        for file in self.tables:
            parts = file.relative_to(self.place).parts
            split = next((s for s in ("train", "test") for p in parts if p.startswith(s)), "")
            for name, _ in self._rows(file, "path"):
                if name in result:
                    raise DataError(f"{file} holds {name} a second time: use one complete copy")
                result[name] = split
        return result

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Names and contents, in the order of the tables."""
        wanted = set(names)
        for file in self.tables:
            for name, content in self._rows(file, "bytes"):
                if name in wanted:
                    yield name, content or b""

    def where(self, name: str) -> str:
        """An image in words."""
        return f"{name} in {self.place}"

    def fingerprint(self) -> str:
        return pictures.digest_as_read(
            digest_of_files({str(t.relative_to(self.place)): t for t in self.tables})
        )

    def _rows(self, file: Path, field: str) -> Iterator[tuple[str, bytes | str]]:
        """The name of each image, "class/file", with a field of it."""
        with one_sentence(
            f"{file} needs the columns image (bytes and path) and {self._column} (with the "
            "classes' names) of a whole parquet file",
            "use another copy, or the archive",
        ):
            titles = dict(enumerate(class_names(file, self._column) or ()))
            for batch in batches(file, sorted({"image.path", f"image.{field}", self._column})):
                classes = batch.column(self._column).to_pylist()
                if titles:
                    classes = [titles[c] for c in classes]
                paths = batch.column("image").field("path").to_pylist()
                for value in (*classes, *paths):
                    if not isinstance(value, str):
                        raise TypeError(f"{value!r:.60} stands where a name is needed")
                values = batch.column("image").field(field).to_pylist()
                for own, path, value in zip(classes, paths, values, strict=True):
                    yield f"{own}/{PurePosixPath(path).name}", value


Source = Copy | Folder | Parquet


def _of_archive(md5: str) -> str:
    """Of an archive known by its published MD5: the same before the download and after."""
    return pictures.digest_as_read(f"md5:{md5}")


class CanonicalStream(VisionStream):
    """A published dataset, split into tasks of classes, and the places it is looked for.

    Attributes:
        title: as it is called.
        archive: the official archive's file name.
        md5: its published digest.
        urls: its official addresses.
        folder: the name of its top folder, in the data directory and in the archive.
        images: the folder of the class folders in there.
        column: the class column of a parquet copy.
        texts: the text files it needs from the top folder.
        rule: in words for the manifest, how `split` parts training from test.
    """

    n_tasks = 10
    title: ClassVar[str]
    archive: ClassVar[str]
    md5: ClassVar[str]
    urls: ClassVar[tuple[str, ...]]
    folder: ClassVar[str]
    images: ClassVar[str]
    column: ClassVar[str]
    texts: ClassVar[tuple[str, ...]] = ()
    rule: ClassVar[str]

    def fingerprint(self) -> str:
        """Digest of what would be read; the same for the official archive, fetched or not."""
        source = self._find()
        return source.fingerprint() if source else _of_archive(self.md5)

    def prepare(self, out: Path) -> dict:
        """Write the images and labels into `out`, downloading the archive if no source is found."""
        source = self._find()
        if source is None:
            file = download(self.urls, f"md5:{self.md5}", self.archive, self.data_dir)
            source = Copy(file, type(self))
        official = source.fingerprint() == _of_archive(self.md5)
        return pictures.store(
            out,
            source,
            self.options.name,
            *self.split(source),
            source=f"{self.title}, {'official archive' if official else source.title}",
            split=self.rule,
        )

    def _find(self) -> Source | None:
        """The first of archive, parquet copy and folder, in the data directory or downloaded."""
        for place in filter(None, (self.data_dir, DOWNLOADS)):
            root = place / self.folder
            for file in (place / self.archive, root / self.archive):
                if file.exists():
                    return Copy(file, type(self))
            if tables := sorted(root.glob("**/*.parquet")):
                return Parquet(root, tables, self.column)
            images = root / self.images
            if images.is_dir() and folders_in(images):
                return Folder(root, type(self))
        return None

    def split(self, source: Source) -> tuple[list[str], Splits]:
        """The classes and the images of each split; DataError if the copy is not complete."""
        raise NotImplementedError

    def read_texts(self, source: Copy | Folder) -> dict[str, str]:
        """The content of the text files by name."""
        contents = dict(source.read(set(self.texts) & source.paths.keys()))
        for name in self.texts:
            if name not in contents:
                raise incomplete(f"{source.place} needs {name}, it is missing")
            try:
                contents[name] = contents[name].decode()
            except UnicodeDecodeError as error:
                raise incomplete(f"{source.where(name)} is no text ({error})") from error
        return contents

    def require(self, source: Source, **numbers: tuple[int, int]) -> None:
        """DataError at the first of the numbers, each (found, needed), that differs.

        To be called before minutes go into decoding.
        """
        for what, (found, needed) in numbers.items():
            if found != needed:
                raise incomplete(
                    f"{self.title} needs {needed:,} {what.replace('_', ' ')}, {source.place} has "
                    f"{found:,}"
                )
