"""What the streams of large colour images share: sources, split, crop and storage.

A source is an archive, a folder or a parquet copy. Each names its images as "class/file", or
"folder/class/file", in the same way, and everything that follows depends on these names and on
the images' bytes only, so that equal images give equal arrays whatever the source.

- Order: classes by their name, the images of one class by the SHA-256 of their names, which is as
  good as random and the same everywhere. The first n images of a class are thus no special ones.
- Split by rule, where a dataset has none: see `split_by_rule`.
- Crop (`CROP`): done once; the size is that of torchvision's Resize(256) and CenterCrop(224).
- Storage: `train_images.npy` and `test_images.npy`, uint8 (image, row, column, channel), which
  `benchmarks.data` maps into memory, and `data.npz` with the labels.

An archive is read member by member and never unpacked; one that holds absolute paths, `..` or
links is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from benchmarks.download import fetch
from benchmarks.files import DataError, digest_of_file, write_json
from benchmarks.progress import Progress
from benchmarks.streams import write_npz

DOWNLOADS = Path("resources/downloads")
DIGESTS = Path("resources/digests")

RESIZED, SIZE = 256, 224  # pixels: the shorter side, and the square cut out of it
CROP = f"RGB, shorter side resized to {RESIZED} px (bicubic), central {SIZE} x {SIZE} px"
STORAGE = "train_images.npy, test_images.npy: uint8 (image, row, column, channel)"
ORDER = "by class, then by the SHA-256 of class/file"

Splits = dict[str, list[tuple[str, int]]]  # of each split, names and labels in their final order


# ---------------------------------------------------------------------------- order and split


def in_order(labels: dict[str, int]) -> list[tuple[str, int]]:
    """Names and labels, by label and then by the SHA-256 of the name."""
    return sorted(labels.items(), key=lambda item: (item[1], _rank(item[0])))


def split_by_rule(names: Iterable[str], test_fraction: float) -> tuple[list[str], Splits]:
    """Classes, and a split that depends on nothing but the names "class/file".

    In each class the images whose names have the smallest SHA-256 are for testing. How many that
    are, is the method of largest remainders: `test_fraction` of all images, rounded, is dealt out
    to the classes as near to `test_fraction` of each as whole images allow, of equal remainders
    the class first by name first. Every class keeps at least one image on either side.
    """
    by_class: dict[str, list[str]] = {}
    for name in sorted(names):
        by_class.setdefault(name.rpartition("/")[0], []).append(name)
    fraction = Fraction(str(test_fraction))
    shares = {c: len(members) * fraction for c, members in by_class.items()}
    n_test = {c: int(share) for c, share in shares.items()}
    left = round(sum(shares.values())) - sum(n_test.values())
    for c in sorted(shares, key=lambda c: (n_test[c] - shares[c], c))[:left]:
        n_test[c] += 1
    splits: Splits = {"train": [], "test": []}
    for label, (c, members) in enumerate(by_class.items()):
        n = min(max(n_test[c], 1), len(members) - 1)
        for i, name in enumerate(sorted(members, key=_rank)):
            splits["test" if i < n else "train"].append((name, label))
    return list(by_class), splits


def _rank(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


# ---------------------------------------------------------------------------- digests


def digest_of_files(files: dict[str, Path]) -> str:
    """Digest of several files' names, sizes and contents; names have no line breaks."""
    digests = remembered(list(files.values()), "sha256")
    lines = (
        f"{digest} {file.stat().st_size} {name}\n"
        for (name, file), digest in zip(files.items(), digests, strict=True)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def remembered(files: list[Path], algorithm: str) -> list[str]:
    """Digests of files, computed anew where size or time of change are not the remembered ones.

    A plan asks for them each time. They are remembered below `DIGESTS`, unless a file is so young
    that a second change of it might show the same time.
    """
    if not files:
        return []
    root = os.path.commonpath([file.absolute().parent for file in files])
    path = DIGESTS / f"{hashlib.sha256(f'{algorithm} {root}'.encode()).hexdigest()[:12]}.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
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
        kept = {name: entry for name, entry in known.items() if fresh.get(name, True)}
        with suppress(DataError):
            write_json(path, kept)
    return result


def unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path} cannot be read ({error.strerror or error}): correct its permissions or remove it"
    )


# ---------------------------------------------------------------------------- sources


