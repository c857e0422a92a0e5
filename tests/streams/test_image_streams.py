"""Streams of large images: equal arrays whatever the source, a sentence for each broken one."""

import functools
import hashlib
import io
import json
import os
import shutil
import unicodedata
from collections import defaultdict

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from benchmarks import streams
from benchmarks.common.errors import DataError
from benchmarks.runs.suite import load_suite
from benchmarks.streams import __main__ as command_line
from benchmarks.streams import cub200, imagenet_r
from benchmarks.streams.common import canonical, pictures, sources
from benchmarks.streams.common import tasks as benchmark_data
from benchmarks.streams.common.tasks import load_stream
from tests.containers import archive_of, in_two_tables, with_classes
from tests.own_suite import own_suite

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


@functools.cache
def cropped(content):
    """What torchvision makes of an image."""
    from torchvision import transforms

    resize = transforms.Resize(256, transforms.InterpolationMode.BICUBIC)
    image = Image.open(io.BytesIO(content)).convert("RGB")
    return np.asarray(transforms.CenterCrop(224)(resize(image)))


def rank(name):
    return hashlib.sha256(name.encode()).hexdigest()


def first_by_rule(names, numbers):
    """So many of each class as given, those first by the SHA-256 of their names."""
    found = (
        sorted((n for n in names if n.startswith(c)), key=rank)[:k] for c, k in numbers.items()
    )
    return set().union(*found)


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    monkeypatch.setattr(canonical, "DOWNLOADS", tmp_path / "downloads")
    monkeypatch.setattr(sources, "DIGESTS", tmp_path / "digests")


# ---------------------------------------------------------------------------- miniature datasets


class Mini:
    """A dataset in miniature: its stream, the images by name "class/file", and other files."""

    def __init__(self, name, images, texts):
        self.name, self.stream, self.images, self.texts = name, streams.load(name), images, texts
        self.root = self.stream.folder
        self.images_in = f"{self.root}/{self.stream.images}".rstrip("/")

    @property
    def classes(self):
        return sorted({name.split("/")[0] for name in self.images})

    def fingerprint(self, data_dir=None):
        return streams.make({"name": self.name}, data_dir).fingerprint()

    def members(self):
        texts = {
            f"{self.root}/{name}": text.encode(errors="surrogateescape")
            for name, text in self.texts.items()
            if text is not None
        }
        return texts | {f"{self.images_in}/{name}": c for name, c in self.images.items()}

    def write_archive(self, data):
        archive_of(data / self.stream.archive, sorted(self.members().items(), reverse=True))

    def write_folder(self, data):
        for name, content in self.members().items():
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            (data / name).write_bytes(content)
        (data / self.root / ".hidden").write_text("")
        (data / self.images_in / sorted(self.images)[0]).with_name("._x.jpg").write_text("")

    def write_parquet(self, data):
        """Two tables, rows in another order than elsewhere, classes by name or by number."""
        column = self.stream.column
        for split, names in self.split_names().items():
            rows = []
            for name in sorted(names, key=lambda name: name[::-1]):
                own, file = name.split("/")
                row = {"image": {"bytes": self.images[name], "path": file}}
                number = self.classes.index(own)
                rows.append(row | {column: number if column == "label" else own})
            table = with_classes(pyarrow.Table.from_pylist(rows), column, self.classes)
            in_two_tables(table, data / self.root / "data", split)

    def split_names(self):
        """The split that the dataset has; all images where it has none."""
        if not self.stream.texts:
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
    return Mini("imagenet_r", images, {"README.txt": "n0144 fish"})


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
    return Mini("cub200", {name: encoded(i) for i, name in enumerate(names)}, texts)


@pytest.fixture(params=["renditions", "birds"])
def mini(request):
    return request.getfixturevalue(request.param)


# ---------------------------------------------------------------------------- good sources


