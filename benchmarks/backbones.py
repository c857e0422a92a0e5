"""Pre-trained backbones: where their weights come from, and the two model classes methods see.

`python -m benchmarks.backbones NAME --out FOLDER` fetches or finds a backbone's weights, checks
them and writes `manifest.json`.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.files import DataError, add_data_dir_option, sha256_of, write_json

if TYPE_CHECKING:
    from torch import nn

PRETRAINED = Path(__file__).parent / "pretrained"
REBUILT = Path("resources/pretrained")


@dataclass(frozen=True)
class Backbone:
    """A frozen network to start from.

    Attributes:
        modality: "vision" or "language".
        architecture: timm's name, or keyword arguments of transformers' LlamaConfig.
        adapted_matrices: number of its query and value projections.
        pretrain_stream: the embedded stream on whose held-out domain it is pre-trained here, or
            None for weights from outside.
        patterns: file names to look for in the data directory.
        url: where the weights are otherwise downloaded from.
        mean, std: pixel normalisation of the vision model, the same for all channels.
    """

    name: str
    modality: str
    architecture: dict
    adapted_matrices: int
    pretrain_stream: str | None = None
    patterns: tuple[str, ...] = ()
    url: str | None = None
    mean: float = 0.5
    std: float = 0.5


_VIT_TINY = "vit_tiny_patch16_224"
BACKBONES = {
    b.name: b
    for b in (
        Backbone(
            "micro-vit",
            "vision",
            {
                "model_name": "vit_tiny_patch16_224",
                "img_size": 32,
                "patch_size": 8,
                "embed_dim": 96,
                "depth": 4,
                "num_heads": 4,
            },
            adapted_matrices=8,
            pretrain_stream="glyphs",
        ),
        Backbone(
            "micro-llama",
            "language",
            {
                "vocab_size": 2048,
                "hidden_size": 128,
                "intermediate_size": 384,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 256,
                "tie_word_embeddings": True,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "pad_token_id": 0,
            },
            adapted_matrices=8,
            pretrain_stream="docs",
        ),
        Backbone(
            "vit-ti",
            "vision",
            {"model_name": _VIT_TINY},
            adapted_matrices=24,
            patterns=(f"{_VIT_TINY}*.safetensors",),
            url=f"https://huggingface.co/timm/{_VIT_TINY}.augreg_in21k_ft_in1k"
            "/resolve/20ea349/model.safetensors",
        ),
    )
}


def find(name: str) -> Backbone:
    """The backbone of that name; DataError with a near name otherwise."""
    if name not in BACKBONES:
        near = get_close_matches(name, BACKBONES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(BACKBONES)}"
        raise DataError(f"no backbone is called {name!r}: {hint}")
    return BACKBONES[name]


def fingerprint(name: str, data_dir: Path | None) -> str:
    """A digest that names the weights: their recipe if pre-trained here, else the file's content.

    Without a file in the data directory it names the pinned address, before the download and after.
    """
    backbone = find(name)
    if backbone.pretrain_stream:
        from benchmarks.pretrain import recipe_digest

        return recipe_digest(backbone)
    local = _local_file(backbone, data_dir)
    if local:
        return sha256_of(local)
    return hashlib.sha256(backbone.url.encode()).hexdigest()


def _local_file(backbone: Backbone, data_dir: Path | None) -> Path | None:
    """The user's own file; a download does not count, so that fetching it changes no digest."""
    for pattern in backbone.patterns if data_dir else ():
        for found in sorted(data_dir.glob(pattern)):
            return found
    return None


