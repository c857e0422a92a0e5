"""Checkpoints from outside: every layout is read, and what is not the backbone is refused."""

import argparse
import dataclasses
import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks import backbones
from benchmarks.backbones import checkpoints
from benchmarks.common.data_dir import DATA_DIR_VARIABLE
from benchmarks.common.errors import DataError
from benchmarks.runs.suite import load_suite
from tests import tiny

HEAD = {"head.weight": torch.zeros(10, 24), "head.bias": torch.zeros(10)}


def trunk(seed: int = 0, **changes) -> dict[str, torch.Tensor]:
    """The weights of a tiny network with trained norms."""
    torch.manual_seed(seed)
    backbone = dataclasses.replace(tiny.VISION, architecture=tiny.VISION.architecture | changes)
    state = backbone.build(1).network.state_dict()
    return {k: v + 0.1 * torch.randn_like(v) if "norm" in k else v for k, v in state.items()}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The data directory and the place to work."""
    monkeypatch.chdir(tmp_path)


def known(name: str, **facts) -> backbones.TimmFile:
    """A tiny backbone whose files are `name.*`."""
    facts = {"normalisation": "unit"} | facts
    return dataclasses.replace(tiny.VISION, name=name, file=name, **facts)


def prepare(backbone) -> dict:
    return backbone.prepare(Path("out"), Path())


def loaded(backbone, image_size=None) -> dict[str, torch.Tensor]:
    return backbone.load(prepare(backbone), 1, image_size).network.state_dict()


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


def ibot(state: dict) -> dict:
    """The layout of iBOT's training checkpoint, with the learning rate numpy's as in its script."""
    teacher = {f"backbone.{key}": value for key, value in state.items()}
    teacher |= {"head.mlp.0.weight": torch.zeros(2, 2), "backbone.masked_embed": torch.zeros(1, 24)}
    student = {f"module.{key}": value + 1 for key, value in teacher.items()}
    rates = {"param_groups": [{"lr": np.float64(0.1), "weight_decay": np.float64(0.4)}]}
    arguments = argparse.Namespace(arch="vit_base", lr=0.1)
    return {"student": student, "teacher": teacher, "optimizer": rates, "args": arguments}


def moco(state: dict) -> dict:
    """The layout of MoCo v3's training checkpoint: the base encoder and its moving average."""
    base = {f"module.base_encoder.{key}": value for key, value in state.items()}
    base |= {"module.base_encoder.head.0.weight": torch.zeros(2, 2)}
    momentum = {f"module.momentum_encoder.{key}": value + 1 for key, value in state.items()}
    predictor = {"module.predictor.0.weight": torch.zeros(2, 2)}
    return {"epoch": 300, "arch": "vit_base", "state_dict": momentum | predictor | base}


