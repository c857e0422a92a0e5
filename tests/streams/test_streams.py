"""The streams: the same bytes everywhere, disjoint parts, a sentence for each broken input."""

import gzip
import hashlib
import io
import itertools
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from benchmarks import streams
from benchmarks.common import download
from benchmarks.common.files import DataError
from benchmarks.streams import __main__ as command_line
from benchmarks.streams import cifar100, docs, glyphs
from benchmarks.streams.common import canonical, sources

ROOT = Path(__file__).resolve().parents[2]


# ---------------------------------------------------------------------------- finding a stream


def test_every_stream_has_the_interface():
    assert {"cifar100", "docs", "glyphs"} <= set(streams.names())
    for name in streams.names():
        stream = streams.load(name)
        assert stream.MODALITY in ("vision", "language")
        if not getattr(stream, "OPTIONS", ()):  # one with options is nothing without them
            assert stream.N_TASKS > 1
            assert re.fullmatch("[0-9a-f]{64}", stream.fingerprint(None))


def test_a_stream_is_found_by_its_file(tmp_path, monkeypatch):
    (tmp_path / "dropped.py").write_text("N_TASKS = 3\n")
    monkeypatch.setattr(streams, "__path__", [*streams.__path__, str(tmp_path)])
    assert streams.load("dropped").N_TASKS == 3


@pytest.mark.parametrize("name, hint", [("glyph", "did you mean 'glyphs'"), ("xyz", "cifar100, ")])
def test_an_unknown_stream_is_named_with_a_near_one(name, hint):
    with pytest.raises(DataError, match=f"no stream named '{name}'.*{hint}"):
        streams.load(name)


def test_command_line_reports_in_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        command_line.main(["doc", "--out", str(tmp_path)])
    assert str(end.value).startswith("error: There is no stream named 'doc'")


def test_a_failed_preparation_leaves_no_manifest(tmp_path, monkeypatch):
    (tmp_path / "manifest.json").write_text("{}")
    monkeypatch.setattr(glyphs, "build", lambda: ({"a": np.zeros(1)}, {}))
    with pytest.raises(DataError, match="glyphs stream needs images with digest"):
        streams.prepare("glyphs", tmp_path)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------- glyphs


@pytest.fixture(scope="module")
def glyph_folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("glyphs")
    streams.prepare("glyphs", out)  # checks the digest
    return out


@pytest.fixture(scope="module")
def glyph_data(glyph_folder):
    return dict(np.load(glyph_folder / "data.npz"))


def test_glyphs_are_the_pinned_bytes(glyph_folder, glyph_data):
    pretrain = dict(np.load(glyph_folder / "pretrain.npz"))
    assert glyphs.digest(glyph_data, pretrain) == glyphs.DIGEST == glyphs.fingerprint()
    fonts = glyphs._Fonts()
    again = glyphs._draw(fonts, "D", glyphs.N_TRAIN + glyphs.N_TEST)  # the first class of all
    assert np.array_equal(again[: glyphs.N_TRAIN], glyph_data["train_images"][: glyphs.N_TRAIN])
    assert not np.array_equal(again[:10], glyphs._draw(fonts, "F", 10))


def test_the_digest_of_glyphs_sees_every_byte():
    a = {"images": np.zeros((2, 2), np.uint8)}
    others = (
        {"images": np.array([[0, 0], [0, 1]], np.uint8)},
        {"labels": a["images"]},
        {"images": np.zeros((1, 4), np.uint8)},
        {"images": np.zeros((2, 2), np.int8)},
    )
    assert len({glyphs.digest(arrays) for arrays in (a, *others)}) == 5
    assert glyphs.digest({"x": np.arange(3, dtype=">i8")}) == glyphs.digest({"x": np.arange(3)})