def prepare(name: str, out: Path, data_dir: Path | None) -> dict:
    """Find or download the weights, check that they fit, and return the manifest."""
    backbone = find(name)
    digest = fingerprint(name, data_dir)
    if backbone.pretrain_stream:
        weights = pretrained(name)
        if not weights.exists():
            raise DataError(f"{weights} is missing: make it with `make pretrain`")
    else:
        weights = _local_file(backbone, data_dir)
        if weights is None:
            from benchmarks.download import fetch

            weights = Path("resources/downloads") / f"{_VIT_TINY}.safetensors"
            fetch(backbone.url, None, weights)
    manifest = {
        "name": name,
        "modality": backbone.modality,
        "fingerprint": digest,
        "weights": str(weights),
        "weights_sha256": sha256_of(weights),
    }
    load(manifest, n_classes=1, image_size=None)
    return manifest


def pretrained(name: str) -> Path:
    """The weights of a backbone pre-trained here, its tokenizer lying beside them.

    These are the committed ones if the present recipe made them, else those of the workflow's rule.
    """
    from safetensors import SafetensorError, safe_open

    committed = PRETRAINED / f"{name}.safetensors"
    try:
        with safe_open(committed, "np") as file:
            if file.metadata()["recipe"] == fingerprint(name, None):
                return Path(os.path.relpath(committed))
    except (OSError, SafetensorError):
        pass  # missing or damaged: as good as of another recipe
    return REBUILT / committed.name


def load(manifest: dict, n_classes: int, image_size: int | None) -> nn.Module:
    """Build a backbone and load its weights.

    Args:
        manifest: as `prepare` returned it.
        n_classes: outputs of the new classifier on vision.
        image_size: pixels that vision inputs are resized to; None for the model's own.

    Raises:
        DataError: the file is truncated, or its keys or shapes are not the architecture's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    backbone = find(manifest["name"])
    try:
        state = load_file(manifest["weights"])
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"the weight file {manifest['weights']} cannot be read ({error}): "
            f"replace or delete it and run again"
        ) from error
    state = {key: value.float() for key, value in state.items()}
    build = build_vision if backbone.modality == "vision" else build_language
    model = build(backbone, n_classes, image_size)
    load_weights(model, state, manifest["weights"])
    return model


def load_weights(model: nn.Module, state: dict, source: str) -> None:
    """Fill a backbone's network, refusing a checkpoint of another architecture."""
    state = {key: value for key, value in state.items() if not key.startswith("head.")}
    try:
        missing, unexpected = model.network.load_state_dict(model.fitted(state), strict=False)
    except RuntimeError as error:
        raise DataError(
            f"the weights in {source} do not fit {type(model.network).__name__}: "
            f"{str(error).splitlines()[1].strip()}"
        ) from error
    missing = [key for key in missing if key not in model.derived]
    if missing or unexpected:
        raise DataError(
            f"the weights in {source} are another architecture's: "
            f"missing {missing[:3] or 'nothing'}, unexpected {unexpected[:3] or 'nothing'}"
        )


def build_vision(backbone: Backbone, n_classes: int, image_size: int | None = None) -> nn.Module:
    """A vision transformer of timm with a new classifier."""
    import timm

    from benchmarks.models import VisionModel

    options = dict(backbone.architecture)
    if image_size is not None:
        options["img_size"] = image_size
    network = timm.create_model(**options, num_classes=0)
    return VisionModel(network, n_classes, backbone.mean, backbone.std)


def build_language(backbone: Backbone, n_classes: int = 0, image_size: None = None) -> nn.Module:
    """A causal language model of transformers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from benchmarks.models import LanguageModel

    return LanguageModel(LlamaForCausalLM(LlamaConfig(**backbone.architecture)))


@functools.cache
def tokenizer(name: str):
    """The tokenizer of a language backbone."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(pretrained(name).with_name(f"{name}.tokenizer.json")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="one of " + ", ".join(BACKBONES))
    parser.add_argument("--out", type=Path, required=True, help="folder of the manifest")
    add_data_dir_option(parser)
    options = parser.parse_args()
    try:
        manifest = prepare(options.name, options.out, options.data_dir)
    except DataError as error:
        raise SystemExit(str(error)) from error
    write_json(options.out / "manifest.json", manifest)
    print(json.dumps(manifest, indent=1))


if __name__ == "__main__":
    main()
