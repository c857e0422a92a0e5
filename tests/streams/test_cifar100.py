"""cifar100: equal arrays whatever the layout, a sentence for each broken input, nothing run."""

import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from benchmarks import streams
from benchmarks.common import download
from benchmarks.common.files import DataError
from benchmarks.streams import cifar100
from benchmarks.streams.common import canonical, sources


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


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def archive_members(small, dump=old_pickle):
    members = {"file.txt~": b"no pickle", "meta": dump({"fine_label_names": NAMES})}
    for split, (images, labels) in small.items():
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), 3072)
        members[split] = dump({"data": rows, "fine_labels": labels.tolist(), "filenames": ["x"]})
    return members


def write_archive(folder, small):
    write_tar(folder / "cifar-100-python.tar.gz", archive_members(small))


def write_parquet(folder, small, metadata=True):
    (folder / "cifar100" / "data").mkdir(parents=True)
    for split, (images, labels) in small.items():
        encoded = []
        for image in images:
            file = io.BytesIO()
            Image.fromarray(image).save(file, "PNG")
            encoded.append({"bytes": file.getvalue(), "path": None})
        table = pyarrow.table({"img": encoded, "fine_label": labels, "coarse_label": labels * 0})
        if metadata:
            features = {"fine_label": {"names": NAMES, "_type": "ClassLabel"}}
            table = table.replace_schema_metadata(
                {"huggingface": json.dumps({"info": {"features": features}})}
            )
        half = len(labels) // 2  # two files of each split
        for i, part in enumerate((table[:half], table[half:])):
            name = f"{split}-{i:05d}-of-00002.parquet"
            pyarrow.parquet.write_table(part, folder / "cifar100" / "data" / name)


def write_sheets(folder, small, suffix="png"):
    for split, (images, labels) in small.items():
        (folder / "cifar100" / split).mkdir(parents=True)
        rows, columns = GRIDS[split]
        for label, name in enumerate(NAMES):
            tiles = images[labels == label].reshape(rows, columns, 32, 32, 3).swapaxes(1, 2)
            sheet = Image.fromarray(tiles.reshape(rows * 32, columns * 32, 3))
            sheet.save(folder / "cifar100" / split / f"{label:02d}_{name}.{suffix}")
    (folder / "cifar100" / "classes.json").write_text(json.dumps(NAMES))


def write_named_archive(folder, small):
    write_tar(folder / "cifar100" / "copy.tar.gz", archive_members(small))


def write_bare_parquet(folder, small):
    write_parquet(folder, small, metadata=False)


LAYOUTS = {
    write_archive: "python archive",
    write_named_archive: "python archive",
    write_parquet: "parquet",
    write_bare_parquet: "parquet",
    write_sheets: "class sheets",
}


@pytest.mark.parametrize("write", LAYOUTS)
def test_all_layouts_give_the_same_arrays(small, tmp_path, write):
    write(tmp_path / "data", small)
    manifest = streams.prepare("cifar100", tmp_path / "out", tmp_path / "data")
    assert manifest["classes"] == NAMES
    assert LAYOUTS[write] in manifest["source"] and "recompressed" not in manifest["source"]
    assert manifest["fingerprint"] == fingerprint(tmp_path / "data")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest
    data = np.load(tmp_path / "out" / "data.npz")
    assert manifest["n_bytes"] == (tmp_path / "out" / "data.npz").stat().st_size
    for split, (images, labels) in small.items():
        expected = np.concatenate([images[labels == label] for label in range(3)])
        assert np.array_equal(data[f"{split}_images"], expected)
        assert np.array_equal(data[f"{split}_labels"], np.sort(labels))
        assert data[f"{split}_labels"].dtype == np.int64


def test_today_s_pickles_are_read_too(small, tmp_path):
    def dump(value):
        return pickle.dumps(
            {
                key.encode(): [v.encode() for v in values]
                if key[-1] == "s" and isinstance(values[0], str)
                else values
                for key, values in value.items()
            }
        )

    path = write_tar(tmp_path / "cifar100" / "new.tar.gz", archive_members(small, dump))
    classes, splits, _ = cifar100._read_archive([path])
    assert classes == NAMES
    assert all(np.array_equal(splits[split][0], small[split][0]) for split in GRIDS)


def test_lossy_sheets_are_called_recompressed(small, tmp_path):
    write_sheets(tmp_path, small, "avif")
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


def test_no_network_is_one_sentence(small, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar100, "URLS", ["http://127.0.0.1:9/cifar.tar.gz"])
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    with pytest.raises(DataError, match="could not be downloaded.*put the file at"):
        streams.prepare("cifar100", tmp_path, tmp_path)


# Each breaks one good layout in a folder and gives what the sentence has to say.


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_archive(folder, small):
    write_archive(folder, small)
    cut_in_half(folder / cifar100.ARCHIVE)
    return "cifar-100-python.tar.gz is truncated or no archive"


def no_archive(folder, small):
    (folder / cifar100.ARCHIVE).write_bytes(b"<html>Sign in to the network</html>")
    return "truncated or no archive"