class Archive:
    """A tar file, compressed or not, whose images are `images`/class/file."""

    title = "a copy of the archive"

    def __init__(self, file: Path, images: str, origin: str):
        self.file = self.place = file
        self._images, self._origin = PurePosixPath(images), origin

    @cached_property
    def names(self) -> list[str]:
        return sorted(self._members_by_name)

    @cached_property
    def _members(self) -> dict[PurePosixPath, tarfile.TarInfo]:
        """Files by path, in the order of the archive."""
        members = {}
        try:
            with tarfile.open(self.file) as archive:
                for member in archive:
                    path = PurePosixPath(member.name)
                    if path.is_absolute() or ".." in path.parts or member.islnk() or member.issym():
                        kind = "link" if member.islnk() or member.issym() else "path"
                        raise DataError(
                            f"{self.file} holds the {kind} {member.name!r}, which could lead "
                            f"outside its folder and is refused: get the archive from "
                            f"{self._origin}"
                        )
                    if member.isfile():
                        members[path] = member
        except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
            raise self._truncated(error) from error
        return members

    @cached_property
    def _members_by_name(self) -> dict[str, tarfile.TarInfo]:
        return {
            f"{path.parent.name}/{path.name}": member
            for path, member in self._members.items()
            if path.parent.parent == self._images and not path.name.startswith(".")
        }

    def texts(self, names: Iterable[str]) -> dict[str, str]:
        """The content of text files in the top folder."""
        paths = {PurePosixPath(self._images.parts[0], name): name for name in names}
        for path in paths:
            if path not in self._members:
                raise DataError(
                    f"{self.file} needs {path}, it is missing: get it from {self._origin}"
                )
        found = self._read([self._members[path] for path in paths])
        return {paths[path]: _decoded(content, self.where(path)) for path, content in found}

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Names and contents, in the order of the archive."""
        for path, content in self._read([self._members_by_name[name] for name in names]):
            yield f"{path.parent.name}/{path.name}", content

    def _read(self, members: list[tarfile.TarInfo]) -> Iterator[tuple[PurePosixPath, bytes]]:
        try:
            with tarfile.open(self.file) as archive:
                for member in sorted(members, key=lambda member: member.offset):
                    yield PurePosixPath(member.name), archive.extractfile(member).read()
        except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
            raise self._truncated(error) from error

    def _truncated(self, error: Exception) -> DataError:
        reason = str(error).partition("\n")[0].rstrip(":")  # the rest lists every compression
        return DataError(
            f"{self.file} is truncated or no tar file ({reason}): delete it, the official one "
            f"comes from {self._origin}"
        )

    def where(self, name: str | PurePosixPath) -> str:
        return f"{name} in {self.file}"

    def fingerprint(self) -> str:
        return _fingerprint_of_md5(remembered([self.file], "md5")[0])


class Folder:
    """Images in the folder `images`, in folders of their class; `root` has the text files."""

    title = "a folder of images"

    def __init__(self, root: Path, images: Path, texts: tuple[str, ...] = ()):
        self.root = self.place = root
        self.images, self._texts = images, texts

    @cached_property
    def names(self) -> list[str]:
        return [
            f"{c}/{name}" for c in folders_in(self.images) for name in files_in(self.images / c)
        ]

    def texts(self, names: Iterable[str]) -> dict[str, str]:
        """The content of text files beside the images."""
        return {name: _decoded(_content(self.root / name), str(self.root / name)) for name in names}

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            yield name, _content(self.images / name)

    def where(self, name: str) -> str:
        return str(self.images / name)

    def fingerprint(self) -> str:
        texts = {name: self.root / name for name in self._texts}
        return digest_of_files(texts | {name: self.images / name for name in self.names})


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise unreadable(file, error) from error


def folders_in(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    return [name for name in _listed(folder) if (folder / name).is_dir()]


def files_in(folder: Path) -> list[str]:
    """Names of the files in a class folder, sorted, without hidden ones; it has no folders."""
    names = _listed(folder)
    for name in names:
        if (folder / name).is_dir():
            raise DataError(
                f"{folder} needs images only, it holds the folder {name}: a class is one folder, "
                "move it out"
            )
    return names


def _listed(folder: Path) -> list[str]:
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise unreadable(folder, error) from error
    for name in names:
        if not name.isprintable():  # a line break, or bytes that are no UTF-8
            raise DataError(f"{folder} holds the name {name!r}, which cannot be printed: rename it")
    return names


class Parquet:
    """A Hugging Face copy: the column `image` with bytes and file name, and one with the class.

    Args:
        files: tables below `root`, whose path tells the split.
        column: of the class; where it holds numbers, the table's metadata must name them.
    """

    title = "a parquet copy"

    def __init__(self, root: Path, files: list[Path], column: str):
        self.root = self.place = root
        self.files, self._column = files, column

    @cached_property
    def names(self) -> list[str]:
        return sorted(self.splits)

    @cached_property
    def splits(self) -> dict[str, str]:
        """The split of each image; "" where the table's name does not tell."""
        result: dict[str, str] = {}
        for file in self.files:
            parts = file.relative_to(self.root).parts
            split = next((s for s in ("train", "test") for p in parts if p.startswith(s)), "")
            for batch in self._batches(file, "image.path"):
                for name in self._names(batch, file):
                    if name in result:
                        raise DataError(f"{file} holds {name} a second time: use one complete copy")
                    result[name] = split
        return result

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        wanted = set(names)
        for file in self.files:
            for batch in self._batches(file, "image"):
                contents = self._field(batch, "bytes", file)
                for name, content in zip(self._names(batch, file), contents, strict=True):
                    if name in wanted:
                        yield name, content or b""

    def _batches(self, file: Path, column: str) -> Iterator:
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(file) as table:
                yield from table.iter_batches(batch_size=64, columns=[column, self._column])
        except (OSError, pyarrow.ArrowException, KeyError) as error:
            raise self._unfit(file, str(error).splitlines()[0]) from error

    def _names(self, batch, file: Path) -> list[str]:
        paths = self._field(batch, "path", file)
        try:
            classes = batch.column(self._column).to_pylist()
            if any(type(c) is int for c in classes):
                features = json.loads(batch.schema.metadata[b"huggingface"])["info"]["features"]
                title = dict(enumerate(features[self._column]["names"]))
                classes = [title[c] for c in classes]
            return [f"{c}/{PurePosixPath(p).name}" for c, p in zip(classes, paths, strict=True)]
        except (KeyError, TypeError, ValueError) as error:
            raise self._unfit(file, f"{type(error).__name__}: {error}") from error

    def _field(self, batch, name: str, file: Path) -> list:
        """A field of the column `image`."""
        try:
            return batch.column("image").field(name).to_pylist()
        except (KeyError, AttributeError) as error:
            raise self._unfit(file, f"image has no {name}") from error

    def _unfit(self, file: Path, reason: str) -> DataError:
        return DataError(
            f"{file} needs the columns image (bytes and path) and {self._column} (with the "
            f"classes' names) of a whole parquet file ({reason}): use another copy, or the archive"
        )

    def where(self, name: str) -> str:
        return f"{name} in {self.root}"

    def fingerprint(self) -> str:
        return digest_of_files({str(f.relative_to(self.root)): f for f in self.files})


