"""What the streams of large colour images share: sources, split, crop and storage.

A source is an archive, a folder or a parquet copy. Each names its images as "class/file", or
"folder/class/file", in the same way, and everything that follows depends on these names and on
the images' bytes only, so that equal images give equal arrays whatever the source.

- Order: classes by their name, the images of one class by the SHA-256 of their names, which is as
  good as random and the same everywhere. The first n images of a class are thus no special ones.
- Split by rule, where a dataset has none: see `split_by_rule`.
- Picture (`decode`): upright, on white, 8 bits; what was done for it is counted in the manifest.
- Crop (`CROP`): done once; the size is that of torchvision's Resize(256) and CenterCrop(224).
- Storage: `train_images.npy` and `test_images.npy`, uint8 (image, row, column, channel), which
  `benchmarks.streams.common.tasks` maps into memory, and `data.npz` with the labels.

An archive is read member by member and never unpacked; one that holds absolute paths, `..`, links
or sparse files is refused. No size is believed that a file says of itself.

Names are compared composed (NFC): a folder that was copied from a Mac, which may write the letter
and its accent apart, is the same folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common.download import fetch
from benchmarks.common.files import (
    DataError,
    digest_of_file,
    one_sentence,
    require_plain,
    write_json,
)
from benchmarks.common.progress import Progress
from benchmarks.streams.common.base import write_npz

if TYPE_CHECKING:
    from PIL.Image import Image

READER = 2  # raise it when the same file gives another picture

DOWNLOADS = Path("resources/downloads")
DIGESTS = Path("resources/digests")

RESIZED, SIZE = 256, 224  # pixels: the shorter side, and the square cut out of it
CROP = (
    f"upright, on white, RGB, shorter side resized to {RESIZED} px (bicubic), "
    f"central {SIZE} x {SIZE} px"
)
STORAGE = "train_images.npy, test_images.npy: uint8 (image, row, column, channel)"
ORDER = "by class, then by the SHA-256 of class/file"

MAX_BYTES = 1 << 28  # of one image file, and of one member of an archive
MAX_MEMBERS = 200_000  # of an archive
MAX_HEADER_BYTES = 1 << 20  # of the headers before a tar member
MAX_PIXELS = 100_000_000  # of an image; its width and height are known before it is decoded
MAX_RATIO = 100  # of its sides: resized, it is as long as that many squares

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


def open_tar(file: Path, mode: str = "r") -> tarfile.TarFile:
    """A tar file whose headers are believed only within limits."""

    class Header(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf, encoding, errors):
            header = super().frombuf(buf, encoding, errors)
            if header.type == tarfile.GNUTYPE_SPARSE:
                raise _sparse(file, header)
            if header.size > MAX_HEADER_BYTES and header.type not in (b"0", b"\0", b"5", b"7"):
                raise DataError(f"{file} has a header of {header.size:,} bytes, which is refused")
            return header

    require_plain(file)
    return tarfile.open(file, mode, tarinfo=Header)


def members_of(archive: tarfile.TarFile, file: Path) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file, so many at most."""
    for i, member in enumerate(archive):
        if i == MAX_MEMBERS:
            raise DataError(f"{file} has more than {MAX_MEMBERS:,} members: unpack it yourself")
        if member.issparse():
            raise _sparse(file, member)
        yield member


def _sparse(file: Path, member: tarfile.TarInfo) -> DataError:
    return DataError(
        f"{file} holds the sparse file {member.name!a}, which can claim any size and is refused: "
        "unpack it yourself"
    )


def chunks(file, where: str) -> Iterator[bytes]:
    """The content of an open file piece by piece, of at most `MAX_BYTES`."""
    size = 0
    while chunk := file.read(1 << 20):
        size += len(chunk)
        if size > MAX_BYTES:
            raise DataError(
                f"{where} has more than {MAX_BYTES >> 20} MiB, the most that is read of an image "
                "or of a file in an archive: make it smaller or unpack the archive"
            )
        yield chunk


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
        with one_sentence(self._truncated):
            with open_tar(self.file) as archive:
                for member in members_of(archive, self.file):
                    path = PurePosixPath(member.name)
                    if path.is_absolute() or ".." in path.parts or member.islnk() or member.issym():
                        kind = "link" if member.islnk() or member.issym() else "path"
                        raise DataError(
                            f"{self.file} holds the {kind} {member.name!r}, which could lead "
                            f"outside its folder and is refused: get the archive from "
                            f"{self._origin}"
                        )
                    if member.isfile():
                        require_printable(member.name, self.file)
                        members[path] = member
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
        with one_sentence(self._truncated):
            with open_tar(self.file) as archive:
                for member in sorted(members, key=lambda member: member.offset):
                    file = archive.extractfile(member)
                    content = b"".join(chunks(file, self.where(member.name)))
                    yield PurePosixPath(member.name), content

    def _truncated(self, reason: str) -> str:
        return (
            f"{self.file} is truncated or no tar file ({reason}): delete it, the official one "
            f"comes from {self._origin}"
        )

    def where(self, name: str | PurePosixPath) -> str:
        return f"{name} in {self.file}"

    def fingerprint(self) -> str:
        return _fingerprint_of_md5(remembered([self.file], "md5")[0])