def test_glyphs_structure(glyph_folder, glyph_data):
    manifest = json.loads((glyph_folder / "manifest.json").read_text())
    assert len(manifest["tasks"]) == glyphs.N_TASKS == 10
    assert all(len(task["classes"]) == 10 for task in manifest["tasks"])
    groups = Counter(task["group"] for task in manifest["tasks"])
    assert len(groups) >= 3 and min(groups.values()) >= 2
    for split, n in (("train", 80), ("test", 30)):
        assert glyph_data[f"{split}_images"].shape == (100 * n, 32, 32)
        assert glyph_data[f"{split}_images"].dtype == np.uint8
        assert np.array_equal(glyph_data[f"{split}_labels"], np.repeat(np.arange(100), n))
    with np.load(glyph_folder / "pretrain.npz") as pretrain:
        n = len(manifest["pretrain_classes"])
        assert np.array_equal(pretrain["labels"], np.repeat(np.arange(n), 60))
        assert len(pretrain["images"]) == 60 * n
    files = ("data.npz", "pretrain.npz")
    assert manifest["n_bytes"] == sum((glyph_folder / name).stat().st_size for name in files)


def test_no_glyph_occurs_twice():
    tasks = [c for _, characters in glyphs.TASKS.values() for c in characters]
    everything = tasks + list("".join(glyphs.PRETRAIN.values()))
    assert len(set(everything)) == len(everything)


def test_no_image_occurs_twice(glyph_folder, glyph_data):
    images = [glyph_data["train_images"], glyph_data["test_images"]]
    images.append(np.load(glyph_folder / "pretrain.npz")["images"])
    unique = {image.tobytes() for image in np.concatenate(images)}
    assert len(unique) == sum(map(len, images))