@pytest.mark.parametrize("layout", ["archive", "folder", "parquet"])
def test_every_source_gives_the_images_torchvision_would(mini, tmp_path, layout):
    data, out = tmp_path / "data", tmp_path / "out"
    getattr(mini, f"write_{layout}")(data)
    manifest = streams.prepare(mini.name, out, data)
    assert manifest["fingerprint"] == mini.fingerprint(data) and layout in manifest["source"]
    classes, wanted = mini.classes, mini.split_names()
    assert manifest["classes"] == classes
    if mini.name == "imagenet_r":
        # Of 15 images 3, dealt out to shares of 1.2, 1.4 and 0.4, and no class without one.
        test = first_by_rule(mini.images, dict(zip(classes, (1, 2, 1), strict=True)))
        wanted = {"train": set(mini.images) - test, "test": test}
    labels = np.load(out / "data.npz")
    for split, names in wanted.items():
        images = np.load(out / f"{split}_images.npy", mmap_mode="r")
        names = sorted(names, key=lambda name: (name.split("/")[0], rank(name)))
        expected = [classes.index(name.split("/")[0]) for name in names]
        assert labels[f"{split}_labels"].tolist() == expected
        assert images.dtype == np.uint8
        for image, name in zip(images, names, strict=True):
            assert np.array_equal(image, cropped(mini.images[name])), name
    files = {path.name: path.stat().st_size for path in out.iterdir()}
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
    served = tmp_path / mini.stream.archive
    md5 = hashlib.md5(served.read_bytes()).hexdigest()
    monkeypatch.setattr(mini.stream, "md5", md5)
    monkeypatch.setattr(canonical, "fetch", fetch)
    before = mini.fingerprint()
    manifest = streams.prepare(mini.name, tmp_path / "out")
    streams.prepare(mini.name, tmp_path / "out")  # the download is found
    target = tmp_path / "downloads" / mini.stream.archive
    assert asked == [(mini.stream.urls, f"md5:{md5}", target)]
    assert "official archive" in manifest["source"]
    assert before == mini.fingerprint() == manifest["fingerprint"]
    target.write_bytes(target.read_bytes() + b"more")
    assert mini.fingerprint() != before


def test_digests_are_those_of_published_records(tmp_path):
    for name, digest in (("cub200", "372147e1fa4d"), ("imagenet_r", "cc2e5551b5c6")):
        assert streams.make({"name": name}).fingerprint().startswith(digest)
    files = {"a/x.jpg": b"ax.jpg", "b/y.jpg": b"by.jpg", "a/2": b"2", "b/2": b"2"}
    for name, content in files.items():
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(content)
    assert fingerprint(tmp_path / "images", test_fraction=0.5).startswith("4b3a1778a8f7")


# ---------------------------------------------------------------------------- broken sources

# Each breaks a good source in a folder and gives what the sentence has to name.


def an_image_too_few(mini, data):
    mini.images = dict(list(mini.images.items())[1:])
    mini.write_archive(data)
    birds = "001.Black_footed_Albatross/Bird_0009_0.jpg"
    return birds if mini.name == "cub200" else "needs 15 images, .* has 14"


def a_class_too_few(mini, data):
    mini.images = {n: c for n, c in mini.images.items() if not n.startswith(("n02", "002"))}
    if mini.name == "cub200":
        for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt"):
            mini.texts[name] = "".join(mini.texts[name].splitlines(True)[:4])
    mini.write_folder(data)
    return r"needs \d classes, .* has \d"


def image(write, change):
    def undecodable(mini, data):
        name = sorted(mini.images)[2]
        mini.images[name] = change(mini.images[name])
        getattr(mini, f"write_{write}")(data)
        return name

    return undecodable


def truncated_parquet(mini, data):
    mini.write_parquet(data)
    cut_in_half(data / mini.root / "data" / "test-00000-of-00002.parquet")
    return "test-00000-of-00002.parquet needs the columns image"


def parquet(change):
    def changed(mini, data):
        mini.write_parquet(data)
        for file in (data / mini.root / "data").iterdir():
            table = pyarrow.parquet.read_table(file)
            pyarrow.parquet.write_table(change(table), file)
        return "needs the columns image"

    return changed


def without_file_names(table):
    rows = [{"bytes": row["bytes"], "path": None} for row in table["image"].to_pylist()]
    return table.set_column(0, "image", [rows])


def with_names_that_are_no_text(table):
    names = pyarrow.array([b"\xff\xfe"] * len(table), pyarrow.binary())
    contents = table["image"].combine_chunks().field("bytes")
    names = pyarrow.Array.from_buffers(pyarrow.string(), len(names), names.buffers())
    images = pyarrow.StructArray.from_arrays([contents, names], ["bytes", "path"])
    return table.set_column(0, "image", images)


def with_unknown_classes(table):
    name, kind = table.column_names[1], table.schema.types[1]
    return table.set_column(1, name, pyarrow.array([None] * len(table), kind))