def foreign_archive(folder, small):
    write_tar(folder / cifar100.ARCHIVE, {"readme": b"hello"})
    return "needs the members train, test, meta"


def archive_of_cifar10(folder, small):
    members = archive_members(small)
    members["train"] = old_pickle({"data": small["train"][0], "labels": [0]})
    write_tar(folder / cifar100.ARCHIVE, members)
    return "content is different .KeyError: b'fine_labels'"


def archive_of_another_size(folder, small):
    members = archive_members(small)
    members["test"] = old_pickle({"data": np.zeros((6, 100), np.uint8), "fine_labels": [0] * 6})
    write_tar(folder / cifar100.ARCHIVE, members)
    return "content is different .cannot reshape"


def archive_without_numbers(folder, small):
    members = archive_members(small)
    members["test"] = old_pickle({"data": "text", "fine_labels": [0] * 6})
    write_tar(folder / cifar100.ARCHIVE, members)
    return "the pixels are no array of bytes"


def archive_with_an_image_too_many(folder, small):
    images, labels = small["test"]
    small["test"] = np.concatenate([images, images[:1]]), labels
    write_archive(folder, small)
    return "one label per image, .* has 6 test labels for 7 images"


def archive_with_two_classes(folder, small):
    members = archive_members(small)
    members["meta"] = old_pickle({"fine_label_names": NAMES[:2]})
    write_tar(folder / cifar100.ARCHIVE, members)
    return "needs 3 classes, .* names 2"


def unknown_label(folder, small):
    small["test"][1][0] = 7
    write_archive(folder, small)
    return "needs labels from 0 to 2, .* from 0 to 7"


def missing_images(folder, small):
    small["train"] = tuple(values[1:] for values in small["train"])
    write_archive(folder, small)
    return "needs 6 train images of each class, .* has 5 of"


def missing_images_in_parquet(folder, small):
    small["test"] = tuple(values[1:] for values in small["test"])
    write_parquet(folder, small)
    return "needs 2 test images of each class, .* has 1 of"


def parquet_of_fractions(folder, small):
    small["test"] = small["test"][0], small["test"][1] + 0.5
    write_parquet(folder, small)
    return r"the label \d.5 is no whole number"


def parquet_bomb(folder, small):
    """A few bytes of a dictionary stand for gigabytes."""
    write_parquet(folder, small)
    n = 100
    large = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * n, "int8"), [bytes(1 << 21)])
    images = pyarrow.StructArray.from_arrays([large, ["x"] * n], ["bytes", "path"])
    table = pyarrow.table({"img": images, "fine_label": [0] * n})
    file = folder / "cifar100/data/train-00000-of-00002.parquet"
    pyarrow.parquet.write_table(table, file, compression="zstd")
    assert file.stat().st_size < 10_000
    return "an image has 2,097,152 bytes"


def archive_of_texts_for_labels(folder, small):
    members = archive_members(small)
    labels = ["0"] * len(small["test"][1])
    members["test"] = pickle.dumps({b"data": small["test"][0], b"fine_labels": labels})
    write_tar(folder / cifar100.ARCHIVE, members)
    return "content is different .*the label '0' is no whole number"


def device_for_the_archive(folder, small):
    (folder / cifar100.ARCHIVE).symlink_to("/dev/null")
    return "is a folder, a pipe, a socket or a device"


def device_for_a_table(folder, small):
    write_parquet(folder, small)
    file = folder / "cifar100/data/test-00000-of-00002.parquet"
    file.unlink()
    file.symlink_to("/dev/null")
    return "is a folder, a pipe, a socket or a device"


def device_for_a_sheet(folder, small):
    write_sheets(folder, small)
    (folder / "cifar100/test/02_crab.png").unlink()
    (folder / "cifar100/test/02_crab.png").symlink_to("/dev/null")
    return "is a folder, a pipe, a socket or a device"


def listing_nested_deeply(folder, small):
    write_sheets(folder, small)
    (folder / "cifar100/classes.json").write_text("[" * 100_000)
    return "classes.json needs a JSON list of class names"


def member_that_claims_a_terabyte(folder, small):
    header = tarfile.TarInfo("cifar-100-python/train")
    header.size = 2**40
    (folder / cifar100.ARCHIVE).write_bytes(gzip.compress(header.tobuf() + bytes(1024)))
    return "truncated or no archive"


def member_too_large(folder, small):
    members = archive_members(small) | {"train": bytes(sources.MAX_BYTES + 1)}
    write_tar(folder / cifar100.ARCHIVE, members)
    return "train in .* has more than 0 MiB"


def truncated_parquet(folder, small):
    write_parquet(folder, small)
    cut_in_half(folder / "cifar100/data/train-00000-of-00002.parquet")
    return "train-00000-of-00002.parquet needs the columns img"


def parquet_of_other_columns(folder, small):
    write_parquet(folder, small)
    pyarrow.parquet.write_table(
        pyarrow.table({"fine_label": [0], "text": ["a"]}),
        folder / "cifar100/data/train-00001-of-00002.parquet",
    )
    return "needs the columns img .with bytes. and fine_label"


