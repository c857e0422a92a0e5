"""What every stream must keep: the documented format, and what it says of itself beforehand.

Asked of those that can be made here, of files of a user's and of `examples/shades.py`;
`make contract STREAM="NAME OPTION=VALUE ..."` asks it of one, by name, module or path.
"""

import hashlib
import json
import os
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import streams
from benchmarks.backbones.tokenizer import Tokenizer
from benchmarks.common.data_dir import data_dir
from benchmarks.common.files import read_json
from benchmarks.common.options import changed
from benchmarks.scoring.text_metrics import METRICS
from benchmarks.streams import __main__ as command_line
from benchmarks.streams.common import tasks
from benchmarks.streams.common.pictures import write_npz

SHADES = str(Path(__file__).parents[2] / "examples/shades.py")
BYTES = Tokenizer(lambda text: [b + 3 for b in text.encode()], None, 1, 2)
EMBEDDED = ("glyphs", "docs")


def pytest_generate_tests(metafunc):
    only = metafunc.config.getoption("stream")
    cases = [only] if only else [*EMBEDDED, "folder", "text", SHADES]
    if "stream_case" in metafunc.fixturenames:
        slow = {"docs": [pytest.mark.slow]}
        values = [pytest.param(c, id=Path(c).stem, marks=slow.get(c, ())) for c in cases]
        metafunc.parametrize("stream_case", values, scope="module")


def own_images(folder: Path) -> dict:
    """Three classes, of which the first image of each is large and the second is not square."""
    from PIL import Image

    for label, name in enumerate("abc"):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            draw = np.random.default_rng(10 * label + i).integers(0, 256, (30, 20 + i, 3), np.uint8)
            Image.fromarray(draw).save(folder / name / f"{i}.png")
    return {"path": str(folder), "n_tasks": 3, "test_fraction": 0.25}


def own_texts(folder: Path) -> dict:
    for task in ("first", "second"):
        (folder / task).mkdir(parents=True)
        for part, n in (("train", 4), ("test", 2)):
            items = [{"prompt": f"{task} {part} {i}?", "answer": "yes"} for i in range(n)]
            (folder / task / f"{part}.json").write_text(json.dumps(items))
    return {"path": str(folder), "tasks": {"first": "exact", "second": "rouge_l"}}


@pytest.fixture(scope="module")
def made(stream_case, tmp_path_factory, prepared_stream, request):
    """A stream that is prepared, see `described`."""
    place, *assignments = shlex.split(stream_case)
    alone, resources = request.config.getoption("stream"), tmp_path_factory.mktemp("resources")
    own = {} if alone else {"folder": own_images, "text": own_texts}
    options = command_line._options(place, assignments)
    options |= own[place](resources / "own") if place in own else {}

    def make():
        return streams.make({"name": place, **options}, data_dir())

    folder = resources / "streams" / streams.place(spec_of(make()))
    if place in EMBEDDED and not alone:
        folder.parent.mkdir()
        folder.symlink_to(prepared_stream(place))
    else:
        streams.prepare(place, folder, data_dir(), **options)
    return described(make, folder)


def described(make, folder: Path) -> SimpleNamespace:
    """A prepared stream.

    Attributes:
        make: a function that makes the stream.
        folder, manifest: of the data.
        names: of its tasks, or of its classes where tasks are splits of one dataset.
        items: what each item of "train" and of "test" is, no two of which are the same.
        labels: of the items, on language the number of the task.
    """
    manifest, stream, items, labels = read_json(folder / "manifest.json"), make(), {}, {}
    for part in ("train", "test"):
        if stream.modality == "vision":
            data = tasks._arrays(folder)
            images, labels[part] = data[f"{part}_images"], data[f"{part}_labels"]
            assert images.dtype == np.uint8 and images.ndim in (3, 4), images.shape
            assert images.ndim == 3 or images.shape[3] == 3, images.shape
            assert labels[part].dtype.kind in "iu", labels[part].dtype
            items[part] = [hashlib.sha256(image.tobytes()).digest() for image in images]
        else:
            data = json.loads((folder / "data.json").read_text(encoding="utf-8"))
            pairs = [(t, item) for t, task in enumerate(data) for item in task[part]]
            labels[part] = np.array([t for t, _ in pairs])
            items[part] = [(t, item["prompt"]) for t, item in pairs]
            assert all(item["prompt"] and item["answer"] for _, item in pairs)
    if stream.modality == "language":
        assert all(task["metric"] in METRICS and "group" in task for task in data)
        names = [task["name"] for task in data]
    else:
        names = manifest.get("classes") or [task["name"] for task in manifest["tasks"]]
    return SimpleNamespace(
        make=make, folder=folder, manifest=manifest, names=names, items=items, labels=labels
    )


def spec_of(stream) -> dict:
    """A stream in a record."""
    asked = {"n_tasks": len(stream.task_sizes()), "digest": stream.fingerprint()}
    return changed(stream.options) | asked | ({"origin": stream.origin} if stream.origin else {})


