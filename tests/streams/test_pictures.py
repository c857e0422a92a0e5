"""Pictures: the same in every form of file, refused where white would be guessed; their split."""

import io
import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image, ImageCms

from benchmarks.common.errors import DataError
from benchmarks.streams.common import sources
from benchmarks.streams.common.pictures import decode
from benchmarks.streams.common.splits import split_by_rule

# The left third is black, the middle is grey, the right third is white; 45 x 30 pixels.
GREY = np.repeat(np.repeat([0, 100, 255], 15)[None], 30, axis=0).astype(np.uint8)
RGB = np.stack([GREY] * 3, axis=-1)
CLEAR = np.where(GREY == 255, 0, 255).astype(np.uint8)  # an alpha that hides the right third
BLACK = np.where(GREY == 255, 0, GREY)  # what is hidden there


def saved(array, kind, mode=None, **options):
    file = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def deep(scale=257):
    return GREY.astype(np.uint16) * scale


def tiff(order, white_is_zero=False):
    """Written out: Pillow writes such files in the order of its machine, and black is 0."""
    sign = {"MM": ">", "II": "<"}[order]
    values = 65535 - deep() if white_is_zero else deep()
    tags = {256: 45, 257: 30, 258: 16, 259: 1, 262: int(not white_is_zero), 273: 8, 277: 1, 278: 30}
    tags[279] = 2 * values.size
    entries = [struct.pack(f"{sign}HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items()]
    directory = struct.pack(f"{sign}H", len(tags)) + b"".join(entries) + bytes(4)
    header = order.encode() + struct.pack(f"{sign}HI", 42, 8 + 2 * values.size)
    return header + values.astype(f"{sign}u2").tobytes() + directory


def palette_with_a_clear_colour():
    image = Image.fromarray(np.repeat(np.repeat([0, 1, 2], 15)[None], 30, axis=0).astype(np.uint8))
    image.putpalette([0, 0, 0, 100, 100, 100, 0, 0, 0])
    return saved(image, "PNG", transparency=2)


def in_lab():
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return saved(
        ImageCms.profileToProfile(Image.fromarray(RGB), *profiles, outputMode="LAB"), "TIFF"
    )


TWO = {"save_all": True, "append_images": [Image.fromarray(255 - GREY)]}
FORMS = {  # what has to be said, and ways to write the picture
    "": {
        "grey": lambda: saved(GREY, "PNG"),
        "alpha that hides nothing": lambda: saved(RGB, "PNG", "RGBA"),
        "palette": lambda: saved(Image.fromarray(RGB).quantize(), "PNG"),
        "CMYK": lambda: saved(RGB, "TIFF", "CMYK"),
        "YCbCr": lambda: saved(RGB, "TIFF", "YCbCr"),
        "LAB": in_lab,
        "telephone": lambda: saved(
            RGB, "MPO", save_all=True, append_images=[Image.fromarray(RGB[::2])]
        ),
    },
    "scaled to 8 bits": {
        "16 bits": lambda: saved(deep(), "PNG"),
        "16 bits, big-endian": lambda: tiff("MM"),
        "16 bits, white is 0": lambda: tiff("II", True),
        "16 bits, PGM": lambda: b"P5 45 30 65535 " + deep().astype(">u2").tobytes(),
        "16 bits, one level clear": lambda: saved(
            BLACK.astype(np.uint16) * 257 + (GREY == 255), "PNG", transparency=1
        ),
        "32 bits of whole numbers": lambda: saved(deep().astype(np.int32), "TIFF"),
        "floats": lambda: saved(GREY.astype(np.float32) / 255, "TIFF"),
    },
    "transparent, put on white": {
        "colours with alpha": lambda: saved(np.dstack([BLACK] * 3 + [CLEAR]), "PNG"),
        "grey with alpha": lambda: saved(np.dstack([BLACK, CLEAR]), "PNG"),
        "a clear colour of a palette": palette_with_a_clear_colour,
        "one clear colour": lambda: saved(
            np.dstack([BLACK + (GREY == 255)] * 3), "PNG", transparency=(1, 1, 1)
        ),
    },
    "of several frames, the first": {
        "animation": lambda: saved(GREY, "GIF", **TWO),
        "pages": lambda: saved(GREY, "TIFF", **TWO),
    },
}


@pytest.mark.parametrize(
    ("write", "said"),
    [
        pytest.param(write, said, id=form)
        for said, forms in FORMS.items()
        for form, write in forms.items()
    ],
)
def test_a_picture_is_the_same_in_every_form(write, said):
    image, done = decode(write(), "here")
    assert image.mode == "RGB" and image.size == (45, 30) and done == ([said] if said else [])
    assert np.abs(np.asarray(image).astype(int) - RGB).max() <= 3


def test_one_bit_and_every_level_of_16_stay():
    image, done = decode(saved(GREY > 50, "PNG"), "here")
    assert np.array_equal(np.asarray(image)[..., 0], np.where(GREY > 50, 255, 0)) and not done
    levels = np.arange(256, dtype=np.uint16)[None].repeat(4, axis=0)
    image, _ = decode(saved(levels * 257, "PNG"), "here")
    assert np.array_equal(np.asarray(image)[..., 0], levels)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_a_picture_is_turned_upright(kind, tag):
    """The tag says which sides of the upright picture the first row and column are."""
    upright = np.zeros((32, 48), np.uint8)
    upright[:16, :16], upright[16:, :16], upright[:16, 32:] = 250, 120, 60
    stored = {
        **{1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1]},
        **{5: upright.T, 6: upright[:, ::-1].T, 7: upright[::-1, ::-1].T, 8: upright[::-1].T},
    }[tag]
    exif = Image.Exif()
    exif[0x0112] = tag
    content = saved(np.ascontiguousarray(stored), kind, "RGB", exif=exif)
    image, done = decode(content, "here")
    assert image.size == (48, 32)
    found, wanted = (
        part[8:24:8, 8:48:16].astype(int) for part in (np.asarray(image)[..., 0], upright)
    )
    assert np.abs(found - wanted).max() < 8
    assert done == (["turned upright"] if tag > 1 else [])


def test_a_damaged_tag_is_no_damaged_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(RGB, "WEBP", exif=exif)
    start = content.index(b"MM\0*")
    broken = content[:start] + b"no" + content[start + 2 :]
    with Image.open(io.BytesIO(broken)) as opened, pytest.raises(SyntaxError):
        opened.getexif()
    image, done = decode(broken, "here")
    assert image.size == (45, 30) and not done


def header_of_a_png(width, height):
    """A PNG that says its size and has nothing else."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 1000) + b"IDAT"


UNFIT = {
    "1 x 20,000 pixels": lambda: header_of_a_png(1, 20_000),
    "200,000 x 1 pixels": lambda: header_of_a_png(200_000, 1),
    "10,001 x 10,001": lambda: header_of_a_png(10_001, 10_001),
    "65,535 x 0|no image": lambda: header_of_a_png(65_535, 0),
    "from 0 to 4080": lambda: saved(deep(16), "PNG"),  # 12 bits in 16
    "from -1 to 65534": lambda: saved(deep().astype(np.int32) - 1, "TIFF"),
    "from 0 to 65536": lambda: saved(deep().astype(np.int32) + (GREY == 255), "TIFF"),
    "floats from 0 to 255": lambda: saved(GREY.astype(np.float32), "TIFF"),
    "floats from -1 to 1": lambda: saved(GREY.astype(np.float32) / 127.5 - 1, "TIFF"),
    "floats from nan": lambda: saved(np.full((9, 9), np.nan, np.float32), "TIFF"),
    "EPS": lambda: saved(RGB, "EPS"),
}


@pytest.mark.parametrize("found", UNFIT)
def test_what_would_be_guessed_or_too_large_is_named(found):
    """Sizes are looked at before anything is decoded: these files hold nothing to decode."""
    with pytest.raises(DataError, match=f"^here .*({found})"):
        decode(UNFIT[found](), "here")


def test_more_bytes_than_any_image_has_are_refused(monkeypatch):
    monkeypatch.setattr(sources, "MAX_BYTES", len(content := saved(RGB, "PNG")) - 1)
    with pytest.raises(DataError, match="^here .*MiB"):
        decode(content, "here")


# ---------------------------------------------------------------------------- split


def test_the_split_by_rule_of_imagenet_r_has_the_usual_sizes():
    """200 classes of 51 to 430 images, 30,000 in all."""
    sizes = np.random.default_rng(0).multinomial(30_000 - 200 * 51, np.ones(200) / 200) + 51
    names = [f"n{c:08d}/art_{i}.jpg" for c, n in enumerate(sizes) for i in range(n)]
    classes, splits = split_by_rule(names, 0.2)
    assert [len(splits["train"]), len(splits["test"])] == [24_000, 6_000]
    n_test = np.bincount([label for _, label in splits["test"]])
    assert np.abs(n_test - sizes / 5).max() < 1
    assert split_by_rule(reversed(names), 0.2) == (classes, splits)


@pytest.mark.parametrize("fraction", [0.1, 0.29, 0.5, 0.99])
def test_the_rule_deals_out_by_largest_remainders(fraction):
    sizes = [10, 100, 2, 33, 7]
    names = [f"{c}/{i}" for c, n in enumerate(sizes) for i in range(n)]
    _, splits = split_by_rule(names, fraction)
    n_test = [sum(label == c for _, label in splits["test"]) for c in range(5)]
    exact = [Fraction(str(fraction)) * n for n in sizes]
    for c, (n, share) in enumerate(zip(n_test, exact, strict=True)):
        assert n in {int(share), int(share) + 1, 1, sizes[c] - 1}
        assert 1 <= n < sizes[c]
