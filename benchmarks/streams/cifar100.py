"""cifar100: 100 classes of 32 x 32 colour photographs (Krizhevsky 2009), split into tasks.

Read from whichever of these is found first, in the data directory or among earlier downloads:

1. the official python archive, `cifar-100-python.tar.gz` or `cifar100/*.tar.gz`;
2. a Hugging Face parquet copy, `cifar100/**/*train*.parquet` and `*test*.parquet`;
3. class sheets, `cifar100/{train,test}/NN_class.{avif,png}` with `cifar100/classes.json`:
   one image file per class, its photographs row by row.

Without any of them the archive is downloaded. Equal pixels give equal arrays whatever the source:
sorted by class, the images of one class in the order of the source.
"""

import hashlib
import io
import json
import pickle
from pathlib import Path

import numpy as np

from analysis.text import quoted
from benchmarks.common.errors import DataError, one_sentence
from benchmarks.streams.common import canonical
from benchmarks.streams.common.base import VisionStream
from benchmarks.streams.common.pictures import decode, write_npz
from benchmarks.streams.common.sources import Archive, batches, class_names, content, remembered

URLS = (
    "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    "https://cave.cs.toronto.edu/kriz/cifar-100-python.tar.gz",  # where the first one redirects to
)
SHA256 = "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"
ARCHIVE = "cifar-100-python.tar.gz"
MAX_BYTES = 1 << 20  # of an encoded image
SIZE = 32  # pixels, height and width
GRIDS = {"train": (20, 25), "test": (10, 10)}  # rows and columns of a class sheet
CLASSES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus "
    "butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch "
    "crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo "
    "keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse "
    "mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy "
    "porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television "
    "tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
).split()

Split = tuple[np.ndarray, np.ndarray]  # images (N, H, W, 3) uint8, labels (N,) int64


class Cifar100(VisionStream):
    """CIFAR-100."""

    n_tasks = 10
    n_classes = len(CLASSES)
    unit_names = CLASSES
    n_items = {"classes": 100, "train": 50_000, "test": 10_000}

    def fingerprint(self) -> str:
        """sha256 of the files that would be read, of the official archive if it would be fetched.

        One file is named by its own digest, several by the digest of their names and digests.
        """
        kind, files = _find(self.data_dir)
        if kind is None:
            return SHA256
        digests = remembered(files, "sha256")
        if len(files) == 1:
            return digests[0]
        named = zip(digests, files, strict=True)
        lines = (f"{digest} {file.parent.name}/{file.name}\n" for digest, file in named)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def prepare(self, out: Path) -> dict:
        """Write data.npz into `out`, downloading the archive if no source is found."""
        kind, files = _find(self.data_dir)
        if kind is None:
            kind, files = "archive", [canonical.download(URLS, SHA256, ARCHIVE, self.data_dir)]
        classes, splits, source = _READERS[kind](files)
        classes = ["crab" if name == "cra" else name for name in classes]  # as copies have it
        if len(classes) != len(CLASSES):
            raise canonical.incomplete(
                f"CIFAR-100 needs {len(CLASSES)} classes, {files[0].parent} names {len(classes)}"
            )
        if other := [pair for pair in zip(classes, CLASSES, strict=True) if len({*pair}) > 1]:
            raise canonical.incomplete(
                f"{files[0].parent} has the class {quoted(other[0][0])} where CIFAR-100 has "
                f"{other[0][1]}"
            )
        arrays = {}
        for name, (images, labels) in splits.items():
            order = _by_class(labels, name, classes, files[0])
            if len(images) != len(labels):
                raise canonical.incomplete(
                    f"CIFAR-100 needs one label per image, {files[0]} has {len(labels)} "
                    f"{name} labels for {len(images)} images"
                )
            arrays |= {f"{name}_images": images[order], f"{name}_labels": labels[order]}
        return {
            "source": f"CIFAR-100, {source}",
            "n_bytes": write_npz(out / "data.npz", arrays),
            "image_size": SIZE,
            "classes": classes,
        }


def _find(data_dir: Path | None) -> tuple[str | None, list[Path]]:
    """The kind of the first source there is, and its files in a fixed order."""
    for folder in filter(None, (data_dir, canonical.DOWNLOADS)):
        images = folder / "cifar100"
        for archive in (folder / ARCHIVE, *sorted(images.glob("*.tar.gz"))):
            if archive.exists():
                return "archive", [archive]
        parquet = [sorted(images.glob(f"**/*{split}*.parquet")) for split in GRIDS]
        if all(parquet):
            return "parquet", sum(parquet, [])
        if (images / "classes.json").exists():
            sheets = [file for split in GRIDS for file in sorted((images / split).glob("[0-9]*.*"))]
            return "sheets", [images / "classes.json", *sheets]
    return None, []


def _by_class(labels: np.ndarray, split: str, classes: list[str], file: Path) -> np.ndarray:
    """Positions sorted by class, the order within a class kept; checks the number of each."""
    needed = int(np.prod(GRIDS[split]))
    if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
        raise canonical.incomplete(
            f"CIFAR-100 needs labels from 0 to {len(classes) - 1}, {file} has labels "
            f"from {labels.min()} to {labels.max()}"
        )
    counts = np.bincount(labels, minlength=len(classes))
    for name, count in zip(classes, counts, strict=True):
        if count != needed:
            raise canonical.incomplete(
                f"CIFAR-100 needs {needed} {split} images of each class, {file} has "
                f"{count} of {name!r}"
            )
    return np.argsort(labels, kind="stable")