Source = Archive | Folder | Parquet


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is no text ({error}): use a complete copy") from error


def _fingerprint_of_md5(md5: str) -> str:
    """Of an archive known by its published MD5: the same before the download and after."""
    return hashlib.sha256(f"md5:{md5}".encode()).hexdigest()


@dataclass(frozen=True)
class Canonical:
    """A published dataset and the places it is looked for.

    Attributes:
        archive: the official archive's file name.
        md5: its published digest.
        urls: its official addresses.
        folder: the name of its top folder, in the data directory and in the archive.
        images: the folder of the class folders in there.
        column: the class column of a parquet copy.
        texts: the text files it needs from the top folder.
    """

    title: str
    archive: str
    md5: str
    urls: tuple[str, ...]
    folder: str
    images: str
    column: str
    texts: tuple[str, ...] = ()

    def find(self, data_dir: Path | None) -> Source | None:
        """The first of archive, parquet copy and folder, in the data directory or downloaded."""
        for place in filter(None, (data_dir, DOWNLOADS)):
            root = place / self.folder
            for file in (place / self.archive, root / self.archive):
                if file.exists():
                    return self._archive(file)
            images = root / self.images
            tables = sorted(root.glob("**/*.parquet"))
            if tables:
                return Parquet(root, tables, self.column)
            if images.is_dir() and folders_in(images):
                return Folder(root, images, self.texts)
        return None

    def fingerprint(self, data_dir: Path | None) -> str:
        """Names the content found; if none is, that of the official archive."""
        source = self.find(data_dir)
        return source.fingerprint() if source else _fingerprint_of_md5(self.md5)

    def open(self, data_dir: Path | None) -> Source:
        """The first source there is, downloading the archive if there is none."""
        source = self.find(data_dir)
        if source is None:
            writable = data_dir is not None and os.access(data_dir, os.W_OK)
            target = (data_dir if writable else DOWNLOADS) / self.archive
            source = self._archive(fetch(self.urls, f"md5:{self.md5}", target))
        return source

    def _archive(self, file: Path) -> Archive:
        return Archive(file, f"{self.folder}/{self.images}", self.urls[0])

    def described(self, source: Source, fingerprint: str) -> str:
        """The source in words for the manifest."""
        official = fingerprint == _fingerprint_of_md5(self.md5)
        return f"{self.title}, {'official archive' if official else source.title}"

    def require(self, source: Source, **numbers: tuple[int, int]) -> None:
        """Compare numbers, each (found, needed); DataError at the first that differs.

        To be called before minutes go into decoding.
        """
        for what, (found, needed) in numbers.items():
            if found != needed:
                raise DataError(
                    f"{self.title} needs {needed:,} {what.replace('_', ' ')}, {source.place} has "
                    f"{found:,}: use a complete copy"
                )