class Files:
    """Images by name, wherever they lie."""

    def __init__(self, place: Path, paths: dict[str, Path]):
        self.place, self.paths = place, paths

    @property
    def names(self) -> list[str]:
        return list(self.paths)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            yield name, content(self.paths[name])

    def where(self, name: str) -> str:
        return str(self.paths[name])


class Folder(Files):
    """Images in the folder `images`, in folders of their class; `root` has the text files."""

    title = "a folder of images"

    def __init__(self, root: Path, images: Path, texts: tuple[str, ...] = ()):
        paths = {
            f"{c}/{name}": path
            for c, own in folders_in(images).items()
            for name, path in files_in(own).items()
        }
        super().__init__(root, paths)
        self.root, self._texts = root, texts

    def texts(self, names: Iterable[str]) -> dict[str, str]:
        """The content of text files beside the images."""
        return {name: _decoded(content(self.root / name), str(self.root / name)) for name in names}

    def fingerprint(self) -> str:
        return _read_now(digest_of_files({n: self.root / n for n in self._texts} | self.paths))


def content(file: Path) -> bytes:
    """The content of a plain file of at most `MAX_BYTES`."""
    try:
        require_plain(file)
        with open(file, "rb") as opened:
            return b"".join(chunks(opened, str(file)))
    except OSError as error:
        raise unreadable(file, error) from error


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


def batches(file: Path, columns: list[str]) -> Iterator:
    """The rows of a parquet file, few at a time: of a repeated one, each is its full size."""
    import pyarrow.parquet

    require_plain(file)
    with pyarrow.parquet.ParquetFile(file) as table:
        yield from table.iter_batches(batch_size=8, columns=columns)


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
        with self._fit(file):
            yield from batches(file, [column, self._column])

    def _names(self, batch, file: Path) -> list[str]:
        paths = self._field(batch, "path", file)
        with self._fit(file):
            classes = batch.column(self._column).to_pylist()
            if any(type(c) is int for c in classes):
                features = json.loads(batch.schema.metadata[b"huggingface"])["info"]["features"]
                title = dict(enumerate(features[self._column]["names"]))
                classes = [title[c] for c in classes]
            for value in (*classes, *paths):
                if not isinstance(value, str):
                    raise TypeError(f"{value!r:.60} stands where a name is needed")
            return [f"{c}/{PurePosixPath(p).name}" for c, p in zip(classes, paths, strict=True)]

    def _field(self, batch, name: str, file: Path) -> list:
        """A field of the column `image`."""
        with self._fit(file):
            return batch.column("image").field(name).to_pylist()

    def _fit(self, file: Path):
        return one_sentence(
            lambda reason: (
                f"{file} needs the columns image (bytes and path) and {self._column} (with the "
                f"classes' names) of a whole parquet file ({reason}): use another copy, or the "
                "archive"
            )
        )

    def where(self, name: str) -> str:
        return f"{name} in {self.root}"

    def fingerprint(self) -> str:
        files = {str(f.relative_to(self.root)): f for f in self.files}
        return _read_now(digest_of_files(files))


Source = Archive | Files | Parquet


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is no text ({error}): use a complete copy") from error


def _fingerprint_of_md5(md5: str) -> str:
    """Of an archive known by its published MD5: the same before the download and after."""
    return _read_now(f"md5:{md5}")


def _read_now(content: str) -> str:
    """Digest of what files hold and of how this version reads them."""
    return hashlib.sha256(f"{READER} {content}".encode()).hexdigest()


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