# ---------------------------------------------------------------------------- official archive


class _Arrays(pickle.Unpickler):
    """Unpickles containers, numbers, text and numpy arrays, and refuses everything else."""

    def find_class(self, module: str, name: str) -> object:
        if name == "_reconstruct" and module.endswith("core.multiarray"):
            return _empty_array
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")


def _empty_array(*_: object) -> np.ndarray:
    """What the state of a pickled array is put into."""
    return np.ndarray(0, np.uint8)


def _read_archive(files: list[Path]) -> tuple[list[str], dict[str, Split], str]:
    [file] = files
    wanted = (*GRIDS, "meta")
    archive = Archive(file, URLS[0])
    paths = [path for path in archive.names if path.rpartition("/")[2] in wanted]
    found = {path.rpartition("/")[2]: data for path, data in archive.read(paths)}
    with one_sentence(
        f"{file} needs the members {', '.join(wanted)} of the CIFAR-100 python archive, their "
        "content is different",
        f"delete it, the official one comes from {URLS[0]}",
    ):
        for name, content in found.items():
            found[name] = _Arrays(io.BytesIO(content), encoding="bytes").load()
        classes = [name.decode() for name in found["meta"][b"fine_label_names"]]
        splits = {
            name: (_pixels(found[name][b"data"]), _whole(found[name][b"fine_labels"]))
            for name in GRIDS
        }
    official = remembered([file], "sha256") == [SHA256]
    return classes, splits, "official archive" if official else "a copy of the python archive"


def _pixels(rows: np.ndarray) -> np.ndarray:
    """Rows of 3072 bytes, channel by channel, to images (N, H, W, 3)."""
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8:
        raise ValueError("the pixels are no array of bytes")
    return rows.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)


def _whole(labels: list) -> np.ndarray:
    """Labels as (N,) int64, none of which had to be rounded or read out of a text."""
    for label in labels:
        if type(label) is not int:
            raise TypeError(f"the label {label!r:.60} is no whole number")
    return np.array(labels, dtype=np.int64)


# ---------------------------------------------------------------------------- parquet copy


def _read_parquet(files: list[Path]) -> tuple[list[str], dict[str, Split], str]:
    classes, splits = CLASSES, {}
    for split in GRIDS:
        images, labels = [], []
        own = [file for file in files if split in file.name]
        for file in own:
            with one_sentence(
                f"{file} needs the columns img (with bytes) and fine_label of a whole parquet file",
                "download it again",
            ):
                classes = class_names(file, "fine_label") or classes
                for batch in batches(file, ["img", "fine_label"]):
                    labels += _whole(batch.column("fine_label").to_pylist()).tolist()
                    images += batch.column("img").field("bytes").to_pylist()
                    largest = max(map(len, images[-batch.num_rows :]))
                    if largest > MAX_BYTES:
                        raise ValueError(f"an image has {largest:,} bytes")
        labels = np.array(labels, dtype=np.int64)
        _by_class(labels, split, classes, own[0])  # before minutes go into decoding
        splits[split] = np.stack([_decode(image, own[0]) for image in images]), labels
    return classes, splits, "a parquet copy"


def _decode(image: bytes, file: Path) -> np.ndarray:
    pixels = np.asarray(decode(image, f"an image in {file}")[0])
    if pixels.shape != (SIZE, SIZE, 3):
        raise DataError(
            f"{file} needs images of {SIZE} x {SIZE} pixels, it has one of "
            f"{pixels.shape[1]} x {pixels.shape[0]}: use another copy"
        )
    return pixels


# ---------------------------------------------------------------------------- class sheets


def _read_sheets(files: list[Path]) -> tuple[list[str], dict[str, Split], str]:
    listing, *sheets = files
    with one_sentence(f"{listing} needs a JSON list of class names", "write it again"):
        classes = [str(name) for name in json.loads(content(listing))]
    splits = {}
    for split, (rows, columns) in GRIDS.items():
        tiles = []
        for label, name in enumerate(classes):
            stem = listing.parent / split / f"{label:02d}_{name}"
            sheet = next((file for file in sheets if file.with_suffix("") == stem), None)
            if sheet is None:
                raise DataError(
                    f"CIFAR-100 needs the class sheet {stem}.avif or .png, it is missing: copy it "
                    "there"
                )
            tiles.append(_cut(sheet, rows, columns))
        labels = np.repeat(np.arange(len(classes)), rows * columns)
        splits[split] = np.concatenate(tiles), labels
    lossy = any(sheet.suffix == ".avif" for sheet in sheets)
    return classes, splits, "recompressed class sheets" if lossy else "class sheets"


def _cut(sheet: Path, rows: int, columns: int) -> np.ndarray:
    """The photographs of a sheet row by row, (rows * columns, H, W, 3)."""
    pixels = np.asarray(decode(content(sheet), str(sheet))[0])
    height, width, _ = pixels.shape
    if (height, width) != (rows * SIZE, columns * SIZE):
        raise DataError(
            f"{sheet} needs {columns * SIZE} x {rows * SIZE} pixels, it has "
            f"{width} x {height}: copy it again"
        )
    return (
        pixels.reshape(rows, SIZE, columns, SIZE, 3)
        .swapaxes(1, 2)
        .reshape(rows * columns, SIZE, SIZE, 3)
    )


_READERS = {"archive": _read_archive, "parquet": _read_parquet, "sheets": _read_sheets}
