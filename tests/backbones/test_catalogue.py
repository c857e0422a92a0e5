"""The catalogue: every entry fits its network, its file and its tag; other names are refused."""

from itertools import permutations
from pathlib import Path

import pytest

from benchmarks import backbones
from benchmarks.backbones import BACKBONES, GgufFile, HubModel, TimmFile
from benchmarks.common.errors import DataError
from benchmarks.common.options import parse

FILES = [b for b in BACKBONES.values() if isinstance(b, TimmFile)]
MODELS = [b for b in BACKBONES.values() if isinstance(b, HubModel)]
SHAPES = {str(b.architecture): b for b in BACKBONES.values()}.values()  # one of each


@pytest.mark.parametrize("backbone", SHAPES, ids=lambda b: b.name)
def test_the_number_of_adapted_matrices_is_the_networks(backbone):
    network = backbone.build(device="meta").split_qkv()
    names = [name for name, _ in network.named_modules()]
    adapted = [name for name in names if name.endswith(("q_proj", "v_proj"))]
    assert len(adapted) == backbone.adapted_matrices


@pytest.mark.parametrize("backbone", FILES, ids=lambda b: b.name)
def test_a_file_fits_its_tag(backbone):
    import timm

    assert backbone.labels in ("none", "in21k", "in1k")
    assert backbone.sha256 is None or len(bytes.fromhex(backbone.sha256)) == 32
    if backbone.url.startswith("https://huggingface.co/timm/"):
        tag = backbone.url.split("/")[4]
        assert timm.get_pretrained_cfg(tag).num_classes == backbone.classes
        assert backbone.labels == (
            "in1k" if "in1k" in tag else "in21k" if "in21k" in tag else "none"
        )


def test_no_two_backbones_take_the_same_file_and_models_are_pinned_to_a_commit():
    assert not [(a, b) for a, b in permutations(FILES, 2) if Path(a.file).match(b.file)]
    assert all(len(bytes.fromhex(model.revision)) == 20 for model in MODELS)
    for model in (b for b in BACKBONES.values() if isinstance(b, GgufFile)):
        assert all(len(bytes.fromhex(own)) == 32 for own in (model.sha256, model.url_sha256))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("vit-tj", "'vit-tj'.*'vit-ti'"),
        ("timm-vit_tiny_patch16_225", "'vit_tiny_patch16_224'"),
        ("timm-vit_tiny_patch16_224.../../up", "should be timm-"),
        ("timm-resnet18", "resnet18 is no plain vision transformer"),
        ("timm-vit_base_patch16_siglip_224", "is no plain vision transformer"),
        ("timm-vit_small_patch16_18x2_224", "is no plain vision transformer"),  # parallel blocks
        *((f"hf-{name}", "should be hf- and") for name in ("no/such", "..", "", "a b")),
        *((f"hf-{name}", "should be hf- and") for name in ("a--b@main", "é" * 150)),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused(name, why):
    with pytest.raises(DataError, match=why):
        backbones.find(name)


@pytest.mark.parametrize("wrong", [{"labels": "in22k"}, {"sha265": "0"}, {"classes": "ten"}])
def test_a_wrong_entry_is_refused(wrong):
    facts = {"name": "x", "architecture": {}, "file": "x", "pretraining": "of a test"}
    with pytest.raises(DataError, match=f"{next(iter(wrong))}"):
        parse(TimmFile, facts | wrong)


def test_inputs_fit_the_network():
    vision, language = backbones.find("vit-ti"), backbones.find("llama-2-7b-chat")
    vision.check_image_size(None)
    vision.check_image_size(32)
    backbones.find("micro-vit").check_image_size(40)
    with pytest.raises(DataError, match="multiple of 16.*vit-ti.*40"):
        vision.check_image_size(40)
    language.check_context(4096)
    language.check_context(5000, positions=8192)
    with pytest.raises(DataError, match="4097 tokens.*llama-2-7b-chat.*4096.*max_prompt_tokens"):
        language.check_context(4097)