_TURNS = {  # by the tag of orientation
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def decode(content: bytes, where: str) -> tuple[Image, list[str]]:
    """An encoded image as 8-bit RGB, and what had to be done for it beside decoding.

    It is turned as its tag of orientation says. What is transparent becomes white. 16 bits, and
    floats from 0 to 1, are scaled to 8 bits; deeper ones have no white that all files agree on and
    are refused. Of several frames or pages the first one is taken.
    """
    from PIL import Image

    def unfit(reason: str) -> str:
        return f"{where} is truncated or no image ({reason}): replace or remove it"

    with warnings.catch_warnings(), one_sentence(unfit):
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES >> 20} MiB")
        warnings.simplefilter("ignore")  # of Pillow: about size, which is looked at here, and tags
        with Image.open(io.BytesIO(content)) as opened:
            _require_size(opened, where)
            # In MPO, telephones keep the brightness beside the photograph; in PSD it is layers.
            one = opened.format in ("MPO", "PSD") or getattr(opened, "n_frames", 1) == 1
            done = [] if one else ["of several frames, the first"]
            opened.load()
            turn = None
            with suppress(Exception):  # a damaged tag is no damaged picture
                turn = _TURNS.get(opened.getexif().get(0x0112))
            if opened.mode.startswith("I") or opened.mode == "F":
                image = _scaled(opened, where)
                done.append("scaled to 8 bits")
            elif opened.has_transparency_data:
                image = Image.new("RGBA", opened.size, "white")
                image.alpha_composite(own := opened.convert("RGBA"))
                if own.getextrema()[3][0] < 255:
                    done.append("transparent, put on white")
            else:
                image = opened
            image = image.convert("RGB")
            if turn:
                image = image.transpose(Image.Transpose[turn])
                done.append("turned upright")
    return image, done


def _require_size(image: Image, where: str) -> None:
    """DataError before anything is decoded that is too large, too thin, or no picture."""
    width, height = image.size
    if image.format == "EPS":  # which Pillow has another program draw
        raise DataError(f"{where} is a drawing in EPS, no image: save it as PNG or remove it")
    if min(width, height) == 0 or width * height > MAX_PIXELS:
        raise DataError(
            f"{where} needs 1 to {MAX_PIXELS:,} pixels, it has {width:,} x {height:,}: make it "
            "smaller or remove it"
        )
    if max(width, height) > MAX_RATIO * min(width, height):
        raise DataError(
            f"{where} has {width:,} x {height:,} pixels, of which the central square shows next to "
            f"nothing; its sides may differ by a factor of {MAX_RATIO}: crop or remove it"
        )


def _scaled(image: Image, where: str) -> Image:
    """A grey image of 16 bits, or of floats from 0 to 1, with 8 bits: black and white stay."""
    from PIL import Image

    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == "F":
        if not (low >= 0 and high <= 1):
            raise DataError(
                f"{where} has floats from {low:g} to {high:g}, needed are 0 (black) to 1 (white): "
                "scale them, or save it with 8 bits"
            )
        grey = np.rint(values * np.float32(255)).astype(np.uint8)
    else:
        if not (low >= 0 and high <= 65535) or 0 < high < 4096:
            raise DataError(
                f"{where} has whole numbers from {low} to {high}, needed are 0 (black) to 65535 "
                "(white), and more than a sixteenth of that: scale them, or save it with 8 bits"
            )
        grey = ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if getattr(image, "tag_v2", {}).get(262) == 0:  # a TIFF whose 0 is white
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey = np.where(values == transparent, np.uint8(255), grey)
    return Image.fromarray(grey)


def crop(image: Image) -> np.ndarray:
    """A picture as (224, 224, 3) uint8, as `CROP` says."""
    from PIL import Image

    shorter = min(image.size)
    width, height = (side * RESIZED // shorter for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (round((side - SIZE) / 2) for side in (width, height))
    return np.asarray(image.crop((left, top, left + SIZE, top + SIZE)))


def store(out: Path, source: Source, splits: Splits, name: str) -> dict:
    """Decode, crop and write all images with their labels.

    Files appear under their names once all of them are whole.

    Returns:
        For the manifest: the number of bytes, and how many images were converted, by kind.
    """
    converted: Counter[str] = Counter()
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
            picture, done = decode(content, source.where(image))
            converted.update(done)
            stores[split].write(i, crop(picture))
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
    return {"n_bytes": n_bytes, "converted": dict(converted)}


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


def manifest(name: str, classes: list[str], splits: Splits, **more) -> dict:
    """What `prepare` returns: the facts all these streams state, and `more` of their own."""
    return {
        "name": name,
        "modality": "vision",
        "image_size": SIZE,
        "classes": classes,
        "n_images": {split: len(images) for split, images in splits.items()},
        "crop": CROP,
        "storage": STORAGE,
        "order": ORDER,
        **more,
    }
