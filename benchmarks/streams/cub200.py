"""cub200: 200 species of birds, CUB-200-2011 (Wah et al. 2011), split into tasks.

Read from whichever of these is found first, in the data directory or among earlier downloads:

1. the official archive, `CUB_200_2011.tgz` or `CUB_200_2011/CUB_200_2011.tgz`;
2. a Hugging Face parquet copy, `CUB_200_2011/**/*.parquet`, files or folders of which begin with
   `train` and `test`, with the columns `image` (bytes and file name) and `label` (named as the
   dataset's class folders);
3. the unpacked folder, `CUB_200_2011/images.txt` and so on.

Without any of them the archive is downloaded. The split is the dataset's own, 5,994 images for
training and 5,794 for testing.
"""

import re
from pathlib import Path

from benchmarks.common.errors import DataError
from benchmarks.streams.common import pictures
from benchmarks.streams.common.base import VisionStream
from benchmarks.streams.common.canonical import Canonical, Copy, Folder, Parquet, Source
from benchmarks.streams.common.splits import in_order

N_CLASSES = 200
N_IMAGES = {"train": 5_994, "test": 5_794}

LISTS = ("classes.txt", "images.txt", "image_class_labels.txt", "train_test_split.txt")
DATASET = Canonical(
    title="CUB-200-2011",
    archive="CUB_200_2011.tgz",
    md5="97eceeb196236b17998738112f37df78",
    urls=("https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",),
    folder="CUB_200_2011",
    images="images",
    column="label",
    texts=LISTS,
)


class Cub200(VisionStream):
    """CUB-200-2011."""

    n_tasks = 10
    n_classes = N_CLASSES
    n_items = {"classes": N_CLASSES, **N_IMAGES}

    def fingerprint(self) -> str:
        """Digest of what would be read; the same for the official archive, fetched or not."""
        return DATASET.fingerprint(self.data_dir)

    def prepare(self, out: Path) -> dict:
        """Write the images and labels into `out`, downloading the archive if no source is found."""
        source = DATASET.open(self.data_dir)
        digest = source.fingerprint()
        split_of = source.splits if isinstance(source, Parquet) else _listed(source)
        classes = sorted({name.partition("/")[0] for name in split_of})
        for name in classes:
            if not re.fullmatch(r"\d{3}\..+", name):  # else another order of classes and images
                raise DataError(
                    f"{source.place} needs the dataset's own class names, such as "
                    f"001.Black_footed_Albatross, it has {name!r}: use another copy"
                )
        label = {c: i for i, c in enumerate(classes)}
        splits = {
            split: in_order(
                {
                    name: label[name.partition("/")[0]]
                    for name, own in split_of.items()
                    if own == split
                }
            )
            for split in N_IMAGES
        }
        DATASET.require(
            source,
            classes=(len(classes), N_CLASSES),
            **{
                f"{split}_images": (len(splits[split]), needed)
                for split, needed in N_IMAGES.items()
            },
        )
        stored = pictures.store(out, source, splits, "cub200")
        return pictures.manifest(
            "cub200",
            classes,
            splits,
            **stored,
            fingerprint=digest,
            source=DATASET.described(source, digest),
            split="the dataset's own",
        )


def _listed(source: Copy | Folder) -> dict[str, str]:
    """The split of each image "class/file", as the dataset's lists give it."""
    texts = DATASET.read_texts(source)
    classes, images, labels, flags = (_table(texts[name], name, source) for name in LISTS)
    for name, table in zip(LISTS[2:], (labels, flags), strict=True):
        for key in images.keys() ^ table.keys():
            lacking = name if key in images else "images.txt"
            raise DataError(
                f"{source.place} needs the same images in images.txt and {name}, {lacking} does "
                f"not have number {key}: use a complete copy"
            )
    present = set(source.names)
    for key, image in images.items():
        if not re.fullmatch(r"[^/]+/[^/.][^/]*", image) or image not in present:
            raise DataError(
                f"{source.place} needs the image {image} that images.txt names, there is none in "
                "its folder of images: use a complete copy"
            )
        if classes.get(labels[key]) != image.partition("/")[0]:
            raise DataError(
                f"{source.place} needs the class of {image} in image_class_labels.txt, which has "
                f"class {labels[key]}, {classes.get(labels[key])!r}: use a complete copy"
            )
        if flags[key] not in ("0", "1"):
            raise DataError(
                f"{source.place} needs 0 or 1 for {image} in train_test_split.txt, which has "
                f"{flags[key]!r}: use a complete copy"
            )
    return {image: "train" if flags[key] == "1" else "test" for key, image in images.items()}


def _table(text: str, name: str, source: Source) -> dict[str, str]:
    """Lines "number value"."""
    rows = {}
    for line in text.splitlines():
        number, _, value = line.strip().partition(" ")
        if not value or number in rows:
            raise DataError(
                f"{name} of {source.place} needs lines of a new number and a value, it has "
                f"{line!r}: use a complete copy"
            )
        rows[number] = value
    return rows
