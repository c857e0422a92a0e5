"""folder: a user's own images, split into tasks of classes.

    stream: {name: folder, path: /my/images, n_tasks: 5, test_fraction: 0.2}

`path` holds either `train/<class>/*` and `test/<class>/*`, and `test_fraction` is left out, or one
folder `<class>/*`, of which `test_fraction` is held out by `splits.split_by_rule`: by the names of
the images alone. Classes may differ in their number of images. Their order in the stream is drawn
from the run's seed, as everywhere. A relative path starts at the folder in which the suite is run.

Every file in a class folder must be an image that Pillow reads, hidden files excepted: one that is
not would otherwise make the dataset smaller without a word. Other files beside the class folders
are ignored. `pictures.decode` says what becomes of orientation, transparency, 16 bits and frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field

from benchmarks.common.digests import digest_of
from benchmarks.common.errors import DataError
from benchmarks.streams.common import pictures
from benchmarks.streams.common.base import VisionOptions, VisionStream
from benchmarks.streams.common.sources import Files, digest_of_files, files_in, folders_in
from benchmarks.streams.common.splits import Splits, in_order, split_by_rule


class Folder(VisionStream):
    """Images that a user brings, split into as many tasks as the suite says."""

    @dataclass(frozen=True, kw_only=True)
    class Options(VisionOptions):
        path: str
        test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None

    content_options = ("path", "test_fraction")

    @property
    def n_classes(self) -> int:
        """How many classes the folder has."""
        return len(self._found.classes)

    def fingerprint(self) -> str:
        """Digest of the classes, the split and the content of all images."""
        return self._found.digest

    def prepare(self, out: Path) -> dict:
        """Write the images and their labels."""
        images, digest = self._found, self._found.digest
        source = Files(images.path, images.paths)
        fraction = self.options.test_fraction
        return pictures.store(
            out,
            source,
            "folder",
            images.classes,
            images.splits,
            fingerprint=digest,
            source=f"the user's own images in {self.options.path}",
            split="folders train and test"
            if fraction is None
            else f"by rule, {fraction} of each class held out by the SHA-256 of the names",
        )

    @cached_property
    def _found(self) -> _Images:
        return _Images(self.options.path, self.options.test_fraction)


class _Images:
    """The images as found: their classes, their split, and where they are."""

    def __init__(self, path: str, test_fraction: float | None):
        self.path = Path(path).expanduser()
        if not self.path.is_dir():
            found = "no folder" if self.path.exists() else "not there"
            raise DataError(
                f"the stream folder needs a folder of images, path {path} is {found}: correct it"
            )
        own = all((self.path / split).is_dir() for split in ("train", "test"))
        if own and test_fraction is not None:
            raise DataError(
                f"{path} has folders train and test, so that test_fraction, {test_fraction}, has "
                "nothing to split: leave it out"
            )
        if not own and test_fraction is None:
            raise DataError(
                f"{path} needs folders train and test, or else test_fraction in the suite: add it"
            )
        self.test_fraction = test_fraction
        self.paths: dict[str, Path] = {}  # of each image, by its name in the splits
        if own:
            self.classes, self.splits = self._own_split()
        else:
            self.classes, self.splits = self._split_by_rule()

    def _own_split(self) -> tuple[list[str], Splits]:
        found = {split: _found(self.path / split, 1) for split in ("train", "test")}
        classes = list(found["train"])
        for a, b in (("test", "train"), ("train", "test")):
            for name in found[a].keys() - found[b].keys():
                raise DataError(
                    f"{self.path} needs the same classes in train and test, {name!r} is in {a} "
                    f"but not in {b}: add or remove it"
                )
        splits = {}
        for split, own in found.items():
            labels = {}
            for label, c in enumerate(classes):
                for name, path in own[c].items():
                    labels[f"{split}/{c}/{name}"] = label
                    self.paths[f"{split}/{c}/{name}"] = path
            splits[split] = in_order(labels)
        return classes, splits

    def _split_by_rule(self) -> tuple[list[str], Splits]:
        for c, own in _found(self.path, 2).items():
            self.paths |= {f"{c}/{name}": path for name, path in own.items()}
        return split_by_rule(self.paths, self.test_fraction)

    @cached_property
    def digest(self) -> str:
        """Names the classes, the split, and the content of every image; not where they are."""
        names = [name for split in self.splits.values() for name, _ in split]
        content = digest_of_files({name: self.paths[name] for name in names})
        return digest_of([pictures.READER, content, self.classes, self.splits])


def _found(folder: Path, least: int) -> dict[str, dict[str, Path]]:
    """The images of each class by name, at least two classes with `least` images each."""
    found = {c: files_in(own) for c, own in folders_in(folder).items()}
    if len(found) < 2:
        raise DataError(
            f"{folder} needs a folder of images for each of two classes or more, it has "
            f"{len(found)}: add them"
        )
    for c, own in found.items():
        if len(own) < least:
            raise DataError(
                f"{folder / c} needs {least} or more images, it has {len(own)}: add some or remove "
                "the folder"
            )
    return found
