"""Streams of large images: equal arrays whatever the source, a sentence for each broken one."""

import dataclasses
import functools
import hashlib
import io
import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tarfile
import unicodedata
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from PIL import Image, ImageCms

from benchmarks import streams
from benchmarks.common.files import DataError
from benchmarks.runs import plan
from benchmarks.runs.config import load_suite
from benchmarks.streams import __main__ as command_line
from benchmarks.streams import cub200, folder, imagenet_r
from benchmarks.streams.common import images as _images
from benchmarks.streams.common import tasks as benchmark_data
from benchmarks.streams.common.tasks import load_stream

ROOT = Path(__file__).resolve().parents[2]
SIZES = [(300, 260), (256, 256), (40, 90), (513, 257)]  # width and height, larger and smaller


@functools.cache
def encoded(i, kind="JPEG"):
    """An image that no other number gives, of varying size and mode."""
    width, height = SIZES[i % len(SIZES)]
    draw = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(draw).resize((width, height)).convert("L" if i % 5 == 4 else "RGB")
    file = io.BytesIO()
    image.save(file, kind, compress_level=1)
    return file.getvalue()


def cropped(content):
    """What torchvision makes of an image."""
    from torchvision import transforms

    resize = transforms.Resize(256, transforms.InterpolationMode.BICUBIC)
    image = Image.open(io.BytesIO(content)).convert("RGB")
    return np.asarray(transforms.CenterCrop(224)(resize(image)))


def rank(name):
    return hashlib.sha256(name.encode()).hexdigest()


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    monkeypatch.setattr(_images, "DOWNLOADS", tmp_path / "downloads")
    monkeypatch.setattr(_images, "DIGESTS", tmp_path / "digests")


# ---------------------------------------------------------------------------- miniature datasets


class Mini:
    """A dataset in miniature: its stream, the images by name "class/file", and other files."""

    def __init__(self, stream, root, images_in, images, texts):
        self.stream, self.root, self.images_in = stream, root, images_in
        self.images, self.texts = images, texts

    @property
    def archive(self):
        return self.stream.DATASET.archive

    def members(self):
        texts = {f"{self.root}/{name}": text.encode() for name, text in self.texts.items()}
        return texts | {f"{self.images_in}/{name}": c for name, c in self.images.items()}

    def write_archive(self, data, extra=()):
        data.mkdir(exist_ok=True)
        mode = "w:gz" if self.archive.endswith("gz") else "w"
        with tarfile.open(data / self.archive, mode) as archive:
            for name, content in sorted(self.members().items(), reverse=True):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            for member in extra:
                archive.addfile(member)

    def write_folder(self, data):
        for name, content in self.members().items():
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            (data / name).write_bytes(content)
        (data / self.root / ".hidden").write_text("")
        (data / self.images_in / sorted(self.images)[0]).with_name("._x.jpg").write_text("")

    def write_parquet(self, data):
        """Two tables, rows in another order than elsewhere, classes by name or by number."""
        classes = sorted({name.split("/")[0] for name in self.images})
        column = self.stream.DATASET.column
        features = {column: {"names": classes, "_type": "ClassLabel"}}
        for split, names in self.split_names().items():
            rows = []
            for name in sorted(names, key=lambda name: name[::-1]):
                own, file = name.split("/")
                row = {"image": {"bytes": self.images[name], "path": file}}
                rows.append(row | {column: classes.index(own) if column == "label" else own})
            (data / self.root / "data").mkdir(parents=True, exist_ok=True)
            table = pyarrow.Table.from_pylist(rows).replace_schema_metadata(
                {"huggingface": json.dumps({"info": {"features": features}})}
            )
            for i, part in enumerate((table[:3], table[3:])):
                name = f"{split}-{i:05d}-of-00002.parquet"
                pyarrow.parquet.write_table(part, data / self.root / "data" / name)

    def split_names(self):
        if self.stream is imagenet_r:
            return {"test": list(self.images)}
        flags = [line.split() for line in self.texts["train_test_split.txt"].splitlines()]
        names = dict(line.split() for line in self.texts["images.txt"].splitlines())
        return {
            split: [names[key] for key, flag in flags if flag == wanted]
            for split, wanted in (("train", "1"), ("test", "0"))
        }


@pytest.fixture
def renditions(monkeypatch):
    """ImageNet-R with 3 classes of 6, 7 and 2 images."""
    images = {}
    for wnid, n in (("n01443537", 6), ("n01484850", 7), ("n02088094", 2)):
        images |= {f"{wnid}/art_{i}.jpg": encoded(len(images) + i) for i in range(n)}
    monkeypatch.setattr(imagenet_r, "N_CLASSES", 3)
    monkeypatch.setattr(imagenet_r, "N_IMAGES", 15)
    return Mini(imagenet_r, "imagenet-r", "imagenet-r", images, {"README.txt": "n0144 fish"})


@pytest.fixture
def birds(monkeypatch):
    """CUB-200-2011 with 2 classes of 4 images."""
    classes = ["001.Black_footed_Albatross", "002.Laysan_Albatross"]
    names = [f"{classes[i // 4]}/Bird_{9 - i:04d}_{i}.jpg" for i in range(8)]
    texts = {
        "classes.txt": "".join(f"{i + 1} {name}\n" for i, name in enumerate(classes)),
        "images.txt": "".join(f"{i + 1} {name}\n" for i, name in enumerate(names)),
        "image_class_labels.txt": "".join(f"{i + 1} {i // 4 + 1}\n" for i in range(8)),
        "train_test_split.txt": "".join(f"{i + 1} {int(i not in (1, 4, 6))}\n" for i in range(8)),
    }
    monkeypatch.setattr(cub200, "N_CLASSES", 2)
    monkeypatch.setattr(cub200, "N_IMAGES", {"train": 5, "test": 3})
    images = {name: encoded(i) for i, name in enumerate(names)}
    return Mini(cub200, "CUB_200_2011", "CUB_200_2011/images", images, texts)


