"""A bundle of a suite that has data, weights and a method of its own, unpacked where these are not.

With its packages, and without a network, it is tried by `tests/cluster/bundle.sh`.
"""

import fnmatch
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks.common.files import read_json
from tests.checkout import Checkout, scheduled
from tests.outside import save

pytestmark = pytest.mark.slow

SUITE = "own suite.yaml"


def git(folder, *words):
    name = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    done = subprocess.run(["git", *name, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def images(folder):
    for c in range(2):
        for part, n in (("train", 3), ("test", 1)):
            (folder / part / f"class {c}").mkdir(parents=True)
            for i in range(n):
                grey = np.full((32, 32), 100 * c + i, np.uint8)
                Image.fromarray(grey).save(folder / part / f"class {c}/{i}.png")


def texts(folder):
    for task in ("first", "second"):
        (folder / task).mkdir(parents=True)
        for part in ("train", "test"):
            items = [{"prompt": f"{task} {part} {i}? ", "answer": "yes"} for i in range(3)]
            (folder / task / f"{part}.json").write_text(json.dumps(items))


def suite(data):
    train = {"epochs": 1, "batch_size": 4}
    pictures = {"name": "folder", "path": str(data / "images"), "n_tasks": 2}
    words = {"name": "text", "path": str(data / "texts")}
    words["tasks"] = {"first": "exact", "second": "exact"}
    return {
        "label": "a test",
        "seeds": [0],
        "experiments": [
            {
                "stream": pictures,
                "backbone": {"name": "micro-vit"},
                "train": train | {"mask": "all"},
                "methods": {"mine": {"method": "./mine.py"}},
            },
            {
                "stream": words,
                "backbone": {"name": "hf-tiny-llama"},
                "train": train,
                "methods": {"seqlora": {"rank": 2, "tuned": "pilot/seqlora"}},
            },
        ],
    }


class Source(Checkout):
    """A checkout with a commit, in which the suite is prepared from data elsewhere."""

    def __init__(self, folder, data):
        super().__init__(folder)
        self.data = {"TREELORA_DATA": str(data)}
        shutil.copy(folder / "examples/anchor.py", folder / "mine.py")
        (folder / SUITE).write_text(yaml.safe_dump(suite(data)))
        shutil.copy(folder / "benchmarks/suites/docs_pilot.yaml", folder / "pilot.yaml")
        git(folder, "init", "--quiet")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--message", "all")

    def bundle(self, *options):
        options = (SUITE, "--no-wheels", *options)
        return self.module("benchmarks.runs.bundle", *options, **self.data)

    @property
    def archive(self):
        [archive] = self.files("dist/*.tar")
        return archive


class Unpacked(Checkout):
    """A bundle in a folder of its own."""

    def __init__(self, archive, folder):
        subprocess.run(["tar", "xf", archive], cwd=folder, check=True)
        [self.folder] = folder.iterdir()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    images(data / "images")
    texts(data / "texts")
    save(data)
    source = Source(tmp_path_factory.mktemp("source"), data)
    source.snakemake("prepared", suite=SUITE, **source.data)
    code, shown = source.bundle()
    assert code == 0, shown
    return source


@pytest.fixture(scope="module")
def checkout(source, tmp_path_factory):
    return Unpacked(source.archive, tmp_path_factory.mktemp("unpacked"))


@pytest.fixture
def unpacked(source, checkout):
    """The bundle, while neither data nor weights are where they were."""
    data = Path(source.data["TREELORA_DATA"])
    away = data.rename(data.with_name("away"))
    yield checkout
    away.rename(data)


def test_the_archive_has_all_in_one_folder_and_nothing_of_this_machine(source):
    with tarfile.open(source.archive) as archive:
        members = archive.getmembers()
        names = {m.name.partition("/")[2]: m for m in members}
        contents = {name: archive.extractfile(m).read() for name, m in names.items()}
    assert {m.name.partition("/")[0] for m in members} == {source.archive.stem}
    assert all(m.isfile() and ".." not in m.name and not (m.uid or m.uname) for m in members)
    assert len({m.mtime for m in members}) == 1
    assert set(git(source.folder, "ls-files").splitlines()) < names.keys()
    assert not [name for name in names if name.endswith("log.txt")]
    weights = "resources/backbones/hf-tiny-llama/weights/model.safetensors"
    assert weights in names and len(fnmatch.filter(names, "results/runs/*/spec.json")) == 2
    written = {
        f: c for f, c in contents.items() if f.startswith("resources/") or f == "bundle.json"
    }
    own = str(source.folder).encode()
    assert not [name for name, content in written.items() if own in content]
    sums = dict(line.split("  ")[::-1] for line in contents.pop("SHA256SUMS").decode().splitlines())
    assert sums == {name: hashlib.sha256(c).hexdigest() for name, c in contents.items()}
    digest, _, name = Path(f"{source.archive}.sha256").read_text().partition("  ")
    assert name.strip() == source.archive.name
    assert digest == hashlib.sha256(source.archive.read_bytes()).hexdigest()


def test_the_same_commit_and_data_make_the_same_archive(source):
    before = source.archive.read_bytes()
    assert source.bundle()[0] == 0
    assert source.archive.read_bytes() == before


def test_beyond_a_limit_the_largest_parts_are_left_out_by_name(source):
    whole = source.archive.read_bytes()
    code, shown = source.bundle("--limit-gb", "0.0001")
    assert code == 0 and "left out: backbone micro-vit" in shown
    assert source.archive.stat().st_size < len(whole)
    with tarfile.open(source.archive) as archive:
        facts = json.load(archive.extractfile(f"{source.archive.stem}/bundle.json"))
    assert "micro-vit" not in facts["backbones"]
    source.archive.write_bytes(whole)


def test_where_it_is_unpacked_the_same_runs_are_open_and_nothing_is_prepared(source, unpacked):
    planned = {path.parent.name for path in source.files("results/runs/*/*/*/spec.json")}
    code, shown = unpacked.module("benchmarks.runs.forecast", SUITE, "--runs")
    assert code == 0 and all(name in shown for name in planned), shown
    shown = unpacked.snakemake("--dry-run", suite=SUITE)
    assert scheduled(shown) == {"train": 2, "collect": 1, "analyse": 1, "all": 1}


def test_where_it_is_unpacked_runs_are_made_and_know_their_commit(source, unpacked):
    commit = git(source.folder, "rev-parse", "HEAD")
    for spec in unpacked.files("results/runs/*/*/*/spec.json"):
        code, shown = unpacked.module("benchmarks.runs.run", str(spec))
        [record] = map(read_json, spec.parent.glob("result-*.json"))
        assert code == 0 and record["status"] == "done", shown
        assert record["provenance"]["commit"] == commit and not record["provenance"]["dirty"]
    method = unpacked.folder / "mine.py"
    method.write_text(method.read_text() + "\nCHANGED = 1\n")
    [spec] = unpacked.files("results/runs/*/mine/*/spec.json")
    unpacked.module("benchmarks.runs.run", str(spec))
    made = map(read_json, spec.parent.glob("result-*.json"))
    assert sorted(record["provenance"]["dirty"] for record in made) == [False, True]


@pytest.mark.parametrize(
    "file, said",
    [
        *((file, f"needs .*{file}") for file in (SUITE, "mine.py", "pilot.yaml")),
        ("Makefile", "commit it"),
    ],
)
def test_what_the_commit_does_not_have_is_named(file, said, source):
    before = git(source.folder, "rev-parse", "HEAD")
    git(source.folder, "rm", "--quiet", "--cached", file)
    if file != "Makefile":
        git(source.folder, "commit", "--quiet", "--message", "less")
    code, shown = source.bundle()
    git(source.folder, "reset", "--quiet", before)
    assert code != 0 and re.fullmatch(f".*{said}.*\n", shown), shown