# ---------------------------------------------------------------------------- crop and storage


def crop(content: bytes, where: str) -> np.ndarray:
    """An encoded image as (224, 224, 3) uint8, as `CROP` says; an orientation tag is ignored."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as opened:
            image = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).partition(" <")[0]  # without the address of a buffer
        raise DataError(
            f"{where} is truncated or no image ({reason}): replace or remove it"
        ) from error
    shorter = min(image.size)
    width, height = (side * RESIZED // shorter for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (round((side - SIZE) / 2) for side in (width, height))
    return np.asarray(image.crop((left, top, left + SIZE, top + SIZE)))


def store(out: Path, source: Source, splits: Splits, name: str) -> int:
    """Decode, crop and write all images with their labels; returns the number of bytes.

    Files appear under their names once all of them are whole.
    """
    place = {
        image: (split, i) for split, images in splits.items() for i, (image, _) in enumerate(images)
    }
    progress = Progress(f"prepare {name}", len(place), "images")
    stores = {
        split: _ImageFile(out / f"{split}_images.npy", len(splits[split])) for split in splits
    }
    try:
        for image, content in source.read(place):
            split, i = place[image]
            stores[split].write(i, crop(content, source.where(image)))
            progress.advance()
        n_bytes = sum(images.close() for images in stores.values())
        labels = {
            f"{split}_labels": np.array([label for _, label in images], dtype=np.int64)
            for split, images in splits.items()
        }
        n_bytes += write_npz(out / "data.npz", labels)
        for images in stores.values():
            images.publish()
    finally:
        for images in stores.values():
            images.discard()
    return n_bytes


class _ImageFile:
    """A .npy of images (n, 224, 224, 3) that is written in any order, by way of a .part file.

    Not a memory map: on a full disk that would end the process without a word.
    """

    def __init__(self, path: Path, n: int):
        self.path, self.part = path, path.with_name(f"{path.name}.part")
        shape = (n, SIZE, SIZE, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        self._file = open(self.part, "wb")
        np.lib.format.write_array_header_1_0(self._file, header)
        self._start = self._file.tell()

    def write(self, i: int, image: np.ndarray) -> None:
        try:
            self._file.seek(self._start + i * image.nbytes)
            self._file.write(image.tobytes())
        except OSError as error:
            raise self._unsaved(error) from error

    def close(self) -> int:
        """Bring everything to the disk; returns the size in bytes."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise self._unsaved(error) from error
        return self.part.stat().st_size

    def publish(self) -> None:
        os.replace(self.part, self.path)

    def discard(self) -> None:
        with suppress(OSError):
            self._file.close()
        self.part.unlink(missing_ok=True)

    def _unsaved(self, error: OSError) -> DataError:
        return DataError(
            f"{self.path} could not be saved ({error.strerror}): make room and run again"
        )


def manifest(name: str, classes: list[str], splits: Splits, n_bytes: int, **more) -> dict:
    """What `prepare` returns: the facts all these streams state, and `more` of their own."""
    return {
        "name": name,
        "modality": "vision",
        "n_bytes": n_bytes,
        "image_size": SIZE,
        "classes": classes,
        "n_images": {split: len(images) for split, images in splits.items()},
        "crop": CROP,
        "storage": STORAGE,
        "order": ORDER,
        **more,
    }
