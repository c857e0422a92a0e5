"""cifar100: equal arrays whatever the layout, a sentence for each broken input, nothing run."""

import hashlib
import io
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from benchmarks import streams
from benchmarks.common.errors import DataError
from benchmarks.streams import cifar100
from benchmarks.streams.common import canonical, sources
from tests.containers import archive_of, in_two_tables, with_classes


def fingerprint(data_dir):
    return streams.of({"name": "cifar100"}, data_dir).fingerprint()


NAMES = ["apple", "bear", "crab"]
GRIDS = {"train": (2, 3), "test": (1, 2)}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """CIFAR-100 in miniature, three classes: images and labels of each split, in file order."""
    monkeypatch.setattr(cifar100, "CLASSES", NAMES)
    monkeypatch.setattr(cifar100, "GRIDS", GRIDS)
    monkeypatch.setattr(canonical, "DOWNLOADS", tmp_path / "downloads")
    monkeypatch.setattr(sources, "DIGESTS", tmp_path / "digests")
    draw = np.random.default_rng(0)
    result = {}
    for split, (rows, columns) in GRIDS.items():
        labels = draw.permutation(np.repeat(np.arange(3), rows * columns))
        images = draw.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
        result[split] = images, labels
    return result


class OldPickler(pickle._Pickler):
    """Pickles as Python 2 did: text and bytes are one type."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_old_text(self, text):
        data = text.encode() if isinstance(text, str) else text
        self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)

    dispatch[str] = dispatch[bytes] = save_old_text


def old_pickle(value):
    file = io.BytesIO()
    OldPickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def archive_members(small, dump=old_pickle):
    members = {"file.txt~": b"no pickle", "meta": dump({"fine_label_names": NAMES})}
    for split, (images, labels) in small.items():
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), 3072)
        members[split] = dump({"data": rows, "fine_labels": labels.tolist(), "filenames": ["x"]})
    return members


def write_tar(file, members):
    archive_of(file, [(f"cifar-100-python/{name}", own) for name, own in members.items()])


def write_archive(folder, small):
    write_tar(folder / cifar100.ARCHIVE, archive_members(small))


def write_archive_of_today(folder, small):
    """Text and bytes are two types, and the classes of numpy have moved."""

    def dump(value):
        names = {"fine_label_names": [name.encode() for name in NAMES]}
        return pickle.dumps({key.encode(): names.get(key, own) for key, own in value.items()})

    write_tar(folder / "cifar100/copy.tar.gz", archive_members(small, dump))


def write_parquet(folder, small, metadata=True):
    for split, (images, labels) in small.items():
        encoded = []
        for image in images:
            file = io.BytesIO()
            Image.fromarray(image).save(file, "PNG")
            encoded.append({"bytes": file.getvalue(), "path": None})
        table = pyarrow.table({"img": encoded, "fine_label": labels, "coarse_label": labels * 0})
        if metadata:
            table = with_classes(table, "fine_label", NAMES)
        in_two_tables(table, folder / "cifar100/data", split)


def write_bare_parquet(folder, small):
    write_parquet(folder, small, metadata=False)


def write_sheets(folder, small, suffix="png"):
    for split, (images, labels) in small.items():
        (folder / "cifar100" / split).mkdir(parents=True)
        rows, columns = GRIDS[split]
        for label, name in enumerate(NAMES):
            tiles = images[labels == label].reshape(rows, columns, 32, 32, 3).swapaxes(1, 2)
            sheet = Image.fromarray(tiles.reshape(rows * 32, columns * 32, 3))
            sheet.save(folder / "cifar100" / split / f"{label:02d}_{name}.{suffix}")
    (folder / "cifar100" / "classes.json").write_text(json.dumps(NAMES))


def write_lossy_sheets(folder, small):
    write_sheets(folder, small, "avif")


LAYOUTS = {  # how it is written -> what the source is called
    write_archive: "python archive",
    write_archive_of_today: "python archive",
    write_parquet: "parquet",
    write_bare_parquet: "parquet",
    write_sheets: "class sheets",
}


@pytest.mark.parametrize(("write", "source"), LAYOUTS.items())
def test_all_layouts_give_the_same_arrays(small, tmp_path, write, source):
    write(tmp_path / "data", small)
    manifest = streams.prepare("cifar100", tmp_path / "out", tmp_path / "data")
    assert manifest["classes"] == NAMES
    assert source in manifest["source"] and "recompressed" not in manifest["source"]
    assert manifest["fingerprint"] == fingerprint(tmp_path / "data")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest
    data = np.load(tmp_path / "out" / "data.npz")
    assert manifest["n_bytes"] == (tmp_path / "out" / "data.npz").stat().st_size
    for split, (images, labels) in small.items():
        expected = np.concatenate([images[labels == label] for label in range(3)])
        assert np.array_equal(data[f"{split}_images"], expected)
        assert np.array_equal(data[f"{split}_labels"], np.sort(labels))
        assert data[f"{split}_labels"].dtype == np.int64


def test_lossy_sheets_are_called_recompressed(small, tmp_path):
    write_lossy_sheets(tmp_path, small)
    assert "recompressed" in streams.prepare("cifar100", tmp_path, tmp_path)["source"]


def test_the_archive_is_searched_first_and_a_change_of_content_is_seen(small, tmp_path):
    write_sheets(tmp_path, small)
    sheets = fingerprint(tmp_path)
    shutil.copy(tmp_path / "cifar100/test/00_apple.png", tmp_path / "cifar100/test/01_bear.png")
    changed = fingerprint(tmp_path)
    write_archive(tmp_path, small)
    archive = hashlib.sha256((tmp_path / cifar100.ARCHIVE).read_bytes()).hexdigest()
    assert fingerprint(tmp_path) == archive
    assert len({sheets, changed, archive}) == 3


def test_fetches_the_pinned_archive_if_there_is_nothing(small, tmp_path, monkeypatch):
    def fetch(url, sha256, target):
        asked.append((url, sha256, target))
        write_archive(target.parent, small)
        return target

    asked = []
    monkeypatch.setattr(canonical, "fetch", fetch)
    assert fingerprint(tmp_path) == cifar100.SHA256
    (tmp_path / "data").mkdir()
    streams.prepare("cifar100", tmp_path, tmp_path / "data")
    streams.prepare("cifar100", tmp_path, None)
    streams.prepare("cifar100", tmp_path, None)  # the earlier download is found
    folders = [tmp_path / "data", tmp_path / "downloads"]
    assert asked == [
        (cifar100.URLS, cifar100.SHA256, folder / cifar100.ARCHIVE) for folder in folders
    ]


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def device(file):
    file.unlink()
    file.symlink_to("/dev/null")


def holds(content):
    return lambda file: file.write_bytes(content)


def bomb(file):
    """A few bytes of a dictionary stand for gigabytes."""
    n = 100
    large = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * n, "int8"), [bytes(1 << 21)])
    images = pyarrow.StructArray.from_arrays([large, ["x"] * n], ["bytes", "path"])
    table = pyarrow.table({"img": images, "fine_label": [0] * n})
    pyarrow.parquet.write_table(table, file, compression="zstd")
    assert file.stat().st_size < 10_000


def other_columns(file):
    pyarrow.parquet.write_table(pyarrow.table({"fine_label": [0], "text": ["a"]}), file)


def broken_image(file):
    table = pyarrow.parquet.read_table(file)
    broken = [image | {"bytes": image["bytes"][:60]} for image in table["img"].to_pylist()]
    pyarrow.parquet.write_table(table.set_column(0, "img", [broken]), file)


def too_low(file):
    Image.new("RGB", (96, 32)).save(file)


# A file of a layout, what is done to it, and what the sentence names beside it.
TABLE, SHEETS = "cifar100/data/{}-00000-of-00002.parquet", "cifar100/{}"
BROKEN_FILES = [
    (write_archive, cifar100.ARCHIVE, cut, "truncated"),
    (write_parquet, TABLE.format("train"), cut, "img"),
    (write_parquet, TABLE.format("train"), other_columns, "img .with bytes. and fine_label"),
    (write_parquet, TABLE.format("train"), bomb, "2,097,152 bytes"),
    (write_parquet, TABLE.format("test"), broken_image, "no image"),
    (write_parquet, TABLE.format("test"), device, "a device"),
    (write_sheets, SHEETS.format("train/01_bear.png"), cut, "truncated"),
    (write_lossy_sheets, SHEETS.format("test/02_crab.avif"), cut, "truncated"),
    (write_sheets, SHEETS.format("train/00_apple.png"), too_low, "96 x 64 .* 96 x 32"),
    (write_sheets, SHEETS.format("test/02_crab.png"), Path.unlink, "missing"),
    (write_sheets, SHEETS.format("test/02_crab.png"), device, "a device"),
    (write_sheets, SHEETS.format("classes.json"), holds(b"apple, bear"), "class names"),
    (write_sheets, SHEETS.format("classes.json"), holds(b'["apple", "bear"]'), "needs 3 .* 2"),
    (write_sheets, SHEETS.format("classes.json"), holds(b"[" * 100_000), "class names"),
]


def refused(folder, *named):
    with pytest.raises(DataError) as caught:
        streams.prepare("cifar100", folder / "out", folder)
    sentence = str(caught.value)
    assert str(folder) in sentence
    assert all(re.search(word, sentence) for word in named), sentence
    assert not list((folder / "out").iterdir())


@pytest.mark.parametrize(("write", "file", "damage", "named"), BROKEN_FILES)
def test_a_broken_file_is_one_sentence(small, tmp_path, write, file, damage, named):
    write(tmp_path, small)
    damage(tmp_path / file)
    refused(tmp_path, named, file.partition(".")[0].partition("/classes")[0])


BROKEN_MEMBERS = [  # of the archive, and what the sentence names
    ("train", lambda x, y: old_pickle({"data": x, "labels": [0]}), "KeyError: b'fine_labels'"),
    ("test", lambda x, y: old_pickle({"data": x[:, :100], "fine_labels": y}), "cannot reshape"),
    ("test", lambda x, y: old_pickle({"data": "text", "fine_labels": y}), "array of bytes"),
    ("test", lambda x, y: old_pickle({"data": x, "fine_labels": ["0"] * len(y)}), "b'0' is no"),
    ("meta", lambda x, y: old_pickle({"fine_label_names": NAMES[:2]}), "needs 3 classes, .* 2"),
    ("meta", None, "train, test, meta"),
]


@pytest.mark.parametrize(("member", "content", "named"), BROKEN_MEMBERS)
def test_a_broken_member_is_one_sentence(small, tmp_path, member, content, named):
    images, labels = small["train" if member == "meta" else member]
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), 3072)
    members = archive_members(small)
    if content:
        members[member] = content(rows, labels.tolist())
    else:
        del members[member]
    write_tar(tmp_path / cifar100.ARCHIVE, members)
    refused(tmp_path, named)


BROKEN_DATA = [  # a layout, its images and labels changed, and what the sentence names
    (write_archive, "test", lambda x, y: (np.concatenate([x, x[:1]]), y), "6 test labels for 7 im"),
    (write_archive, "test", lambda x, y: (x, np.where(y == 1, 7, y)), "0 to 2, .* 0 to 7"),
    (write_archive, "train", lambda x, y: (x[1:], y[1:]), "6 train images .* 5 of"),
    (write_parquet, "test", lambda x, y: (x[1:], y[1:]), "2 test images .* 1 of"),
    (write_parquet, "test", lambda x, y: (x, y + 0.5), r"\d.5 is no whole number"),
    (write_parquet, "train", lambda x, y: (x.repeat(2, axis=2), y), "32 x 32 .* 64 x 32"),
]


@pytest.mark.parametrize(("write", "split", "change", "named"), BROKEN_DATA)
def test_broken_data_is_one_sentence(small, tmp_path, write, split, change, named):
    write(tmp_path, small | {split: change(*small[split])})
    refused(tmp_path, named)


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("member", ["train", "meta"])
def test_a_malicious_archive_runs_nothing(small, tmp_path, member):
    marker = tmp_path / "executed"
    members = archive_members(small)
    members[member] = pickle.dumps({b"data": Malicious(marker)})
    write_tar(tmp_path / cifar100.ARCHIVE, members)
    with pytest.raises(DataError, match="asks for posix.mkdir, which is refused"):
        streams.prepare("cifar100", tmp_path, tmp_path)
    assert not marker.exists()
    pickle.loads(members[member])  # it would have
    assert marker.exists()


@pytest.mark.parametrize("call", ["builtins eval", "numpy load", "numpy.core.multiarray scalar"])
def test_what_the_archive_may_ask_for(call):
    reader = cifar100._Arrays(io.BytesIO())
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        reader.find_class(*call.split())
    # Never looked up in the module that is named.
    assert reader.find_class("evil.core.multiarray", "_reconstruct") is cifar100._empty_array


@pytest.mark.data
def test_the_real_images(tmp_path):
    folder = Path(os.environ.get("TREELORA_DATA") or "nowhere")
    if cifar100._find(folder)[0] is None:
        pytest.skip("TREELORA_DATA names no folder with CIFAR-100")
    manifest = streams.prepare("cifar100", tmp_path, folder)
    assert manifest["classes"] == cifar100.CLASSES
    with np.load(tmp_path / "data.npz") as data:
        assert data["train_images"].shape == (50_000, 32, 32, 3)
        assert data["test_images"].shape == (10_000, 32, 32, 3)
        # Published statistics of the training pixels: mean 0.507, 0.487, 0.441.
        mean = data["train_images"].mean((0, 1, 2)) / 255
    assert np.abs(mean - [0.507, 0.487, 0.441]).max() < 0.003