@pytest.fixture(params=["renditions", "birds"])
def mini(request):
    return request.getfixturevalue(request.param)


def prepared(mini, data, out):
    name = mini.stream.__name__.rpartition(".")[2]
    manifest = streams.prepare(name, out, data)
    arrays = dict(np.load(out / "data.npz"))
    for split in ("train", "test"):
        arrays[f"{split}_images"] = np.load(out / f"{split}_images.npy", mmap_mode="r")
    return manifest, arrays


# ---------------------------------------------------------------------------- good sources


@pytest.mark.parametrize("layout", ["archive", "folder", "parquet"])
def test_every_source_gives_the_images_torchvision_would(mini, tmp_path, layout):
    getattr(mini, f"write_{layout}")(tmp_path / "data")
    manifest, arrays = prepared(mini, tmp_path / "data", tmp_path / "out")
    assert manifest["fingerprint"] == mini.stream.fingerprint(tmp_path / "data")
    assert {"archive": "archive", "folder": "folder"}.get(layout, layout) in manifest["source"]
    classes = sorted({name.split("/")[0] for name in mini.images})
    assert manifest["classes"] == classes
    if mini.stream is cub200:
        wanted = {split: set(names) for split, names in mini.split_names().items()}
    else:  # of 15 images 3, dealt out to shares of 1.2, 1.4 and 0.4, and no class without one
        test = [
            sorted((n for n in mini.images if n.startswith(c)), key=rank)[:k]
            for c, k in zip(classes, (1, 2, 1), strict=True)
        ]
        wanted = {"test": set(sum(test, []))}
        wanted["train"] = set(mini.images) - wanted["test"]
    for split, names in wanted.items():
        names = sorted(names, key=lambda name: (name.split("/")[0], rank(name)))
        labels = [classes.index(name.split("/")[0]) for name in names]
        assert arrays[f"{split}_labels"].tolist() == labels
        assert arrays[f"{split}_images"].dtype == np.uint8
        for image, name in zip(arrays[f"{split}_images"], names, strict=True):
            assert np.array_equal(image, cropped(mini.images[name])), name
    files = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    del files["manifest.json"]
    assert files.keys() == {"data.npz", "train_images.npy", "test_images.npy"}
    assert manifest["n_bytes"] == sum(files.values())


def test_the_official_archive_has_one_name_before_and_after_its_download(
    mini, tmp_path, monkeypatch
):
    def fetch(urls, digest, target):
        asked.append((urls, digest, target))
        target.parent.mkdir()
        return served.rename(target)

    asked = []
    mini.write_archive(tmp_path)
    served = tmp_path / mini.archive
    md5 = hashlib.md5(served.read_bytes()).hexdigest()
    monkeypatch.setattr(mini.stream, "DATASET", dataclasses.replace(mini.stream.DATASET, md5=md5))
    monkeypatch.setattr(_images, "fetch", fetch)
    before = mini.stream.fingerprint(None)
    manifest, _ = prepared(mini, None, tmp_path / "out")
    mini.stream.prepare(tmp_path / "out", None)  # the download is found
    target = tmp_path / "downloads" / mini.archive
    assert asked == [(mini.stream.DATASET.urls, f"md5:{md5}", target)]
    assert "official archive" in manifest["source"]
    assert before == mini.stream.fingerprint(None) == manifest["fingerprint"]
    target.write_bytes(target.read_bytes() + b"more")
    assert mini.stream.fingerprint(None) != before


def test_the_split_by_rule_of_imagenet_r_has_the_usual_sizes():
    """200 classes of 51 to 430 images, 30,000 in all."""
    sizes = np.random.default_rng(0).multinomial(30_000 - 200 * 51, np.ones(200) / 200) + 51
    names = [f"n{c:08d}/art_{i}.jpg" for c, n in enumerate(sizes) for i in range(n)]
    classes, splits = _images.split_by_rule(names, 0.2)
    assert [len(splits["train"]), len(splits["test"])] == [24_000, 6_000]
    n_test = np.bincount([label for _, label in splits["test"]])
    assert np.abs(n_test - sizes / 5).max() < 1
    assert _images.split_by_rule(reversed(names), 0.2) == (classes, splits)


@pytest.mark.parametrize("fraction", [0.1, 0.29, 0.5, 0.99])
def test_the_rule_deals_out_by_largest_remainders(fraction):
    sizes = [10, 100, 2, 33, 7]
    names = [f"{c}/{i}" for c, n in enumerate(sizes) for i in range(n)]
    _, splits = _images.split_by_rule(names, fraction)
    n_test = [sum(label == c for _, label in splits["test"]) for c in range(5)]
    exact = [Fraction(str(fraction)) * n for n in sizes]
    for c, (n, share) in enumerate(zip(n_test, exact, strict=True)):
        assert n in {int(share), int(share) + 1, 1, sizes[c] - 1}
        assert 1 <= n < sizes[c]


