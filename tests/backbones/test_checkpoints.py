"""Weight files from outside: every layout is read, and what is not the backbone is refused."""

import argparse
import dataclasses
import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_records import record, write
from safetensors.torch import load_file, save_file

from analysis.records.runs import read_suite
from analysis.tables.setting import setting_notes
from benchmarks import backbones
from benchmarks.backbones import checkpoints
from benchmarks.common.files import DataError
from benchmarks.runs.suite import load_suite
from tests import tiny

ROOT = Path(__file__).parents[2]
TINY = {"normalisation": "unit", "pretrain_stream": None, "pretraining": "of a test"}


def trunk(seed: int = 0, **changes) -> dict[str, torch.Tensor]:
    """The weights of a tiny network with trained norms."""
    torch.manual_seed(seed)
    backbone = dataclasses.replace(tiny.VISION, architecture=tiny.VISION.architecture | changes)
    state = backbones.build_vision(backbone, 1).network.state_dict()
    return {k: v + 0.1 * torch.randn_like(v) if "norm" in k else v for k, v in state.items()}


@pytest.fixture
def known(tmp_path, monkeypatch):
    """Enters tiny backbones into the table; `known(name, **facts)`, files are `name.*` there."""
    monkeypatch.chdir(tmp_path)

    def enter(name: str, **facts) -> None:
        suffixes = (".safetensors", ".pth")
        patterns = tuple(name + suffix for suffix in suffixes)
        entry = dataclasses.replace(tiny.VISION, name=name, patterns=patterns, **(TINY | facts))
        monkeypatch.setitem(backbones.BACKBONES, name, entry)

    return enter


def prepare(name: str) -> dict:
    return backbones.prepare(name, Path("out"), Path())


def loaded(manifest: dict) -> dict[str, torch.Tensor]:
    return backbones.load(manifest, 1, None).network.state_dict()


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