def broken_image_in_parquet(folder, small):
    write_parquet(folder, small)
    file = folder / "cifar100/data/test-00000-of-00002.parquet"
    table = pyarrow.parquet.read_table(file)
    broken = [image | {"bytes": image["bytes"][:60]} for image in table["img"].to_pylist()]
    pyarrow.parquet.write_table(table.set_column(0, "img", [broken]), file)
    return "an image in .*parquet is truncated or no image"


def large_image_in_parquet(folder, small):
    small["train"] = small["train"][0].repeat(2, axis=2), small["train"][1]
    write_parquet(folder, small)
    return "images of 32 x 32 pixels, it has one of 64 x 32"


def truncated_sheet(folder, small):
    write_sheets(folder, small)
    cut_in_half(folder / "cifar100/train/01_bear.png")
    return "01_bear.png is truncated or no image"


def truncated_avif_sheet(folder, small):
    write_sheets(folder, small, "avif")
    cut_in_half(folder / "cifar100/test/02_crab.avif")
    return "02_crab.avif is truncated or no image"


def empty_sheet(folder, small):
    write_sheets(folder, small)
    (folder / "cifar100/train/01_bear.png").write_bytes(b"")
    return "01_bear.png is truncated or no image"


def sheet_of_another_size(folder, small):
    write_sheets(folder, small)
    Image.new("RGB", (96, 32)).save(folder / "cifar100/train/00_apple.png")
    return "00_apple.png needs 96 x 64 pixels, it has 96 x 32"


def missing_sheet(folder, small):
    write_sheets(folder, small)
    (folder / "cifar100/test/02_crab.png").unlink()
    return "needs the class sheet .*02_crab.avif or .png, it is missing"


def too_few_classes(folder, small):
    write_sheets(folder, small)
    (folder / "cifar100/classes.json").write_text(json.dumps(NAMES[:2]))
    return "needs 3 classes, .* names 2"


def broken_listing(folder, small):
    write_sheets(folder, small)
    (folder / "cifar100/classes.json").write_text("apple, bear")
    return "classes.json needs a JSON list of class names"


@pytest.mark.parametrize(
    "broken",
    [
        truncated_archive,
        no_archive,
        foreign_archive,
        archive_of_cifar10,
        archive_of_another_size,
        archive_without_numbers,
        archive_with_an_image_too_many,
        archive_with_two_classes,
        unknown_label,
        missing_images,
        missing_images_in_parquet,
        truncated_parquet,
        parquet_of_other_columns,
        broken_image_in_parquet,
        large_image_in_parquet,
        truncated_sheet,
        truncated_avif_sheet,
        empty_sheet,
        sheet_of_another_size,
        missing_sheet,
        parquet_of_fractions,
        parquet_bomb,
        archive_of_texts_for_labels,
        device_for_the_archive,
        device_for_a_table,
        device_for_a_sheet,
        listing_nested_deeply,
        member_that_claims_a_terabyte,
        member_too_large,
        too_few_classes,
        broken_listing,
    ],
    ids=lambda function: function.__name__,
)
def test_broken_input_is_one_sentence(small, tmp_path, broken, monkeypatch):
    monkeypatch.setattr(sources, "MAX_BYTES", 600_000)
    expected = broken(tmp_path, small)
    out = tmp_path / "out"
    with pytest.raises(DataError, match=expected) as caught:
        streams.prepare("cifar100", out, tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    assert not list(out.iterdir())


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


@pytest.mark.parametrize(
    "call",
    [
        "builtins eval",
        "numpy load",
        "numpy.core.multiarray scalar",
        "evil.core.multiarray _reconstruct",
    ],
)
def test_what_the_archive_may_ask_for(call):
    module, name = call.split()
    reader = cifar100._Arrays(io.BytesIO())
    if name == "_reconstruct":  # never looked up in the module it names
        assert reader.find_class(module, name) is cifar100._empty_array
    else:
        with pytest.raises(pickle.UnpicklingError, match="refused"):
            reader.find_class(module, name)


@pytest.mark.data
def test_the_real_images(tmp_path):
    folder = os.environ.get("TREELORA_DATA")
    if not folder:
        pytest.skip("TREELORA_DATA names no folder with CIFAR-100")
    if cifar100._find(Path(folder))[0] is None:
        pytest.skip("there is no CIFAR-100 in the folder TREELORA_DATA")
    manifest = streams.prepare("cifar100", tmp_path, Path(folder))
    assert manifest["classes"] == cifar100.CLASSES
    with np.load(tmp_path / "data.npz") as data:
        assert data["train_images"].shape == (50_000, 32, 32, 3)
        assert data["test_images"].shape == (10_000, 32, 32, 3)
        # Published statistics of the training pixels: mean 0.507, 0.487, 0.441.
        mean = data["train_images"].mean((0, 1, 2)) / 255
    assert np.abs(mean - [0.507, 0.487, 0.441]).max() < 0.003
