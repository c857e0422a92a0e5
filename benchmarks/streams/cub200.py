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

from benchmarks.common.errors import DataError
from benchmarks.streams.common.canonical import (
    CanonicalStream,
    Copy,
    Folder,
    Parquet,
    Source,
    incomplete,
)
from benchmarks.streams.common.splits import Splits, in_order

N_CLASSES = 200
N_IMAGES = {"train": 5_994, "test": 5_794}

LISTS = ("classes.txt", "images.txt", "image_class_labels.txt", "train_test_split.txt")


class Cub200(CanonicalStream):
    """CUB-200-2011."""

    title = "CUB-200-2011"
    archive = "CUB_200_2011.tgz"
    md5 = "97eceeb196236b17998738112f37df78"
    urls = ("https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",)
    folder = "CUB_200_2011"
    images = "images"
    column = "label"
    texts = LISTS
    rule = "the dataset's own"
    n_classes = N_CLASSES
    n_items = {"classes": N_CLASSES, **N_IMAGES}

    def split(self, source: Source) -> tuple[list[str], Splits]:
        """The dataset's own."""
        split_of = source.splits if isinstance(source, Parquet) else self._listed(source)
        class_of = {name: name.partition("/")[0] for name in split_of}
        classes = sorted(set(class_of.values()))
        for name in classes:
            if not re.fullmatch(r"\d{3}\..+", name):  # else another order of classes and images
                raise DataError(
                    f"{source.place} needs the dataset's own class names, such as "
                    f"001.Black_footed_Albatross, it has {name!r}: use another copy"
                )
        label = {c: i for i, c in enumerate(classes)}
        splits = {
            split: in_order({n: label[class_of[n]] for n, own in split_of.items() if own == split})
            for split in N_IMAGES
        }
        images = {f"{split}_images": (len(splits[split]), n) for split, n in N_IMAGES.items()}
        self.require(source, classes=(len(classes), N_CLASSES), **images)
        return classes, splits

    def _listed(self, source: Copy | Folder) -> dict[str, str]:
        """The split of each image "class/file", as the dataset's lists give it."""
        texts = self.read_texts(source)
        classes, images, labels, flags = (_table(texts[name], name, source) for name in LISTS)
        for name, table in zip(LISTS[2:], (labels, flags), strict=True):
            for key in images.keys() ^ table.keys():
                lacking = name if key in images else "images.txt"
                raise incomplete(
                    f"{source.place} needs the same images in images.txt and {name}, {lacking} "
                    f"does not have number {key}"
                )
        present = set(source.names)
        for key, image in images.items():
            label, flag = labels[key], flags[key]
            if not re.fullmatch(r"[^/]+/[^/.][^/]*", image) or image not in present:
                raise incomplete(
                    f"{source.place} needs the image {image} that images.txt names, there is none "
                    "in its folder of images"
                )
            if classes.get(label) != image.partition("/")[0]:
                raise incomplete(
                    f"{source.place} needs the class of {image} in image_class_labels.txt, which "
                    f"has class {label}, {classes.get(label)!r}"
                )
            if flag not in ("0", "1"):
                raise incomplete(
                    f"{source.place} needs 0 or 1 for {image} in train_test_split.txt, which has "
                    f"{flag!r}"
                )
        return {image: "train" if flags[key] == "1" else "test" for key, image in images.items()}


def _table(text: str, name: str, source: Source) -> dict[str, str]:
    """Lines "number value"."""
    rows = {}
    for line in text.splitlines():
        number, _, value = line.strip().partition(" ")
        if not value or number in rows:
            raise incomplete(
                f"{name} of {source.place} needs lines of a new number and a value, it has {line!r}"
            )
        rows[number] = value
    return rows
