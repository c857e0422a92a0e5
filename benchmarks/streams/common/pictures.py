"""Pictures: from an encoded image to 224 x 224 bytes, and from those to the files of a stream.

- Picture (`decode`): upright, on white, 8 bits; what was done for it is counted in the manifest.
- Crop (`CROP`): done once; the size is that of torchvision's Resize(256) and CenterCrop(224).
- Storage (`STORAGE`): what `benchmarks.streams.common.tasks` maps into memory, and `data.npz` with
  the labels.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from benchmarks.common.errors import DataError, one_sentence
from benchmarks.common.files import write_bytes
from benchmarks.common.progress import Progress
from benchmarks.streams.common import sources
from benchmarks.streams.common.splits import ORDER, Splits

if TYPE_CHECKING:
    from PIL.Image import Image

READER = 2  # raise it when the same file gives another picture

RESIZED, SIZE = 256, 224  # pixels: the shorter side, and the square cut out of it
CROP = (
    f"upright, on white, RGB, shorter side resized to {RESIZED} px (bicubic), "
    f"central {SIZE} x {SIZE} px"
)
STORAGE = "train_images.npy, test_images.npy: uint8 (image, row, column, channel)"

MAX_PIXELS = 100_000_000  # of an image; its width and height are known before it is decoded
MAX_RATIO = 100  # of its sides: resized, it is as long as that many squares

_TURNS = {  # by the tag of orientation
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def digest_as_read(content: str) -> str:
    """Digest of what files hold and of how this version reads them."""
    return hashlib.sha256(f"{READER} {content}".encode()).hexdigest()


def decode(content: bytes, where: str) -> tuple[Image, list[str]]:
    """An encoded image as 8-bit RGB, and what had to be done for it beside decoding.

    It is turned as its tag of orientation says. What is transparent becomes white. 16 bits, and
    floats from 0 to 1, are scaled to 8 bits; deeper ones have no white that all files agree on and
    are refused. Of several frames or pages the first one is taken.
    """
    from PIL import Image

    unfit = one_sentence(f"{where} is truncated or no image", "replace or remove it")
    with warnings.catch_warnings(), unfit:
        if len(content) > sources.MAX_BYTES:
            raise ValueError(f"it has more than {sources.MAX_BYTES >> 20} MiB")
        warnings.simplefilter("ignore")  # of Pillow: about size, which is looked at here, and tags
        with Image.open(io.BytesIO(content)) as opened:
            _require_size(opened, where)
            # In MPO, telephones keep the brightness beside the photograph; in PSD it is layers.
            one = opened.format in ("MPO", "PSD") or getattr(opened, "n_frames", 1) == 1
            done = [] if one else ["of several frames, the first"]
            turn = None
            with suppress(Exception):  # a damaged tag is no damaged picture
                turn = _TURNS.get(opened.getexif().get(0x0112))
            opened.load()
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
                if opened.format != "TIFF":  # which Pillow turns as it loads it
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


def fitted(image: Image, height: int, width: int) -> np.ndarray:
    """A picture as (height, width, 3) uint8: as it is if it has that size, else its `crop`."""
    from PIL import Image

    if image.size != (width, height):
        image = Image.fromarray(crop(image)).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(image)


class Source(Protocol):
    """Encoded images by name."""

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]: ...

    def where(self, name: str) -> str: ...


def store(
    out: Path, source: Source, name: str, classes: list[str], splits: Splits, /, **facts: str
) -> dict:
    """Decode, crop and write all images with their labels.

    Files appear under their names once all of them are whole.

    Returns:
        The manifest: what all these streams state, and `facts` of their own.
    """
    converted: Counter[str] = Counter()
    place = {
        image: (split, i) for split, images in splits.items() for i, (image, _) in enumerate(images)
    }
    progress = Progress(f"prepare {name}", len(place), "images")
    stores: dict[str, _ImageFile] = {}
    try:
        for split, images in splits.items():
            stores[split] = _ImageFile(out / f"{split}_images.npy", len(images))
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
            os.replace(images.part, images.path)
    except OSError as error:
        raise DataError(
            f"the images could not be saved in {out} ({error.strerror}): make room and run again"
        ) from error
    finally:
        for images in stores.values():
            images.discard()
    return {
        "image_size": SIZE,
        "classes": classes,
        "n_images": {split: len(images) for split, images in splits.items()},
        "crop": CROP,
        "storage": STORAGE,
        "order": ORDER,
        "n_bytes": n_bytes,
        "converted": dict(converted),
        **facts,
    }


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> int:
    """Write an uncompressed .npz atomically; returns its size in bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getbuffer())
    return buffer.tell()


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
        self._file.seek(self._start + i * image.nbytes)
        self._file.write(image.tobytes())

    def close(self) -> int:
        """Bring everything to the disk; returns the size in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self.part.stat().st_size

    def discard(self) -> None:
        with suppress(OSError):
            self._file.close()
        self.part.unlink(missing_ok=True)