def parquet_with_a_table_twice(mini, data):
    mini.write_parquet(data)
    tables = data / mini.root / "data"
    shutil.copy(tables / "test-00000-of-00002.parquet", tables / "test-00002-of-00002.parquet")
    return "a second time"


def folder_in_a_class(mini, data):
    mini.write_folder(data)
    (data / mini.images_in / sorted(mini.images)[0]).parent.joinpath("more").mkdir()
    return "more"


BROKEN = {
    "an image too few": an_image_too_few,
    "a class too few": a_class_too_few,
    "no image, in an archive": image("archive", lambda content: b"GIF89a, but no more"),
    "half an image, in a folder": image("folder", lambda content: content[: len(content) // 2]),
    "empty, in parquet": image("parquet", lambda content: None),
    "truncated parquet": truncated_parquet,
    "parquet without file names": parquet(without_file_names),
    "parquet with names that are no text": parquet(with_names_that_are_no_text),
    "parquet without classes": parquet(lambda table: table.select(["image"])),
    "parquet with unknown classes": parquet(with_unknown_classes),
    "parquet of texts": parquet(lambda t: t.set_column(0, "image", [["x"] * len(t)])),
    "parquet with a table twice": parquet_with_a_table_twice,
    "folder in a class": folder_in_a_class,
}


def check_broken(mini, expected, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DataError, match=expected) as caught:
        streams.prepare(mini.name, out, tmp_path / "data")
    assert str(tmp_path) in str(caught.value)
    assert not list(out.iterdir())


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_source_is_one_sentence(mini, tmp_path, broken):
    (tmp_path / "data").mkdir()
    check_broken(mini, BROKEN[broken](mini, tmp_path / "data"), tmp_path)


@pytest.mark.parametrize(
    "name, line, replacement, expected",
    [
        ("train_test_split.txt", "3 1", "99 1", "images.txt and train_test_split"),
        ("train_test_split.txt", "3 1", "3 7", "Bird_0007_2.jpg .* '7'"),
        ("train_test_split.txt", "3 1", "2 1", "'2 1'"),
        ("train_test_split.txt", "3 1", "3", "'3'"),
        ("train_test_split.txt", "3 1", "3 0", "needs 5 train images, .* has 4"),
        ("image_class_labels.txt", "3 1", "3 2", "class 2, '002.Laysan_Albatross'"),
        ("image_class_labels.txt", "3 1", "3 9", "class 9"),
        ("images.txt", "Bird_0007_2.jpg", "gone.jpg", "001.*/gone.jpg"),
        ("images.txt", "Bird_0007_2.jpg", "../../images.txt", "001.*/../../images"),
        ("images.txt", "Bird_0007_2.jpg", "\udcff", "images.txt in .* is no text"),
    ],
)
def test_lists_of_birds_that_do_not_fit(birds, tmp_path, name, line, replacement, expected):
    assert line in birds.texts[name]
    birds.texts[name] = birds.texts[name].replace(line, replacement, 1)
    birds.write_archive(tmp_path / "data")
    check_broken(birds, expected, tmp_path)


def test_birds_under_other_names_or_without_a_list(birds, tmp_path):
    for layout in ("archive", "folder"):
        without = Mini("cub200", birds.images, birds.texts | {"classes.txt": None})
        getattr(without, f"write_{layout}")(tmp_path / layout)
        with pytest.raises(DataError, match="classes.txt"):
            streams.prepare("cub200", tmp_path / "out", tmp_path / layout)
    birds.images = {name[4:]: content for name, content in birds.images.items()}
    birds.texts["images.txt"] = birds.texts["images.txt"].replace("001.", "").replace("002.", "")
    birds.write_parquet(tmp_path / "data")
    check_broken(birds, "'Black_footed", tmp_path)


def test_a_full_disk_is_one_sentence(renditions, tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    renditions.write_folder(tmp_path / "data")
    monkeypatch.setattr(os, "fsync", full)
    check_broken(renditions, "No space left", tmp_path)


def test_a_new_reader_gives_all_images_a_new_name(mini, own, tmp_path, monkeypatch):
    mini.write_folder(tmp_path / "data")

    def names():
        places = (None, tmp_path / "data")
        return {*map(mini.fingerprint, places), fingerprint(own)}

    before = names()
    monkeypatch.setattr(pictures, "READER", pictures.READER + 1)
    assert len(before) == 3 and not before & names()


# ---------------------------------------------------------------------------- folder


CLASSES = {"apple": 4, "bear": 3, "crab": 5, "deer": 2}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of images by class."""
    monkeypatch.setattr(benchmark_data, "RESOURCES", tmp_path / "resources")
    path = tmp_path / "my images"
    for c, n in CLASSES.items():
        (path / c).mkdir(parents=True)
        for i in range(n):
            (path / c / f"photo {i}.png").write_bytes(encoded(100 * n + i, "PNG"))
    (path / "notes.txt").write_text("beside the class folders")
    return path


def fingerprint(path, test_fraction=0.4):
    options = {"name": "folder", "path": str(path), "test_fraction": test_fraction}
    return streams.make(options).fingerprint()


def run_of(path, tmp_path, test_fraction=0.4, **options):
    """The one run of a suite file; what is None is left out of that."""
    stream = {"name": "folder", "n_tasks": 2, "path": path and str(path)}
    stream |= {"test_fraction": test_fraction, **options}
    [run] = load_suite(str(own_suite(tmp_path, stream, mask="current"))).runs
    return run


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
    spec = run.spec["stream"]
    out = resources / "streams" / streams.place(spec)
    command_line.main([*streams.of(spec).arguments, "--out", str(out)])
    return load_stream(run.spec["stream"], run.spec["seed"])


@pytest.mark.parametrize("split", ["own", "rule"])
def test_own_images_from_the_suite_file_to_tensors(own, tmp_path, split):
    images = {f"{c}/photo {i}.png": (own / c / f"photo {i}.png").read_bytes()
              for c, n in CLASSES.items() for i in range(n)}  # fmt: skip
    if split == "own":
        with_own_split(own)
        test = {f"{c}/photo 0.png" for c in CLASSES}
    else:  # 0.4 of 4, 3, 5 and 2 is 1.6, 1.2, 2 and 0.8, together 5.6: 6
        test = first_by_rule(images, {"apple": 2, "bear": 1, "crab": 2, "deer": 1})
    run = run_of(own, tmp_path, None if split == "own" else 0.4)
    tasks, task_of_class = prepared_tasks(run, tmp_path / "resources")
    assert task_of_class.tolist() == [0, 0, 1, 1] and len(tasks) == 2
    place = tmp_path / "resources/streams" / streams.place(run.spec["stream"])
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest["classes"] == sorted(CLASSES)
    assert place.name == f"folder-{run.spec['stream']['digest'][:8]}"

    expected, found = ({part: defaultdict(set) for part in ("train", "test")} for _ in range(2))
    for name, content in images.items():
        crop = cropped(content).transpose(2, 0, 1).tobytes()
        expected["test" if name in test else "train"][name.split("/")[0]].add(crop)
    for task in tasks:
        parts = {"train": (task.train.x, task.train.y), "test": (task.test_x, task.gold)}
        for part, (x, y) in parts.items():
            assert x.dtype == torch.uint8 and x.shape[1:] == (3, 224, 224)
            for pixels, label in zip(x, y.tolist(), strict=True):
                found[part][label].add(pixels.numpy().tobytes())
    # The classes are those of the names in an order that is the same for both parts.
    order = {frozenset(crops): c for c, crops in expected["train"].items()}
    name_of = {label: order[frozenset(crops)] for label, crops in found["train"].items()}
    assert sorted(name_of) == [0, 1, 2, 3]
    assert {name_of[label]: crops for label, crops in found["test"].items()} == expected["test"]
    firsts = {load_stream(run.spec["stream"], seed)[0][0].test_x.sum().item() for seed in range(6)}
    assert len(firsts) > 1  # the class order is drawn from the seed


def test_two_folders_have_two_places_and_a_moved_one_keeps_its_key(own, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(own, other)
    first, moved = run_of(own, tmp_path), run_of(other, tmp_path)
    assert moved.key == first.key and moved.spec["stream"]["path"] == str(other)
    runs = [first, run_of(own, tmp_path, 0.25)]
    (other / "apple/photo 0.png").write_bytes(encoded(7, "PNG"))
    runs.append(run_of(other, tmp_path))
    (other / "apple/photo 0.png").rename(other / "apple/photo 9.png")
    runs.append(run_of(other, tmp_path))
    places = [streams.place(run.spec["stream"]) for run in (*runs, moved)]
    assert len({run.key for run in runs}) == len(set(places)) == 4 and places[-1] == places[0]


def change(own, *steps):
    """Break the folder: remove or make a path, or split it into train and test first."""
    for step in steps:
        kind, _, name = step.partition(" ")
        if kind == "split":
            with_own_split(own)
        elif kind == "remove":
            place = own / name
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        elif kind == "make":
            (own / name).mkdir()
        elif kind == "link":
            (own / "bear/link.png").symlink_to(name)


NO_RULE = {"test_fraction": None}


@pytest.mark.parametrize(
    "steps, options, expected",
    [
        ([], {"path": "gone"}, "path .*gone is not there"),
        ([], {"path": "notes.txt"}, "notes.txt is no folder"),
        ([], {"path": None}, "path"),
        ([f"remove {c}" for c in CLASSES], {}, "two classes .* has 0"),
        (["make empty"], {}, "empty needs 2 .* has 0"),
        (["remove deer/photo 1.png"], {}, "deer needs 2 .* has 1"),
        (["split", "remove train/crab"], NO_RULE, "'crab' is in test but not in train"),
        (["split", "remove test/crab"], NO_RULE, "'crab' is in train but not in test"),
        (["split", "remove test/crab/photo 0.png"], NO_RULE, "crab needs 1 .* has 0"),
        (["split"], {}, "test_fraction, 0.4"),
        ([], NO_RULE, "needs folders train and test, or else test_fraction"),
        ([], {"test_fraction": 1.0}, "test_fraction .*1"),
        ([], {"n_tasks": 3}, "n_tasks .* 4 .* 3"),
        ([], {"n_tasks": None}, "n_tasks"),
        (["link nowhere"], {}, "link.png cannot be read .No such file"),
        (["link /dev/null"], {}, "link.png is .* a device"),
        ([], {"name": "glyphs"}, "path"),
    ],
)
def test_a_broken_folder_is_one_sentence_before_anything_runs(
    own, tmp_path, steps, options, expected
):
    change(own, *steps)
    path = options.get("path", ".")
    with pytest.raises(DataError, match=f"own.yaml.*{expected}"):
        run_of(path and own / path, tmp_path, **{k: options[k] for k in options if k != "path"})


@pytest.mark.parametrize("name, n", [("cifar100", 100), ("imagenet_r", 200), ("cub200", 200)])
def test_tasks_have_equally_many_classes(tmp_path, name, n):
    run = functools.partial(run_of, None, tmp_path, None, name=name)
    with pytest.raises(DataError, match=f"n_tasks of {name} must divide its {n} classes.* is 7"):
        run(n_tasks=7)
    ten, twenty, left_out = (run(n_tasks=n) for n in (10, 20, None))
    assert twenty.spec["stream"]["n_tasks"] == 20
    assert ten.key == left_out.key != twenty.key


def test_conversions_are_counted_and_said_after_progress(own, tmp_path, capsys):
    deep = io.BytesIO()
    Image.fromarray(np.eye(30, dtype=np.uint16) * 65535).save(deep, "PNG")
    for name in ("bear/photo 0.png", "deer/photo 1.png"):
        (own / name).write_bytes(deep.getvalue())
    command_line.main(["folder", f"path={own}", "test_fraction=0.4", "--out", str(tmp_path / "o")])
    manifest = json.loads((tmp_path / "o/manifest.json").read_text())
    assert manifest["converted"] == {"scaled to 8 bits": 2}
    said = capsys.readouterr()
    assert "2 images: scaled to 8 bits" in said.out and "14 of 14 images" in said.err


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
    manifests, arrays = [], []
    for path in (own, other):
        options = {"path": str(path), "test_fraction": 0.4}
        manifests.append(streams.prepare("folder", tmp_path / "out" / path.name, **options))
        arrays.append(np.load(tmp_path / "out" / path.name / "train_images.npy"))
    assert manifests[0]["fingerprint"] == manifests[1]["fingerprint"]
    assert manifests[0]["classes"][-1] == "äpfel" and np.array_equal(*arrays)


def test_train_and_test_may_write_a_class_in_two_ways(own):
    with_own_split(own)
    before = fingerprint(own, test_fraction=None)
    renamed(own, "NFC", "train")
    renamed(own, "NFD", "test")
    assert fingerprint(own, test_fraction=None) != before
