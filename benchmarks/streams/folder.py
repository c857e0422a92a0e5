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
from benchmarks.common.files import expanded
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
        return len(self.unit_names)

    @property
    def unit_names(self) -> list[str]:
        """The classes."""
        return self.bundled.get("classes") or self._found[0]

    def fingerprint(self) -> str:
        """Digest of the classes, the split and the content of all images, not of their place."""
        classes, splits, paths = self._found
        names = [name for split in splits.values() for name, _ in split]
        content = digest_of_files({name: paths[name] for name in names})
        return digest_of([pictures.READER, content, classes, splits])

    def prepare(self, out: Path) -> dict:
        """Write the images and their labels."""
        path, fraction = self.options.path, self.options.test_fraction
        classes, splits, paths = self._found
        return pictures.store(
            out,
            Files(expanded(path), paths),
            "folder",
            classes,
            splits,
            source=f"the user's own images in {path}",
            split="folders train and test"
            if fraction is None
            else f"by rule, {fraction} of each class held out by the SHA-256 of the names",
        )

    @cached_property
    def _found(self) -> tuple[list[str], Splits, dict[str, Path]]:
        """The classes, their split, and where each image is by its name there."""
        path, fraction = expanded(self.options.path), self.options.test_fraction
        if not path.is_dir():
            found = "no folder" if path.exists() else "not there"
            raise DataError(
                f"the stream folder needs a folder of images, path {self.options.path} is {found} "
                f"(as {path.absolute()}): correct it"
            )
        if all((path / split).is_dir() for split in ("train", "test")):
            if fraction is not None:
                raise DataError(
                    f"{self.options.path} has folders train and test, so that test_fraction, "
                    f"{fraction}, has nothing to split: leave it out"
                )
            return _own_split(path)
        if fraction is None:
            raise DataError(
                f"{self.options.path} needs folders train and test, or else test_fraction in the "
                "suite: add it"
            )
        images = _images(path, 2)
        paths = {f"{c}/{name}": file for c, own in images.items() for name, file in own.items()}
        return *split_by_rule(paths, fraction), paths


def _own_split(path: Path) -> tuple[list[str], Splits, dict[str, Path]]:
    found = {split: _images(path / split, 1) for split in ("train", "test")}
    for a, b in (("test", "train"), ("train", "test")):
        for name in found[a].keys() - found[b].keys():
            raise DataError(
                f"{path} needs the same classes in train and test, {name!r} is in {a} but not in "
                f"{b}: add or remove it"
            )
    splits, paths = {}, {}
    for split, classes in found.items():
        labels = {}
        for label, (c, own) in enumerate(classes.items()):
            for name, file in own.items():
                labels[f"{split}/{c}/{name}"] = label
                paths[f"{split}/{c}/{name}"] = file
        splits[split] = in_order(labels)
    return list(found["train"]), splits, paths


def _images(folder: Path, least: int) -> dict[str, dict[str, Path]]:
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