def outline(fonts, character):
    """The character in the first font, its larger side 24 of 32 pixels, blurred, of length 1."""
    mask = fonts.render(character)[0]
    rows, columns = np.nonzero(mask)
    ink = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(np.uint8)
    size = [max(1, 24 * n // max(ink.shape)) for n in ink.shape[::-1]]
    canvas = Image.new("L", (32, 32))
    canvas.paste(
        Image.fromarray(ink).resize(size, Image.Resampling.BOX),
        ((32 - size[0]) // 2, (32 - size[1]) // 2),
    )
    values = np.asarray(canvas.reduce(2), dtype=float).ravel()
    return values / np.linalg.norm(values)


def test_no_two_glyphs_look_alike():
    fonts = glyphs._Fonts()
    tasks = [c for _, characters in glyphs.TASKS.values() for c in characters]
    alike = {
        frozenset(pair): outline(fonts, pair[0]) @ outline(fonts, pair[1])
        for pair in (("A", "Α"), ("A", "А"), ("Δ", "ᐃ"))
    }
    assert min(alike.values()) > 0.95  # the measure sees what it is for
    known = {c: outline(fonts, c) for c in tasks + list("".join(glyphs.PRETRAIN.values()))}
    for i, a in enumerate(tasks):
        for b in list(known)[i + 1 :]:
            assert known[a] @ known[b] < 0.95, f"{a} and {b}"


def test_only_fonts_that_have_a_character_draw_it():
    fonts = glyphs._Fonts()
    assert len(fonts.render("a")) == 21  # DejaVu, STIX and Computer Modern
    assert len(fonts.render("β")) == 16  # not Computer Modern, which has another letter there
    assert len(fonts.render("س")) == 4
    with pytest.raises(DataError, match="needs a font with '一'"):
        fonts.render("一")


def test_within_a_script_the_classes_can_be_told(glyph_data):
    """Nearest mean of blurred, polarity-free images beats chance (10 %) by far in every task."""

    def features(images):
        small = images.reshape(-1, 8, 4, 8, 4).mean((2, 4))
        small = small - np.median(small, axis=(1, 2), keepdims=True)
        small *= np.sign(small.sum((1, 2), keepdims=True))
        return (small / np.linalg.norm(small, axis=(1, 2), keepdims=True)).reshape(-1, 64)

    train, test = features(glyph_data["train_images"]), features(glyph_data["test_images"])
    means = train.reshape(100, 80, 64).mean(1)
    for task in range(10):
        x = test.reshape(10, 300, 64)[task]
        found = (x @ means[10 * task : 10 * task + 10].T).argmax(1)
        assert 0.25 < (found == np.repeat(np.arange(10), 30)).mean() < 0.97


# ---------------------------------------------------------------------------- docs


@pytest.fixture(scope="module")
def docs_folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("docs")
    streams.prepare("docs", out)  # checks the digest
    return out


@pytest.fixture(scope="module")
def tasks(docs_folder):
    return json.loads((docs_folder / "data.json").read_text(encoding="utf-8"))


def prompts(tasks):
    """Every prompt as its text and its question."""
    items = [item for task in tasks for item in task["train"] + task["test"]]
    return [item["prompt"].split("\n") for item in items]


def test_docs_are_the_pinned_bytes(docs_folder):
    content = [(docs_folder / name).read_bytes() for name in ("data.json", "pretrain.json")]
    assert hashlib.sha256(b"".join(content)).hexdigest() == docs.DIGEST == docs.fingerprint()
    assert 1_000_000 < len(content[1]) < 5_000_000


def test_docs_structure(docs_folder, tasks):
    manifest = json.loads((docs_folder / "manifest.json").read_text())
    assert [task["name"] for task in manifest["tasks"]] == [task["name"] for task in tasks]
    assert len(tasks) == docs.N_TASKS == 8
    assert set(Counter(task["group"] for task in tasks).values()) == {2}
    for task in tasks:
        assert task["metric"] == "exact" and len(task["answers"]) >= 4
        assert len(task["train"]) == 480 and len(task["test"]) == 100
        for split in ("train", "test"):
            counts = Counter(item["answer"] for item in task[split])
            assert set(counts) == set(task["answers"]) and len(set(counts.values())) == 1
    answers = [answer for task in tasks for answer in task["answers"]]
    assert len(set(answers)) == len(answers)


def test_every_prefix_of_docs_is_balanced(tasks):
    for task, n in itertools.product(tasks, (8, 50, 333)):
        counts = Counter(item["answer"] for item in task["train"][:n])
        assert max(counts.values()) - min(counts.values()) <= 1


def test_docs_prompts_are_unique_and_short(tasks):
    letters = [" ".join(re.findall("[a-z]+", text.lower())) for text, _ in prompts(tasks)]
    assert len(set(letters)) == len(letters) == 8 * 580
    for text, question in prompts(tasks):
        assert question == "Part:"
        assert 8 <= len(text.split()) <= 45 and len(text) <= 270


def test_docs_prompts_do_not_contain_an_answer(tasks):
    for task in tasks:
        for text, _ in prompts([task]):
            assert not any(answer in text.lower() for answer in task["answers"]), text


def test_docs_pretraining_shares_no_text_with_the_tasks(docs_folder, tasks):
    items = json.loads((docs_folder / "pretrain.json").read_text(encoding="utf-8"))
    texts = [item["text"] for item in items]
    assert len(set(texts)) == len(texts)
    assert max(len(text.split()) for text in texts) <= 200

    def runs(text):
        words = re.findall("[a-z]+", text.lower())
        return {" ".join(words[i : i + 8]) for i in range(len(words) - 7)}

    in_tasks = set().union(*(runs(text) for text, _ in prompts(tasks)))
    assert len(in_tasks) > 50_000
    assert not any(runs(text) & in_tasks for text in texts)


def test_docs_pretraining_asks_for_no_answer_of_a_task(docs_folder, tasks):
    items = json.loads((docs_folder / "pretrain.json").read_text(encoding="utf-8"))
    asked = [item for item in items if "prompt" in item]
    assert len(asked) > 5000
    answers = {answer for task in tasks for answer in task["answers"]}
    assert answers.isdisjoint(item["answer"] for item in asked)
    for item in asked:
        text, question = item["prompt"].split("\n")
        assert question == "Part:" and item["answer"] not in text.lower()


def test_docs_imports_nothing_it_reads():
    code = (
        "import sys; from benchmarks.streams import docs; "
        "print(len(list(docs._texts('scipy', ['fft']))), 'scipy' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    n, imported = result.stdout.split()
    assert int(n) > 30 and imported == "False"


def test_docs_versions_are_those_of_the_lock():
    lock = (ROOT / "requirements.lock").read_text()
    for package, version in docs.PACKAGES.items():
        assert re.search(rf"^{package}=={re.escape(version)}[ ;\\]", lock, re.MULTILINE), package
    assert docs._differing_versions() == "of the pinned versions"


def test_docs_names_the_package_that_differs(tmp_path, monkeypatch):
    monkeypatch.setattr(docs, "build", lambda: ([], []))
    monkeypatch.setitem(docs.PACKAGES, "numpy", "0.1")
    with pytest.raises(DataError, match="numpy .* instead of 0.1.*requirements.lock"):
        docs.prepare(tmp_path)
    assert not list(tmp_path.iterdir())


def test_docs_names_a_missing_package():
    with pytest.raises(DataError, match="package no_such_package, which is not installed"):
        list(docs._texts("no_such_package", ["."]))


@pytest.mark.parametrize(
    "docstring, expected",
    [
        (
            "Solve it.\n\nParameters\n----------\na : int\n    Number\n\nNotes\n-----\nWell known.",
            "Solve it. Well known.",
        ),
        (
            "Solve it.\n\nArgs:\n    a: number\n\nReturns:\n    another\n\nThat is all.",
            "Solve it. That is all.",
        ),
        (
            "Solve it\nfast. For example::\n\n    solve(it)\n\n.. note:: This\n   way.\n\nAgain.",
            "Solve it fast. For example: Again.",
        ),
        (
            "Title\n=====\nText.\n\nOverview\n--------\nMore.\n\nExamples\n--------\n>>> 1\n1\n",
            "Text. More.",
        ),
        (
            "The :class:`~a.b.Thing` with ``x_`` of :math:`a` and :ref:`this <there>`.\n\n>>> 1",
            "The a.b.Thing with x_ of and this.",
        ),
        (":param a: number\n- point\n  continued\nText", "Text"),
    ],
)
def test_prose_of_docstrings(docstring, expected):
    assert docs.prose(docstring) == expected


# ---------------------------------------------------------------------------- cifar100

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
    assert manifest["fingerprint"] == cifar100.fingerprint(tmp_path / "data")
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
    assert "recompressed" in cifar100.prepare(tmp_path, tmp_path)["source"]


def test_the_archive_is_searched_first_and_a_change_of_content_is_seen(small, tmp_path):
    write_sheets(tmp_path, small)
    sheets = cifar100.fingerprint(tmp_path)
    shutil.copy(tmp_path / "cifar100/test/00_apple.png", tmp_path / "cifar100/test/01_bear.png")
    changed = cifar100.fingerprint(tmp_path)
    write_archive(tmp_path, small)
    archive = hashlib.sha256((tmp_path / cifar100.ARCHIVE).read_bytes()).hexdigest()
    assert cifar100.fingerprint(tmp_path) == archive
    assert len({sheets, changed, archive}) == 3


def test_fetches_the_pinned_archive_if_there_is_nothing(small, tmp_path, monkeypatch):
    def fetch(url, sha256, target):
        asked.append((url, sha256, target))
        write_archive(target.parent, small)
        return target

    asked = []
    monkeypatch.setattr(canonical, "fetch", fetch)
    assert cifar100.fingerprint(tmp_path) == cifar100.SHA256
    (tmp_path / "data").mkdir()
    cifar100.prepare(tmp_path, tmp_path / "data")
    cifar100.prepare(tmp_path, None)
    cifar100.prepare(tmp_path, None)  # the earlier download is found
    folders = [tmp_path / "data", tmp_path / "downloads"]
    assert asked == [
        (cifar100.URLS, cifar100.SHA256, folder / cifar100.ARCHIVE) for folder in folders
    ]


def test_no_network_is_one_sentence(small, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar100, "URLS", ["http://127.0.0.1:9/cifar.tar.gz"])
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    with pytest.raises(DataError, match="could not be downloaded.*put the file at"):
        cifar100.prepare(tmp_path, tmp_path)


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
        cifar100.prepare(tmp_path, tmp_path)
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
