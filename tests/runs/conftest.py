"""A folder in which runs of seconds can be made, on a miniature of the glyphs."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import backbones
from benchmarks.common.files import write_json
from benchmarks.streams import glyphs
from tests.small_runs import make, plan_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder with a miniature of the prepared glyphs and the smallest backbone."""
    root = tmp_path_factory.mktemp("prepared")
    folder = root / "resources/streams/glyphs"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    labels = np.arange(20).repeat(4)
    images = generator.integers(0, 256, (80, 32, 32), dtype=np.uint8)
    images[:, :4] = (labels * 12)[:, None, None]
    np.savez(
        folder / "data.npz",
        train_images=images,
        train_labels=labels,
        test_images=images[::2],
        test_labels=labels[::2],
    )
    tasks = [
        {"name": f"script{t}", "group": f"group{t % 2}", "classes": ["a", "b"]} for t in range(10)
    ]
    manifest = {"modality": "vision", "fingerprint": glyphs.DIGEST, "tasks": tasks}
    write_json(folder / "manifest.json", manifest)
    weights = root / "resources/backbones/micro-vit"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        backbone = backbones.find("micro-vit").prepare(weights, None)
    backbone["weights"] = str(ROOT / backbone["weights"])
    write_json(weights / "manifest.json", backbone)
    return root


@pytest.fixture
def project(prepared, tmp_path, monkeypatch):
    """A working directory in which runs can be made."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    return tmp_path


@pytest.fixture(scope="session")
def whole(prepared, tmp_path_factory):
    """The record of a run of SeqLoRA, made once."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return make(plan_of({"seqlora": {}}).runs[0])