LAYOUTS = {
    "ibot": (ibot, {"entry": "teacher", "prefix": "backbone."}),
    "moco": (moco, {"entry": "state_dict", "prefix": "base_encoder."}),
    "bare": (lambda state: state, {}),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_layout_gives_the_trunk_and_runs_never_unpickle(layout, zipped, known):
    arrange, facts = LAYOUTS[layout]
    known(layout, labels="none", classes=0, **facts)
    state, path = trunk(), Path(f"{layout}.pth")
    torch.save(arrange(state), path, _use_new_zipfile_serialization=zipped)
    if not zipped:  # as a numpy of the time called itself
        path.write_bytes(path.read_bytes().replace(b"numpy._core.multi", b"numpy.core.multi"))
    manifest = prepare(layout)
    assert manifest["weights"] == os.path.join("out", "weights.safetensors")
    assert_same(load_file(manifest["weights"]), state)
    assert_same(loaded(manifest), state)
    assert manifest["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest["labels"] == "none"


def test_a_conversion_to_safetensors_is_read_with_its_prefix_and_without(known):
    known("ibot", **LAYOUTS["ibot"][1])
    for prefix in ("backbone.", "module.backbone.", ""):
        save_file({prefix + k: v for k, v in trunk().items()}, "ibot.safetensors")
        assert_same(loaded(prepare("ibot")), trunk())


class Payload:
    """Unpickled, it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(known):
    known("bare")
    torch.save({"teacher": trunk(), "args": Payload()}, "bare.pth")
    with pytest.raises(
        DataError, match="bare.pth .*, but asks for (posix|nt).mkdir, which could run"
    ):
        prepare("bare")
    Path("bare.pth").write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(DataError, match="bare.pth .*, but asks for (posix|nt).mkdir"):
        prepare("bare")
    assert not Path("ran").exists()


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(kind, part, known):
    known("cut")
    path = Path("cut.safetensors" if kind == "safetensors" else "cut.pth")
    if kind == "safetensors":
        save_file({k: v.half() for k, v in trunk().items()}, path)
    else:
        torch.save(trunk(), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(DataError, match=f"{path} cannot be read"):
        prepare("cut")


def refused(name: str, content: dict, why: str) -> None:
    path = Path(f"{name}.pth")
    torch.save(content, path)
    with pytest.raises(DataError, match=why):
        prepare(name)
    assert not Path("out").exists()


def test_another_layout_is_refused(known):
    known("ibot", **LAYOUTS["ibot"][1])
    refused("ibot", trunk(), "should hold its network as 'teacher', but holds 'cls_token'")
    refused("ibot", {"teacher": trunk()}, "no tensor of ibot.pth begins with 'backbone.'")
    refused("ibot", {"teacher": {"epoch": 3}}, "should hold named tensors, but holds 'epoch'")
    refused("ibot", {"teacher": torch.zeros(3)}, "should hold named tensors, but holds nothing")


def test_another_network_is_refused(known):
    known("bare")
    state = trunk()
    head_only = {"head.weight": torch.zeros(5, 24), "head.bias": torch.zeros(5)}
    refused("bare", head_only, "missing .'cls_token'")
    normless = {k: v for k, v in state.items() if k != "norm.weight"}
    refused("bare", normless, "missing .'norm.weight'., unexpected nothing")
    momentum = {f"momentum_encoder.{k}": v for k, v in state.items()}
    refused("bare", momentum, "unexpected .'momentum_encoder")
    refused("bare", trunk(embed_dim=36), r"cls_token is \(1, 1, 36\) and should be \(1, 1, 24\)")
    refused("bare", trunk(depth=3), "missing nothing, unexpected .'blocks.2")


def test_other_patches_and_grids_are_refused_instead_of_resampled(known):
    known("bare")
    patches = r"patch_embed.proj.weight is \(24, 3, 4, 4\) and should be \(24, 3, 8, 8\)"
    small = trunk(patch_size=4, img_size=8)  # the same number of patches
    refused("bare", small, patches)
    refused("bare", trunk(img_size=24), r"pos_embed is \(1, 10, 24\) and should be \(1, 5, 24\)")


def test_a_trunk_tuned_on_other_labels_is_refused(known):
    head = {"head.weight": torch.zeros(10, 24), "head.bias": torch.zeros(10)}
    known("pretrained", classes=0)
    refused("pretrained", trunk() | head, "its classifier has 10 classes and should have none")
    known("classified", classes=30)
    refused("classified", trunk() | head, "its classifier has 10 classes and should have 30")
    refused("classified", trunk(), "its classifier has no classes and should have 30")
    known("tuned", classes=10)
    torch.save(trunk() | head, "tuned.pth")
    assert_same(loaded(prepare("tuned")), trunk())


def test_weights_without_training_are_refused(known):
    known("bare")
    torch.manual_seed(0)
    network = backbones.build_vision(tiny.VISION, 1).network
    refused("bare", network.state_dict(), "random initialisation")


def test_degenerate_features_are_refused(known):
    known("bare")
    flat = trunk()
    flat["norm.weight"] = torch.zeros_like(flat["norm.weight"])
    refused("bare", flat, "the same features for different images")
    broken = trunk()
    broken["blocks.1.mlp.fc1.bias"][3] = torch.inf
    refused("bare", broken, "features that are not finite")


def test_features_once_known_tell_one_checkpoint_from_another(known):
    known("bare", classes=10)
    head = {"head.weight": torch.zeros(10, 24)}
    torch.save(trunk() | head, "bare.pth")
    features = tuple(prepare("bare")["features"])
    known("known", classes=10, features=features)
    save_file({k: v.half() for k, v in trunk().items()}, "known.safetensors")
    prepare("known")  # rounded, and known without its classifier
    save_file(trunk(seed=1), "known.safetensors")
    with pytest.raises(DataError, match="is not known: its features"):
        prepare("known")
    save_file(trunk(), "known.safetensors")
    known("known", classes=10, features=features, normalisation="half")
    with pytest.raises(DataError, match="is not known: its features"):
        prepare("known")


def test_features_are_those_of_a_plain_forward_pass():
    model = tiny.network("vision")
    found = checkpoints.features(model)
    x = checkpoints.probes(checkpoints.N_PROBES, (16, 16))
    assert 0 <= x.min() < 0.1 and 0.9 < x.max() <= 1
    with torch.no_grad():
        expected = model.network.forward_features((x - 0.5) / 0.5)[:, 0]
    torch.testing.assert_close(found, expected)
    assert model.training


def test_downloads_are_pinned_or_recorded_and_a_mismatch_is_refused(known):
    save_file(trunk(), "published.safetensors")
    digest = hashlib.sha256(Path("published.safetensors").read_bytes()).hexdigest()
    url = Path("published.safetensors").resolve().as_uri()

    known("pinned", url=url, sha256=digest)
    manifest = backbones.prepare("pinned", Path("out"), None)
    assert manifest["weights"] == os.path.join("resources", "downloads", "pinned.safetensors")
    assert manifest["weights_sha256"] == digest
    known("other", url=url, sha256="0" * 64)
    with pytest.raises(DataError, match=f"should have sha256 {'0' * 64}"):
        backbones.prepare("other", Path("out"), None)

    known("first", url=url)
    before = backbones.fingerprint("first", None)
    backbones.prepare("first", Path("out"), None)
    record = Path("resources/downloads/first.safetensors.sha256")
    assert record.read_text().strip() == digest
    assert backbones.fingerprint("first", None) == before
    save_file(trunk(seed=1), "resources/downloads/first.safetensors")
    with pytest.raises(DataError, match=f"should have sha256 {digest}"):
        backbones.prepare("first", Path("out"), None)


@pytest.mark.parametrize("pixels", [16, 32, 48])
def test_positions_are_resampled_as_timm_does(pixels, known):
    from timm.layers import resample_abs_pos_embed

    known("bare")
    state = trunk()
    torch.save(state, "bare.pth")
    found = backbones.load(prepare("bare"), 1, pixels).network.state_dict()
    grid = [pixels // 8, pixels // 8]
    positions = resample_abs_pos_embed(state["pos_embed"], grid, num_prefix_tokens=1)
    assert_same(found, state | {"pos_embed": positions})


def test_a_normalisation_is_per_channel_or_for_all():
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for name, (mean, std) in backbones.NORMALISATIONS.items():
        torch.manual_seed(0)
        model = backbones.build_vision(tiny.VISION, 2, normalisation=name)
        mean, std = (np.broadcast_to(v, 3).astype("f")[:, None, None] for v in (mean, std))
        given = torch.from_numpy((x.numpy() - mean) / std)
        with torch.no_grad():
            expected = model.head(model.network.forward_features(given)[:, 0])
            torch.testing.assert_close(model(x), expected)
        assert not {"_mean", "_std"} & model.state_dict().keys()


SUITE = """
label: a test
seeds: [0]
experiments:
  - stream: {{name: glyphs}}
    backbone: {backbone}
    train: {{epochs: 1, mask: current}}
    methods: {{seqlora: {{}}}}
"""


def resolve(backbone: str, folder: Path):
    path = folder / "suite.yaml"
    path.write_text(SUITE.format(backbone=backbone))
    (run,) = load_suite(str(path), folder).runs
    return run


def test_a_suite_may_name_another_normalisation(tmp_path):
    plain = resolve("{name: micro-vit}", tmp_path)
    other = resolve("{name: micro-vit, normalisation: imagenet}", tmp_path)
    assert set(plain.spec["backbone"]) == {"name", "image_size", "digest"}  # as ever
    assert other.spec["backbone"]["normalisation"] == "imagenet" and other.key != plain.key
    with pytest.raises(DataError, match="normalisation must be one of unit, half, .* not 'zero'"):
        resolve("{name: micro-vit, normalisation: zero}", tmp_path)


def test_a_users_own_checkpoint_is_named_by_its_file(tmp_path, monkeypatch):
    import timm

    monkeypatch.chdir(tmp_path)
    state = timm.create_model("vit_tiny_patch16_224", num_classes=7, depth=12).state_dict()
    state = {k: v + 0.1 * torch.randn_like(v) if "norm" in k else v for k, v in state.items()}
    save_file(state, "vit_tiny_patch16_224.mine.safetensors")
    with pytest.raises(DataError, match="put vit_tiny_patch16_224.other.safetensors or .*pth into"):
        resolve("{name: timm-vit_tiny_patch16_224.other}", tmp_path)
    save_file({k: v * 2 for k, v in state.items()}, "vit_tiny_patch16_224.other.safetensors")
    mine, other = (
        resolve(f"{{name: timm-vit_tiny_patch16_224.{tag}}}", tmp_path) for tag in ("mine", "other")
    )
    assert mine.key != other.key
    assert mine.spec["backbone"]["name"] != other.spec["backbone"]["name"]  # the manifest's folder
    manifest = prepare("timm-vit_tiny_patch16_224.mine")
    assert manifest["fingerprint"] == mine.spec["backbone"]["digest"]
    assert manifest["labels"] == "unknown"
    assert_same(loaded(manifest), {k: v for k, v in state.items() if not k.startswith("head.")})
    assert backbones.find("timm-vit_tiny_patch16_224.mine").adapted_matrices == 24


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("timm-vit_tiny_patch16_225", "did you mean timm-vit_tiny_patch16_224"),
        ("timm-vit_tiny_patch16_224.../../up", "should be timm-"),
        ("timm-resnet18", "resnet18 is no plain vision transformer"),
        ("timm-vit_base_patch16_siglip_224", "is no plain vision transformer"),
    ],
)
def test_a_name_that_is_no_vision_transformers_is_refused(name, why):
    with pytest.raises(DataError, match=why):
        backbones.find(name)


OUTSIDE = [b for b in backbones.BACKBONES.values() if b.url]


@pytest.mark.parametrize("backbone", OUTSIDE, ids=lambda b: b.name)
def test_an_entry_of_the_table_fits_its_architecture_and_its_tag(backbone):
    import timm

    with torch.device("meta"):
        network = timm.create_model(**backbone.architecture, num_classes=0)
    assert backbone.adapted_matrices == 2 * len(network.blocks)
    assert backbone.labels in ("none", "in21k", "in1k")
    assert backbone.sha256 is None or len(bytes.fromhex(backbone.sha256)) == 32
    if backbone.url.startswith("https://huggingface.co/timm/"):
        tag = backbone.url.split("/")[4]
        assert timm.get_pretrained_cfg(tag).num_classes == backbone.classes
        assert backbone.labels == (
            "in1k" if "in1k" in tag else "in21k" if "in21k" in tag else "none"
        )


def test_no_two_backbones_take_the_same_file():
    patterns = [pattern for backbone in OUTSIDE for pattern in backbone.patterns]
    assert len(set(patterns)) == len(patterns)
    for backbone in OUTSIDE:
        others = [b for b in OUTSIDE if b is not backbone]
        for file in backbone.patterns:
            assert not any(Path(file).match(p) for b in others for p in b.patterns)


def test_the_tables_say_what_labels_the_weights_have_seen(tmp_path):
    runs = [record(seed=seed) for seed in range(2)]
    for run in runs:
        run["provenance"]["weights_labels"] = "in1k"
    (panel,) = read_suite(write(tmp_path / "runs.jsonl", runs)).panels
    assert "labels seen by its weights: in1k, seeds" in setting_notes(panel)[1]
    (panel,) = read_suite(write(tmp_path / "old.jsonl", [record()])).panels
    assert "labels" not in setting_notes(panel)[1]


@pytest.mark.data
def test_the_vit_ti_of_the_data_directory_is_recognised(tmp_path):
    data = Path(os.environ.get("TREELORA_DATA") or "nowhere")
    if not list(data.glob("vit_tiny_patch16_224*.safetensors")):
        pytest.skip("TREELORA_DATA names no folder with ViT-Ti")
    manifest = backbones.prepare("vit-ti", tmp_path, data)
    assert manifest["labels"] == "in1k" and manifest["weights"].startswith(str(data))
    state = load_file(manifest["weights"])
    state["blocks.11.mlp.fc2.weight"] = state["blocks.11.mlp.fc2.weight"].flip(0)
    save_file(state, tmp_path / "vit_tiny_patch16_224.other.safetensors")
    with pytest.raises(DataError, match="is not vit-ti: its features"):
        backbones.prepare("vit-ti", tmp_path, tmp_path)