def test_a_digest_is_remembered_until_the_file_changes(tmp_path, monkeypatch):
    file = tmp_path / "image.png"
    file.write_bytes(b"one")
    os.utime(file, (1e9, 1e9))
    first = _images.digest_of_files({"a": file})
    computed = []
    real = _images.digest_of_file
    monkeypatch.setattr(
        _images, "digest_of_file", lambda *args: computed.append(args) or real(*args)
    )
    assert _images.digest_of_files({"a": file}) == first and not computed
    assert _images.digest_of_files({"b": file}) != first
    file.write_bytes(b"two")  # just now: not remembered
    assert len({_images.digest_of_files({"a": file}) for _ in range(2)} | {first}) == 2
    assert len(computed) == 2
    (next((tmp_path / "digests").iterdir())).write_text("no JSON")
    assert _images.digest_of_files({"a": file}) != first


# ---------------------------------------------------------------------------- broken sources

# Each breaks a good source in a folder and gives what the sentence has to say.


def truncated_archive(mini, data):
    mini.write_archive(data)
    cut_in_half(data / mini.archive)
    return f"{mini.archive} is truncated or no tar file"


def archive_cut_between_members(mini, data):
    mini.images = dict(list(mini.images.items())[1:])
    if mini.stream is cub200:
        mini.write_archive(data)
        return "needs the image 001.Black_footed_Albatross/Bird_0009_0.jpg"
    mini.write_archive(data)
    return "ImageNet-R needs 15 images, .* has 14"


def no_archive(mini, data):
    (data / mini.archive).write_bytes(b"<html>Sign in to the network</html>")
    return "truncated or no tar file"


def archive_that_climbs(mini, data):
    mini.write_archive(data, [tarfile.TarInfo(f"{mini.images_in}/../../escaped.jpg")])
    return "holds the path .*/../../escaped.jpg', which could lead outside .* and is refused"


def archive_with_an_absolute_path(mini, data):
    mini.write_archive(data, [tarfile.TarInfo("/etc/escaped.jpg")])
    return "holds the path '/etc/escaped.jpg'"


def archive_with_a_link(mini, data, kind=tarfile.SYMTYPE):
    link = tarfile.TarInfo(f"{mini.images_in}/n01443537/link.jpg")
    link.type, link.linkname = kind, "/etc/passwd"
    mini.write_archive(data, [link])
    return "holds the link .*link.jpg"


def archive_with_a_hard_link(mini, data):
    return archive_with_a_link(mini, data, tarfile.LNKTYPE)


def a_class_too_few(mini, data):
    mini.images = {n: c for n, c in mini.images.items() if not n.startswith(("n02", "002"))}
    if mini.stream is cub200:
        for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt"):
            mini.texts[name] = "".join(mini.texts[name].splitlines(True)[:4])
    mini.write_folder(data)
    return r"needs \d classes, .* has \d: use a complete copy"


def undecodable_image(mini, data, change=lambda content: b"GIF89a, but no more"):
    name = sorted(mini.images)[2]
    mini.images[name] = change(mini.images[name])
    return f"{name}.* is truncated or no image"


def undecodable_image_in_archive(mini, data):
    expected = undecodable_image(mini, data)
    mini.write_archive(data)
    return expected


