"""imagenet_r: 200 ImageNet classes in 30,000 renditions (Hendrycks et al. 2021), split into tasks.

Read from whichever of these is found first, in the data directory or among earlier downloads:

1. the official archive, `imagenet-r.tar` or `imagenet-r/imagenet-r.tar`;
2. a Hugging Face parquet copy, `imagenet-r/**/*.parquet`, with the columns `image` (bytes and file
   name) and `wnid`;
3. a folder, `imagenet-r/<wnid>/*`.

Without any of them the archive is downloaded. The dataset has no split of its own for training:
`splits.split_by_rule` holds out a fifth, 6,000 images, by their names alone. It is no other
paper's split, most of which were drawn at random. Classes are named by their WordNet id.
"""

from benchmarks.streams.common.canonical import CanonicalStream, Source
from benchmarks.streams.common.splits import Splits, split_by_rule

N_CLASSES = 200
N_IMAGES = 30_000
TEST_FRACTION = 0.2


class ImageNetR(CanonicalStream):
    """ImageNet-R."""

    title = "ImageNet-R"
    archive = "imagenet-r.tar"
    md5 = "a61312130a589d0ca1a8fca1f2bd3337"
    urls = ("https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",)
    folder = "imagenet-r"
    images = ""
    column = "wnid"
    rule = f"by rule, {TEST_FRACTION} of each class held out by the SHA-256 of the names"
    n_classes = N_CLASSES
    n_items = {"classes": N_CLASSES, "train": 24_000, "test": 6_000}

    def split(self, source: Source) -> tuple[list[str], Splits]:
        """By the names alone."""
        classes, splits = split_by_rule(source.names, TEST_FRACTION)
        self.require(
            source, classes=(len(classes), N_CLASSES), images=(len(source.names), N_IMAGES)
        )
        return classes, splits