IBOT = {"entry": "teacher", "prefix": "backbone."}
LAYOUTS = {
    "ibot": (ibot, IBOT),
    "moco": (moco, {"entry": "state_dict", "prefix": "base_encoder."}),
    "bare": (dict, {}),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_layout_gives_the_trunk_and_runs_never_unpickle(layout, zipped):
    arrange, facts = LAYOUTS[layout]
    backbone = known(layout, labels="none", classes=0, **facts)
    state, path = trunk(), Path(f"{layout}.pth")
    torch.save(arrange(state), path, _use_new_zipfile_serialization=zipped)
    if not zipped:  # as a numpy of the time called itself
        path.write_bytes(path.read_bytes().replace(b"numpy._core.multi", b"numpy.core.multi"))
    manifest = prepare(backbone)
    assert manifest["weights"] == os.path.join("out", "weights.safetensors")
    assert_same(load_file(manifest["weights"]), state)
    assert_same(loaded(backbone), state)
    assert manifest["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest["labels"] == "none"


def test_a_conversion_to_safetensors_is_read_with_its_prefix_and_without():
    for prefix in ("backbone.", "module.backbone.", ""):
        save_file({prefix + k: v for k, v in trunk().items()}, "ibot.safetensors")
        assert_same(loaded(known("ibot", **IBOT)), trunk())


class Payload:
    """Unpickled, it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(zipped):
    if zipped:
        torch.save({"teacher": trunk(), "args": Payload()}, "bare.pth")
    else:
        Path("bare.pth").write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(DataError, match="bare.pth .*(posix|nt).mkdir"):
        prepare(known("bare"))
    assert not Path("ran").exists()


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(kind, part):
    path = Path("cut.safetensors" if kind == "safetensors" else "cut.pth")
    if kind == "safetensors":
        save_file({k: v.half() for k, v in trunk().items()}, path)
    else:
        torch.save(trunk(), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(DataError, match=f"{path} cannot be read"):
        prepare(known("cut"))


def without(name: str) -> dict:
    state = trunk()
    del state[name]
    return state


def flat() -> dict:
    return trunk() | {"norm.weight": torch.zeros(24)}


def infinite() -> dict:
    state = trunk()
    state["blocks.1.mlp.fc1.bias"][3] = torch.inf
    return state


def untrained() -> dict:
    torch.manual_seed(0)
    return tiny.VISION.build(1).network.state_dict()


REFUSED = {
    "no entry": (trunk, IBOT, "'teacher', but holds 'cls_token'"),
    "no prefix": (lambda: {"teacher": trunk()}, IBOT, "bare.pth begins with 'backbone.'"),
    "no tensors": (lambda: {"teacher": {"epoch": 3}}, IBOT, "holds 'epoch'"),
    "one tensor": (lambda: {"teacher": torch.zeros(3)}, IBOT, "holds nothing"),
    "head alone": (lambda: HEAD, {}, "missing .'cls_token'"),
    "no norm": (lambda: without("norm.weight"), {}, "missing .'norm.weight'., unexpected nothing"),
    "other names": (lambda: {f"x.{k}": v for k, v in trunk().items()}, {}, "unexpected .'x."),
    "width": (lambda: trunk(embed_dim=36), {}, r"cls_token is \(1, 1, 36\).*\(1, 1, 24\)"),
    "depth": (lambda: trunk(depth=3), {}, "missing nothing, unexpected .'blocks.2"),
    # timm would resample both without a word
    "patches": (lambda: trunk(patch_size=4, img_size=8), {}, r"\(24, 3, 4, 4\).*\(24, 3, 8, 8\)"),
    "grid": (lambda: trunk(img_size=24), {}, r"pos_embed is \(1, 10, 24\).*\(1, 5, 24\)"),
    "tuned": (lambda: trunk() | HEAD, {"classes": 0}, "has 10 classes and should have none"),
    "classes": (lambda: trunk() | HEAD, {"classes": 30}, "has 10 classes and should have 30"),
    "headless": (trunk, {"classes": 30}, "has no classes and should have 30"),
    "untrained": (untrained, {}, "random initialisation"),
    "flat": (flat, {}, "the same features for different images"),
    "infinite": (infinite, {}, "not finite"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_the_backbone_is_refused_and_nothing_is_written(what):
    content, facts, why = REFUSED[what]
    torch.save(content(), "bare.pth")
    with pytest.raises(DataError, match=why):
        prepare(known("bare", **facts))
    assert not Path("out").exists()


def test_features_once_known_tell_one_checkpoint_from_another():
    torch.save(trunk() | HEAD, "bare.pth")
    features = prepare(known("bare", classes=10))["features"]
    backbone = known("known", classes=10, features=features)
    save_file({k: v.half() for k, v in trunk().items()}, "known.safetensors")
    prepare(backbone)  # rounded, and known without its classifier
    with pytest.raises(DataError, match="is not known: its features"):
        prepare(dataclasses.replace(backbone, normalisation="half"))
    save_file(trunk(seed=1), "known.safetensors")
    with pytest.raises(DataError, match="is not known: its features"):
        prepare(backbone)


def test_features_are_those_of_a_plain_forward_pass():
    model = tiny.network("vision")
    found = checkpoints.features(model)
    x = checkpoints.probes((16, 16))
    assert 0 <= x.min() < 0.1 and 0.9 < x.max() <= 1
    with torch.no_grad():
        expected = model.network.forward_features((x - 0.5) / 0.5)[:, 0]
    torch.testing.assert_close(found, expected)


def test_the_fingerprint_follows_the_data_directory_and_no_download():
    save_file(trunk(), "published.safetensors")
    digest = hashlib.sha256(Path("published.safetensors").read_bytes()).hexdigest()
    url = Path("published.safetensors").resolve().as_uri()
    backbone = known("own", url=url, sha256=digest)
    found = [backbone.fingerprint(None), backbone.fingerprint(Path())]
    manifest = backbone.prepare(Path("out"), None)
    found.append(backbone.fingerprint(None))
    for content in (b"one", b"two"):
        Path("own.fp16.safetensors").write_bytes(content)
        found.append(backbone.fingerprint(Path()))
    assert found[0] == found[1] == found[2] and len(set(found)) == 3
    assert manifest["weights"] == os.path.join("resources", "downloads", "own.safetensors")
    assert manifest["weights_sha256"] == digest
    with pytest.raises(DataError, match=f"should have sha256 {'0' * 64}"):
        known("other", url=url, sha256="0" * 64).prepare(Path("out"), None)


@pytest.mark.parametrize("pixels", [16, 48])
def test_positions_are_resampled_as_timm_does(pixels):
    from timm.layers import resample_abs_pos_embed

    state = trunk()
    torch.save(state, "bare.pth")
    grid = [pixels // 8, pixels // 8]
    positions = resample_abs_pos_embed(state["pos_embed"], grid, num_prefix_tokens=1)
    assert_same(loaded(known("bare"), pixels), state | {"pos_embed": positions})


SUITE = """
label: a test
seeds: [0]
experiments:
  - stream: {{name: glyphs}}
    backbone: {backbone}
    train: {{epochs: 1, mask: current}}
    methods: {{seqlora: {{}}}}
"""


def resolve(backbone: str):
    """The run of a suite that names the backbone."""
    Path("suite.yaml").write_text(SUITE.format(backbone=backbone))
    (run,) = load_suite("suite.yaml", Path()).runs
    return run


def test_a_suite_may_name_another_normalisation():
    plain = resolve("{name: micro-vit}")
    other = resolve("{name: micro-vit, normalisation: imagenet}")
    assert set(plain.spec["backbone"]) == {"name", "image_size", "digest"}  # as ever
    assert other.spec["backbone"]["normalisation"] == "imagenet" and other.key != plain.key
    with pytest.raises(DataError, match="normalisation.*'unit', 'half'.*'zero'"):
        resolve("{name: micro-vit, normalisation: zero}")


def test_a_users_own_checkpoint_is_named_by_its_file():
    import timm

    own = "timm-vit_tiny_patch16_224"
    state = timm.create_model("vit_tiny_patch16_224", num_classes=7).state_dict()
    state = {k: v + 0.1 * torch.randn_like(v) if "norm" in k else v for k, v in state.items()}
    save_file(state, "vit_tiny_patch16_224.mine.safetensors")
    missing = f"vit_tiny_patch16_224.other.safetensors or .*pth .*{DATA_DIR_VARIABLE}"
    with pytest.raises(DataError, match=missing):
        resolve(f"{{name: {own}.other}}")
    save_file({k: v * 2 for k, v in state.items()}, "vit_tiny_patch16_224.other.safetensors")
    mine, other = (resolve(f"{{name: {own}.{tag}}}") for tag in ("mine", "other"))
    assert mine.key != other.key
    assert mine.spec["backbone"]["name"] != other.spec["backbone"]["name"]  # the manifest's folder
    backbone = backbones.find(f"{own}.mine")
    manifest = prepare(backbone)
    assert manifest["fingerprint"] == mine.spec["backbone"]["digest"]
    assert manifest["labels"] == "unknown"
    assert_same(loaded(backbone), {k: v for k, v in state.items() if not k.startswith("head.")})
    assert backbone.adapted_matrices == 24


@pytest.mark.data
def test_the_vit_ti_of_the_data_directory_is_recognised(tmp_path):
    data = Path(os.environ.get(DATA_DIR_VARIABLE) or "nowhere")
    if not list(data.glob("vit_tiny_patch16_224*.safetensors")):
        pytest.skip(f"{DATA_DIR_VARIABLE} names no folder with ViT-Ti")
    backbone = backbones.find("vit-ti")
    manifest = backbone.prepare(tmp_path, data)
    assert manifest["labels"] == "in1k" and manifest["weights"].startswith(str(data))
    state = load_file(manifest["weights"])
    state["blocks.11.mlp.fc2.weight"] = state["blocks.11.mlp.fc2.weight"].flip(0)
    save_file(state, tmp_path / "vit_tiny_patch16_224.fp16.safetensors")
    with pytest.raises(DataError, match="is not vit-ti: its features"):
        backbone.prepare(tmp_path, tmp_path)


def test_a_checkpoint_of_ones_own_is_not_taken_for_a_published_one(tmp_path):
    backbone = backbones.find("vit-ti")
    for name in ("mine", "augreg_in21k"):
        (tmp_path / f"vit_tiny_patch16_224.{name}.safetensors").write_bytes(b"")
    assert backbone.fingerprint(tmp_path) == backbone.fingerprint(None)