def truncated_image_in_a_folder(mini, data):
    expected = undecodable_image(mini, data, lambda content: content[: len(content) // 2])
    mini.write_folder(data)
    return expected


def empty_image_in_parquet(mini, data):
    expected = undecodable_image(mini, data, lambda content: None)
    mini.write_parquet(data)
    return expected


def truncated_parquet(mini, data):
    mini.write_parquet(data)
    cut_in_half(data / mini.root / "data" / "test-00000-of-00002.parquet")
    return "test-00000-of-00002.parquet needs the columns image"


def parquet_without(mini, data, change):
    mini.write_parquet(data)
    for file in (data / mini.root / "data").iterdir():
        table = pyarrow.parquet.read_table(file)
        pyarrow.parquet.write_table(change(table), file)
    return "needs the columns image .bytes and path. and"


def parquet_without_file_names(mini, data):
    def change(table):
        rows = [{"bytes": row["bytes"], "path": None} for row in table["image"].to_pylist()]
        return table.set_column(0, "image", [rows])

    return parquet_without(mini, data, change)


def parquet_without_classes(mini, data):
    return parquet_without(mini, data, lambda table: table.select(["image"]))


def parquet_of_texts(mini, data):
    return parquet_without(mini, data, lambda t: t.set_column(0, "image", [["x"] * len(t)]))


def parquet_with_a_table_twice(mini, data):
    mini.write_parquet(data)
    tables = data / mini.root / "data"
    shutil.copy(tables / "test-00000-of-00002.parquet", tables / "test-00002-of-00002.parquet")
    return "holds .* a second time"


def folder_in_a_class(mini, data):
    mini.write_folder(data)
    (data / mini.images_in / sorted(mini.images)[0]).parent.joinpath("more").mkdir()
    return "needs images only, it holds the folder more"


BROKEN = [
    *(truncated_archive, archive_cut_between_members, no_archive, archive_that_climbs),
    *(archive_with_an_absolute_path, archive_with_a_link, archive_with_a_hard_link),
    *(a_class_too_few, undecodable_image_in_archive, truncated_image_in_a_folder),
    *(empty_image_in_parquet, truncated_parquet, parquet_without_file_names),
    *(parquet_without_classes, parquet_of_texts, parquet_with_a_table_twice, folder_in_a_class),
]


def check_broken(mini, expected, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DataError, match=expected) as caught:
        prepared(mini, tmp_path / "data", out)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    assert "BytesIO" not in str(caught.value)
    assert not list(out.iterdir())
    assert not list(tmp_path.rglob("*escaped*"))


@pytest.mark.parametrize("broken", BROKEN, ids=lambda function: function.__name__)
def test_a_broken_source_is_one_sentence(mini, tmp_path, broken):
    (tmp_path / "data").mkdir()
    check_broken(mini, broken(mini, tmp_path / "data"), tmp_path)


@pytest.mark.parametrize(
    "name, line, replacement, expected",
    [
        ("train_test_split.txt", "3 1", "99 1", "same images in images.txt and train_test_split"),
        ("train_test_split.txt", "3 1", "3 7", "needs 0 or 1 for .*Bird_0007_2.jpg .* '7'"),
        ("train_test_split.txt", "3 1", "2 1", "a new number and a value, it has '2 1'"),
        ("train_test_split.txt", "3 1", "3", "a new number and a value, it has '3'"),
        ("train_test_split.txt", "3 1", "3 0", "needs 5 train images, .* has 4"),
        ("image_class_labels.txt", "3 1", "3 2", "has class 2, '002.Laysan_Albatross'"),
        ("image_class_labels.txt", "3 1", "3 9", "has class 9, None"),
        ("images.txt", "Bird_0007_2.jpg", "gone.jpg", "needs the image 001.*/gone.jpg"),
        ("images.txt", "Bird_0007_2.jpg", "../../images.txt", "needs the image 001.*/../../images"),
    ],
)
@pytest.mark.parametrize("layout", ["archive", "folder"])
def test_lists_of_birds_that_do_not_fit(birds, tmp_path, layout, name, line, replacement, expected):
    assert line in birds.texts[name]
    birds.texts[name] = birds.texts[name].replace(line, replacement, 1)
    getattr(birds, f"write_{layout}")(tmp_path / "data")
    check_broken(birds, expected, tmp_path)


def test_birds_under_other_names(birds, tmp_path):
    birds.images = {name[4:]: content for name, content in birds.images.items()}
    birds.texts["images.txt"] = birds.texts["images.txt"].replace("001.", "").replace("002.", "")
    birds.write_parquet(tmp_path / "data")
    check_broken(birds, "own class names, such as 001.*, it has 'Black_footed", tmp_path)


def test_a_list_of_birds_is_missing(birds, tmp_path):
    del birds.texts["classes.txt"]
    birds.write_archive(tmp_path / "data")
    check_broken(birds, "needs CUB_200_2011/classes.txt, it is missing", tmp_path)
    (tmp_path / "data" / birds.archive).unlink()
    birds.write_folder(tmp_path / "data")
    check_broken(birds, "classes.txt cannot be read .No such file", tmp_path)


def test_a_download_with_another_digest_is_refused(mini, tmp_path, monkeypatch):
    mini.write_archive(tmp_path / "served")
    url = (tmp_path / "served" / mini.archive).as_uri()
    changed = dataclasses.replace(mini.stream.DATASET, urls=(url,))
    monkeypatch.setattr(mini.stream, "DATASET", changed)
    with pytest.raises(DataError, match=f"should have md5 {changed.md5}, what came has"):
        mini.stream.prepare(tmp_path / "out", None)
    assert not list((tmp_path / "downloads").iterdir())


def test_a_full_disk_is_one_sentence(renditions, tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    renditions.write_folder(tmp_path / "data")
    monkeypatch.setattr(_images.os, "fsync", full)
    check_broken(renditions, "train_images.npy could not be saved .No space left", tmp_path)


# ---------------------------------------------------------------------------- forms of a picture

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


FORMS = {  # a way to write the picture, and what has to be said about it
    "grey": (lambda: saved(GREY, "PNG"), []),
    "16 bits": (lambda: saved(deep(), "PNG"), ["scaled to 8 bits"]),
    "16 bits, big-endian": (lambda: tiff("MM"), ["scaled to 8 bits"]),
    "16 bits, white is 0": (lambda: tiff("II", True), ["scaled to 8 bits"]),
    "16 bits, PGM": (
        lambda: b"P5 45 30 65535 " + deep().astype(">u2").tobytes(),
        ["scaled to 8 bits"],
    ),
    "16 bits, one level clear": (
        lambda: saved(BLACK.astype(np.uint16) * 257 + (GREY == 255), "PNG", transparency=1),
        ["scaled to 8 bits"],
    ),
    "32 bits of whole numbers": (
        lambda: saved(deep().astype(np.int32), "TIFF"),
        ["scaled to 8 bits"],
    ),
    "floats": (lambda: saved(GREY.astype(np.float32) / 255, "TIFF"), ["scaled to 8 bits"]),
    "colours with alpha": (
        lambda: saved(np.dstack([BLACK] * 3 + [CLEAR]), "PNG"),
        ["transparent, put on white"],
    ),
    "alpha that hides nothing": (lambda: saved(RGB, "PNG", "RGBA"), []),
    "grey with alpha": (
        lambda: saved(np.dstack([BLACK, CLEAR]), "PNG"),
        ["transparent, put on white"],
    ),
    "a clear colour of a palette": (palette_with_a_clear_colour, ["transparent, put on white"]),
    "one clear colour": (
        lambda: saved(np.dstack([BLACK + (GREY == 255)] * 3), "PNG", transparency=(1, 1, 1)),
        ["transparent, put on white"],
    ),
    "palette": (lambda: saved(Image.fromarray(RGB).quantize(), "PNG"), []),
    "CMYK": (lambda: saved(RGB, "TIFF", "CMYK"), []),
    "YCbCr": (lambda: saved(RGB, "TIFF", "YCbCr"), []),
    "LAB": (in_lab, []),
    "animation": (
        lambda: saved(GREY, "GIF", save_all=True, append_images=[Image.fromarray(255 - GREY)]),
        ["of several frames, the first"],
    ),
    "pages": (
        lambda: saved(GREY, "TIFF", save_all=True, append_images=[Image.fromarray(255 - GREY)]),
        ["of several frames, the first"],
    ),
    "telephone": (
        lambda: saved(RGB, "MPO", save_all=True, append_images=[Image.fromarray(RGB[::2])]),
        [],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_is_the_same_in_every_form(form):
    write, expected = FORMS[form]
    image, done = _images.decode(write(), "here")
    assert image.mode == "RGB" and image.size == (45, 30) and done == expected
    assert np.abs(np.asarray(image).astype(int) - RGB).max() <= 3


def test_black_and_white_stay_in_one_bit():
    image, done = _images.decode(saved(GREY > 50, "PNG"), "here")
    assert np.array_equal(np.asarray(image)[..., 0], np.where(GREY > 50, 255, 0)) and not done


def test_every_level_of_8_bits_comes_back_from_16():
    levels = np.arange(256, dtype=np.uint16)[None].repeat(4, axis=0)
    image, _ = _images.decode(saved(levels * 257, "PNG"), "here")
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
    image, done = _images.decode(content, "here")
    assert image.size == (48, 32)
    assert (
        np.abs(np.asarray(image)[8:24:8, 8:48:16, 0].astype(int) - upright[8:24:8, 8:48:16]).max()
        < 8
    )
    assert done == (["turned upright"] if tag > 1 and kind != "TIFF" else [])


def test_a_damaged_tag_is_no_damaged_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(RGB, "WEBP", exif=exif)
    start = content.index(b"MM\0*")
    broken = content[:start] + b"no" + content[start + 2 :]
    with Image.open(io.BytesIO(broken)) as opened, pytest.raises(SyntaxError):
        opened.getexif()
    image, done = _images.decode(broken, "here")
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
        _images.decode(UNFIT[found](), "here")


@pytest.mark.parametrize(
    "kind", [MemoryError(), KeyError("x"), struct.error("\033[2J"), EOFError()]
)
def test_whatever_a_decoder_raises_is_one_sentence(monkeypatch, kind):
    def broken(file):
        raise kind

    monkeypatch.setattr(Image, "open", broken)
    with pytest.raises(DataError, match="^here is truncated or no image") as caught:
        _images.decode(b"", "here")
    assert str(caught.value).isprintable()


# ---------------------------------------------------------------------------- hostile archives


def sparse_member(mini, data):
    """A header of 512 bytes that claims a terabyte."""
    header = tarfile.TarInfo(f"{mini.images_in}/big.jpg")
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[156:157] = tarfile.GNUTYPE_SPARSE
    block[386:410] = b"00000000000\0" * 2
    block[482:483] = b"\1"  # and more of its map follows
    block[483:495] = b"\x80" + (2**40).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    mini.write_archive(data)
    append(data / mini.archive, bytes(block))
    return "holds the sparse file '.*big.jpg'"


def long_header(mini, data):
    """The name of a member is said to have a gigabyte."""
    header = tarfile.TarInfo("long name")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**30
    mini.write_archive(data)
    append(data / mini.archive, header.tobuf(tarfile.GNU_FORMAT))
    return "a header of 1,073,741,824 bytes, which is refused"


def append(file, block):
    """One more member at the front, which is read first."""
    opened = tarfile.open(file)
    with opened, opened.fileobj as content:
        whole = (content.seek(0), content.read())[1]
    file.write_bytes(block + whole)


def terabyte(mini, data):
    """A member of which the archive has nothing."""
    header = tarfile.TarInfo(f"{mini.images_in}/{sorted(mini.images)[0]}")
    header.size = 2**40
    mini.write_archive(data, [header])
    return "truncated or no tar file|has more than"


def large_member(mini, data):
    name = sorted(mini.images)[0]
    mini.images[name] = bytes(_images.MAX_BYTES + 1)
    mini.write_archive(data)
    return f"{name} in .* has more than 0 MiB"


def too_many_members(mini, data):
    mini.write_archive(data, [tarfile.TarInfo(f"x/{i}") for i in range(_images.MAX_MEMBERS)])
    return "has more than 40 members"


def member_that_cannot_be_printed(mini, data):
    mini.write_archive(data, [tarfile.TarInfo(f"{mini.images_in}/x/\033[2J.jpg")])
    return r"holds the name '.*\\x1b\[2J.jpg'"


def pipe_for_an_archive(mini, data):
    (data / mini.archive).symlink_to("/dev/null")
    return "is a folder, a pipe, a socket or a device"


def large_file_in_a_folder(mini, data):
    name = sorted(mini.images)[0]
    mini.images[name] = bytes(_images.MAX_BYTES + 1)
    mini.write_folder(data)
    return f"{name} has more than 0 MiB"


def parquet_with_bytes_that_are_no_text(mini, data):
    def change(table):
        names = pyarrow.array([b"\xff\xfe"] * len(table), pyarrow.binary())
        images = pyarrow.StructArray.from_arrays(
            [
                table["image"].combine_chunks().field("bytes"),
                pyarrow.Array.from_buffers(pyarrow.string(), len(names), names.buffers()),
            ],
            ["bytes", "path"],
        )
        return table.set_column(0, "image", images)

    return parquet_without(mini, data, change)


def parquet_with_a_class_missing(mini, data):
    column = mini.stream.DATASET.column
    return parquet_without(
        mini,
        data,
        lambda t: t.set_column(1, column, pyarrow.array([None] * len(t), t[column].type)),
    )


HOSTILE = [
    *(sparse_member, long_header, terabyte, large_member, too_many_members),
    *(member_that_cannot_be_printed, pipe_for_an_archive, large_file_in_a_folder),
    *(parquet_with_bytes_that_are_no_text, parquet_with_a_class_missing),
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda function: function.__name__)
def test_no_size_is_believed(mini, tmp_path, hostile, monkeypatch):
    monkeypatch.setattr(_images, "MAX_BYTES", 600_000)
    monkeypatch.setattr(_images, "MAX_MEMBERS", 40)
    (tmp_path / "data").mkdir()
    check_broken(mini, hostile(mini, tmp_path / "data"), tmp_path)


def test_a_new_reader_gives_all_images_a_new_name(mini, own, tmp_path, monkeypatch):
    mini.write_folder(tmp_path / "data")

    def names():
        places = (None, tmp_path / "data")
        own_name = folder.fingerprint(path=str(own), test_fraction=0.4)
        return {*(mini.stream.fingerprint(place) for place in places), own_name}

    before = names()
    monkeypatch.setattr(_images, "READER", _images.READER + 1)
    assert len(before) == 3 and not before & names()


# ---------------------------------------------------------------------------- folder


SUITE = {
    "label": "own images",
    "seeds": [0, 1],
    "experiments": [
        {
            "stream": {"name": "folder", "n_tasks": 2},
            "backbone": {"name": "micro-vit"},
            "train": {"epochs": 1, "mask": "current"},
            "methods": {"seqlora": {}},
        },
    ],
}
CLASSES = {"apple": 4, "bear": 3, "crab": 5, "deer": 2}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of images by class, and a function that gives its suite."""
    monkeypatch.setattr(benchmark_data, "RESOURCES", tmp_path / "resources")
    path = tmp_path / "my images"
    for c, n in CLASSES.items():
        (path / c).mkdir(parents=True)
        for i in range(n):
            (path / c / f"photo {i}.png").write_bytes(encoded(100 * n + i, "PNG"))
    (path / "notes.txt").write_text("beside the class folders")
    return path


def suite_of(path, tmp_path, **options):
    document = json.loads(json.dumps(SUITE))
    document["experiments"][0]["stream"] |= {"path": path and str(path), **options}
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(document))
    return load_suite(str(file))


def with_own_split(path):
    """The same images in train/ and test/, the first of each class for testing."""
    for c in CLASSES:
        for i, file in enumerate(sorted((path / c).iterdir())):
            target = path / ("train" if i else "test") / c
            target.mkdir(parents=True, exist_ok=True)
            file.rename(target / file.name)
        (path / c).rmdir()


def prepared_tasks(run, resources):
    """Prepare the stream of a run as the workflow does, and load it."""
    command = plan.PlannedRun(run.spec, run.key, None)
    out = resources / "streams" / command.stream
    command_line.main([*shlex.split(command.stream_arguments), "--out", str(out)])
    return load_stream(run.spec["stream"], run.spec["seed"])


@pytest.mark.parametrize("split", ["own", "rule"])
def test_own_images_from_the_suite_file_to_tensors(own, tmp_path, split):
    images = {f"{c}/photo {i}.png": (own / c / f"photo {i}.png").read_bytes()
              for c, n in CLASSES.items() for i in range(n)}  # fmt: skip
    if split == "own":
        with_own_split(own)
        suite = suite_of(own, tmp_path)
        test = {f"{c}/photo 0.png" for c in CLASSES}
    else:
        suite = suite_of(own, tmp_path, test_fraction=0.4)
        # 0.4 of 4, 3, 5 and 2 is 1.6, 1.2, 2 and 0.8, together 5.6: 6
        n_test = {"apple": 2, "bear": 1, "crab": 2, "deer": 1}
        test = {
            name
            for c, k in n_test.items()
            for name in sorted((n for n in images if n.startswith(c)), key=rank)[:k]
        }
    run = suite.runs[0]
    tasks, task_of_class = prepared_tasks(run, tmp_path / "resources")
    assert task_of_class.tolist() == [0, 0, 1, 1] and len(tasks) == 2
    place = tmp_path / "resources/streams" / streams.place(run.spec["stream"])
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest["classes"] == sorted(CLASSES)
    assert place.name == f"folder-{run.spec['stream']['digest'][:8]}"

    order = benchmark_data._order(4, run.spec["stream"], 0)
    expected = {"train": {}, "test": {}}  # class index in the stream -> crops
    for name, content in images.items():
        i = order.index(sorted(CLASSES).index(name.split("/")[0]))
        expected["test" if name in test else "train"].setdefault(i, set()).add(
            cropped(content).transpose(2, 0, 1).tobytes()
        )
    for part in ("train", "test"):
        found = {}
        for task in tasks:
            x, y = (task.train.x, task.train.y) if part == "train" else (task.test_x, task.gold)
            assert x.dtype == torch.uint8 and x.shape[1:] == (3, 224, 224)
            for image, label in zip(x, y.tolist(), strict=True):
                found.setdefault(label, set()).add(image.numpy().tobytes())
        assert found == expected[part]


def test_the_class_order_is_drawn_from_the_seed(own, tmp_path):
    runs = suite_of(own, tmp_path, test_fraction=0.4).runs
    prepared_tasks(runs[0], tmp_path / "resources")
    seen = {
        seed: load_stream(runs[0].spec["stream"], seed)[0][0].test_x.sum().item()
        for seed in range(6)
    }
    assert len(set(seen.values())) > 1


def test_two_folders_have_two_places_and_a_moved_one_keeps_its_key(own, tmp_path):
    first = suite_of(own, tmp_path, test_fraction=0.4).runs[0]
    other = tmp_path / "other"
    shutil.copytree(own, other)
    moved = suite_of(other, tmp_path, test_fraction=0.4).runs[0]
    assert moved.key == first.key
    assert streams.place(moved.spec["stream"]) == streams.place(first.spec["stream"])
    assert moved.spec["stream"]["path"] == str(other)

    specs = [
        first.spec["stream"],
        suite_of(own, tmp_path, test_fraction=0.25).runs[0].spec["stream"],
    ]
    (other / "apple/photo 0.png").write_bytes(encoded(7, "PNG"))
    specs.append(suite_of(other, tmp_path, test_fraction=0.4).runs[0].spec["stream"])
    (other / "apple/photo 0.png").rename(other / "apple/photo 9.png")
    specs.append(suite_of(other, tmp_path, test_fraction=0.4).runs[0].spec["stream"])
    assert len({streams.place(spec) for spec in specs}) == 4


def test_the_workflow_prepares_changed_images_anew(own, tmp_path):
    """What Snakemake plans: each content is another target."""
    suite_of(own, tmp_path, test_fraction=0.4)

    def targets():
        loaded = plan.load_plan(str(tmp_path / "own.yaml"))
        return loaded.streams, {run.directory for run in loaded.runs}

    before = targets()
    assert targets() == before
    (own / "bear/photo 1.png").write_bytes(encoded(8, "PNG"))
    after = targets()
    assert before[0] != after[0] and not before[1] & after[1]


def test_data_that_is_not_what_a_run_asks_for(own, tmp_path):
    run = suite_of(own, tmp_path, test_fraction=0.4).runs[0]
    prepared_tasks(run, tmp_path / "resources")
    spec = run.spec["stream"]
    place = tmp_path / "resources/streams" / streams.place(spec)
    cut_in_half(place / "train_images.npy")
    with pytest.raises(DataError, match="train_images.npy cannot be read .*: delete .* and run"):
        load_stream(spec, 0)
    with pytest.raises(DataError, match="is not what this run asks for"):
        load_stream(spec | {"digest": spec["digest"][:8] + "0" * 56}, 0)


def missing_path(own):
    return {"path": str(own / "gone"), "test_fraction": 0.2}, "path .*gone is not there"


def path_of_a_file(own):
    return {"path": str(own / "notes.txt"), "test_fraction": 0.2}, "notes.txt is no folder"


def no_path(own):
    return {"path": None, "test_fraction": 0.2}, "needs path, the folder of your images"


def no_class_folder(own):
    for c in CLASSES:
        shutil.rmtree(own / c)
    return {"test_fraction": 0.2}, "two classes or more, it has 0"


def empty_class(own):
    (own / "empty").mkdir()
    return {"test_fraction": 0.2}, "empty needs 2 or more images, it has 0"


def class_that_cannot_be_split(own):
    (own / "deer/photo 1.png").unlink()
    return {"test_fraction": 0.2}, "deer needs 2 or more images, it has 1"


def class_only_in_test(own):
    with_own_split(own)
    shutil.rmtree(own / "train/crab")
    return {}, "'crab' is in test but not in train"


def class_only_in_train(own):
    with_own_split(own)
    shutil.rmtree(own / "test/crab")
    return {}, "'crab' is in train but not in test"


def empty_class_in_test(own):
    with_own_split(own)
    (own / "test/crab/photo 0.png").unlink()
    return {}, "crab needs 1 or more images, it has 0"


def fraction_with_a_split(own):
    with_own_split(own)
    return {"test_fraction": 0.2}, "has folders train and test, so that test_fraction, 0.2"


def neither_fraction_nor_split(own):
    return {}, "needs folders train and test, or else test_fraction"


def fraction_of_everything(own):
    return {"test_fraction": 1.0}, "test_fraction must be between 0 and 1, but is 1.0"


def n_tasks_that_do_not_divide(own):
    return {"test_fraction": 0.2, "n_tasks": 3}, "n_tasks of folder must divide its 4 .* is 3"


def no_n_tasks(own):
    return {"test_fraction": 0.2, "n_tasks": None}, "n_tasks is missing"


def name_that_is_no_utf_8(own):
    (own / "bear" / os.fsdecode(b"caf\xe9.png")).write_bytes(encoded(0, "PNG"))
    return {"test_fraction": 0.2}, r"bear holds the name 'caf.*png', which cannot be printed"


def unreadable_image(own):
    (own / "bear/link.png").symlink_to("nowhere")
    return {"test_fraction": 0.2}, "link.png cannot be read .No such file"


def device_for_an_image(own):
    (own / "bear/link.png").symlink_to("/dev/null")
    return {"test_fraction": 0.2}, "link.png is a folder, a pipe, a socket or a device"


def another_stream_with_a_path(own):
    return {"name": "glyphs"}, "path is no option of glyphs: leave it out"


@pytest.mark.parametrize(
    "broken",
    [
        *(missing_path, path_of_a_file, no_path, no_class_folder, empty_class),
        *(class_that_cannot_be_split, class_only_in_test, class_only_in_train),
        *(empty_class_in_test, fraction_with_a_split, neither_fraction_nor_split),
        *(fraction_of_everything, n_tasks_that_do_not_divide, no_n_tasks, unreadable_image),
        *(another_stream_with_a_path, name_that_is_no_utf_8, device_for_an_image),
    ],
    ids=lambda function: function.__name__,
)
def test_a_broken_folder_is_one_sentence_before_anything_runs(own, tmp_path, broken):
    options, expected = broken(own)
    with pytest.raises(DataError, match=expected) as caught:
        suite_of(options.pop("path", own), tmp_path, **options)
    assert "\n" not in str(caught.value) and "own.yaml, experiment 1" in str(caught.value)


@pytest.mark.parametrize("name, n", [("cifar100", 100), ("imagenet_r", 200), ("cub200", 200)])
def test_tasks_have_equally_many_classes(tmp_path, name, n):
    with pytest.raises(DataError, match=f"n_tasks of {name} must divide its {n} classes.* is 7"):
        suite_of(None, tmp_path, name=name, n_tasks=7)
    runs = {
        n_tasks: suite_of(None, tmp_path, name=name, n_tasks=n_tasks).runs for n_tasks in (10, 20)
    }
    assert runs[20][0].spec["stream"]["n_tasks"] == 20 and runs[20][0].key != runs[10][0].key
    assert runs[10][0].key == suite_of(None, tmp_path, name=name, n_tasks=None).runs[0].key


@pytest.mark.parametrize("name", ["photo 1.png", "notes.txt"])
def test_a_file_that_is_no_image_is_named(own, tmp_path, name):
    (own / "bear" / name).write_text("no image")
    with pytest.raises(DataError, match=f"bear/{name} is truncated or no image .*remove it"):
        folder.prepare(tmp_path, path=str(own), test_fraction=0.2)
    assert not list(tmp_path.glob("*.npy*"))


def test_conversions_are_counted_and_said(own, tmp_path, capsys):
    (own / "bear/photo 0.png").write_bytes(saved(deep(), "PNG"))
    (own / "deer/photo 1.png").write_bytes(saved(deep(), "PNG"))
    command_line.main(["folder", f"path={own}", "test_fraction=0.4", "--out", str(tmp_path / "o")])
    manifest = json.loads((tmp_path / "o/manifest.json").read_text())
    assert manifest["converted"] == {"scaled to 8 bits": 2}
    assert "2 images: scaled to 8 bits" in capsys.readouterr().out


def renamed(own, form, where=""):
    """The class apple as äpfel, and its images, with letters composed or decomposed."""
    new = own / where / unicodedata.normalize(form, "äpfel")
    (own / where / "apple").rename(new)
    for file in list(new.iterdir()):
        file.rename(new / unicodedata.normalize(form, file.name.replace("photo", "Übung")))


def test_a_folder_copied_from_a_mac_is_the_same_folder(own, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(own, other)
    renamed(own, "NFC")
    renamed(other, "NFD")
    assert os.listdir(own) != os.listdir(other)
    prints, arrays = [], []
    for path in (own, other):
        options = {"path": str(path), "test_fraction": 0.4}
        prints.append(folder.fingerprint(**options))
        assert folder.prepare(tmp_path / path.name, **options)["classes"][-1] == "äpfel"
        arrays.append(np.load(tmp_path / path.name / "train_images.npy"))
    assert prints[0] == prints[1] and np.array_equal(*arrays)


def test_train_and_test_may_write_a_class_in_two_ways(own, tmp_path):
    with_own_split(own)
    renamed(own, "NFC", "train")
    renamed(own, "NFD", "test")
    assert folder.prepare(tmp_path, path=str(own))["classes"] == ["bear", "crab", "deer", "äpfel"]


@pytest.mark.parametrize("place", ["", "bear"])
def test_two_names_that_look_alike_are_refused(own, place):
    for form in ("NFC", "NFD"):
        new = own / place / unicodedata.normalize(form, "äpfel")
        shutil.copytree(own / "apple", new) if not place else new.write_bytes(encoded(0, "PNG"))
    with pytest.raises(DataError, match="holds the name 'äpfel' twice"):
        folder.fingerprint(path=str(own), test_fraction=0.4)


@pytest.mark.parametrize(
    "name", ["Screenshot 2024-01-01 at 1.00.00\u202fPM.png", "می\u200cخواهم.png", "👩\u200d🔬.png"]
)
def test_harmless_names_are_accepted(own, name):
    before = folder.fingerprint(path=str(own), test_fraction=0.4)
    (own / "bear" / name).write_bytes(encoded(0, "PNG"))
    assert folder.fingerprint(path=str(own), test_fraction=0.4) != before


@pytest.mark.parametrize("name", ["a\nb.png", "\033[2J.png", "a\u2028b.png"])
def test_names_that_steer_a_terminal_are_refused(own, name):
    (own / "bear" / name).write_bytes(encoded(0, "PNG"))
    with pytest.raises(DataError, match="bear holds the name .*cannot be printed") as caught:
        folder.fingerprint(path=str(own), test_fraction=0.4)
    assert str(caught.value).isprintable()


def test_the_command_line_reports_in_one_sentence(own, tmp_path):
    for arguments, expected in (
        (["folder", f"path={own}", "n_task=3"], "'n_task' is no setting here: did you mean n_task"),
        (["folder", "here"], "an option is given as option=value, but found 'here'"),
        (["folder"], "needs path"),
    ):
        with pytest.raises(SystemExit, match=expected):
            command_line.main([*arguments, "--out", str(tmp_path / "out")])


def test_progress_says_how_long_it_will_take(own, tmp_path, capsys):
    folder.prepare(tmp_path, path=str(own), test_fraction=0.2)
    assert "prepare folder: 14 of 14 images" in capsys.readouterr().err


def test_a_large_file_is_mapped_not_loaded(own, tmp_path):
    run = suite_of(own, tmp_path, test_fraction=0.4).runs[0]
    prepared_tasks(run, tmp_path / "resources")
    place = tmp_path / "resources/streams" / streams.place(run.spec["stream"])
    arrays = benchmark_data._arrays(place)
    assert all(isinstance(arrays[f"{part}_images"], np.memmap) for part in ("train", "test"))


def test_preparing_does_not_import_torch():
    code = (
        "import sys; from benchmarks.streams import __main__, folder, imagenet_r, cub200; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