def test_its_fingerprint_is_known_beforehand(made):
    first, second = made.make(), made.make()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(first), "prepare", None)
        found = first.fingerprint()
    assert re.fullmatch("[0-9a-f]{64}", found), f"{found} is no SHA-256 in hex"
    assert found == second.fingerprint(), "a stream made twice has two fingerprints"
    assert found == made.manifest["fingerprint"], "the manifest has another fingerprint"


def test_its_manifest_is_as_documented(made):
    stream, manifest = made.make(), made.manifest
    assert (manifest["name"], manifest["modality"]) == (stream.options.name, stream.modality)
    assert manifest["source"] and isinstance(manifest["source"], str)
    files = [file for file in made.folder.iterdir() if file.name != "manifest.json"]
    assert manifest["n_bytes"] == sum(file.stat().st_size for file in files)
    assert all(isinstance(n, int) for n in manifest.get("converted", {}).values())
    for defect in manifest.get("defects", []):
        assert {"task", "kind", "count", "note"} <= defect.keys()


def test_its_tasks_and_classes_are_as_declared(made):
    """Each class, or task of texts, has items of both parts."""
    stream, names = made.make(), made.names
    assert len(names) == len(set(names)) == (stream.n_classes or stream.n_tasks)
    assert stream.unit_names is None or list(stream.unit_names) == names
    n_labels = len(names)
    if stream.modality == "vision" and not stream.n_classes:
        n_labels = sum(len(task["classes"]) for task in made.manifest["tasks"])
    for part, labels in made.labels.items():
        assert sorted(set(labels.tolist())) == list(range(n_labels)), f"labels of {part}"
        assert not stream.n_items or stream.n_items[part] == len(labels)


def test_no_item_of_a_test_is_in_training(made):
    """Nor is any twice in a test."""
    leaks = set(made.items["train"]) & set(made.items["test"])
    assert not leaks, f"{len(leaks)} items of the test are in the training data as well"


def test_it_is_learnt_task_by_task_in_the_order_of_the_seed(made, monkeypatch):
    monkeypatch.setattr(tasks, "RESOURCES", made.folder.parents[1])
    stream = made.make()
    lives = [tasks.load_stream(spec_of(stream), seed, BYTES) for seed in (0, 0, 1, 2, 3)]
    found = [tuple(task.test_x.sum().item() for task in life) for life, _ in lives]
    assert found[0] == found[1] and len(set(found)) > 1
    for life, task_of_class in lives:
        assert len(life) == len(stream.task_sizes())
        assert all(len(task.train) and len(task.gold) == len(task.test_x) for task in life)
        if stream.modality == "vision":
            classes = [set(task_of_class[task.train.y].tolist()) for task in life]
            assert classes == [{t} for t in range(len(life))]


def test_preparing_it_again_gives_the_same_bytes(made):
    if made.folder.is_symlink():
        return  # it is compared with a digest that is known, whenever it is prepared
    out = made.folder.with_name("again")
    out.mkdir()
    manifest = made.make().prepare(out)
    again = {file.name: file.read_bytes() for file in out.iterdir()}
    assert again and made.manifest | manifest == made.manifest
    assert again == {name: (made.folder / name).read_bytes() for name in again}, "other bytes"


# The contract itself: each of these streams breaks one clause.


def broken(change) -> type:
    """A stream of which `change` spoils the manifest or the arrays."""

    class Broken(streams.load(SHADES)):
        def prepare(self, out):
            manifest = super().prepare(out)
            arrays = dict(np.load(out / "data.npz"))
            change(manifest, arrays)
            write_npz(out / "data.npz", arrays)
            return manifest

    return Broken


def leak(manifest, arrays):
    arrays["test_images"][0] = arrays["train_images"][0]


def miscount(manifest, arrays):
    manifest["n_bytes"] += 1


def lose_a_class(manifest, arrays):
    arrays["train_labels"][arrays["train_labels"] == 3] = 2


def rename(manifest, arrays):
    manifest["classes"] = ["black"] * 4


def draw_without_a_seed(manifest, arrays):
    arrays["train_images"][0] ^= np.frombuffer(os.urandom(256), np.uint8).reshape(16, 16)


def sign_otherwise(manifest, arrays):
    manifest["fingerprint"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        (leak, test_no_item_of_a_test_is_in_training),
        (miscount, test_its_manifest_is_as_documented),
        (lose_a_class, test_its_tasks_and_classes_are_as_declared),
        (rename, test_its_tasks_and_classes_are_as_declared),
        (sign_otherwise, test_its_fingerprint_is_known_beforehand),
        (draw_without_a_seed, test_preparing_it_again_gives_the_same_bytes),
    ],
)
def test_a_broken_stream_is_found(change, clause, tmp_path, monkeypatch):
    cls, folder = broken(change), tmp_path / "data"

    def make():
        return cls(cls.Options(name="shades"))

    monkeypatch.setattr(streams, "make", lambda *_: make())
    streams.prepare("shades", folder)
    with pytest.raises(AssertionError):
        clause(described(make, folder))
