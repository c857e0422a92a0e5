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
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.backbones import causal_lms
from benchmarks.common.files import (
    DATA_DIR_VARIABLE,
    DataError,
    add_data_dir_option,
    sha256_of,
    write_json,
)

if TYPE_CHECKING:
    from torch import nn

PRETRAINED = Path(__file__).parent / "pretrained"
REBUILT = Path("resources/pretrained")
# Pixel normalisations (mean, std), for all channels or for each.
NORMALISATIONS = {
    "unit": (0.0, 1.0),
    "half": (0.5, 0.5),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
OWN = "timm-"  # begins the name of a user's own checkpoint


@dataclass(frozen=True)
class Backbone:
    """A frozen network to start from.

    What is pinned: `url` names a revision where the host has revisions, and `sha256` the content
    where it is known. An unknown sha256 is None; then the first download is trusted, recorded, and
    required ever after. A file in the data directory is pinned by its own digest, in the key of
    every run.

    Attributes:
        modality: "vision" or "language".
        architecture: timm's name; keyword arguments of transformers' LlamaConfig; or of a causal
            language model its configuration, as such or as the `file` of `architectures/`.
        adapted_matrices: number of its query and value projections.
        pretrain_stream: the stream on which it is pre-trained here, an embedded one's held-out
            domain or the training prompts of real tasks; None for weights from outside.
        patterns: file names to look for in the data directory.
        url: where the weights are otherwise downloaded from; None if they must be there.
        sha256: hex digest of what `url` gives.
        entry, prefix: where a pickled checkpoint keeps the network; see `checkpoints.read`.
        classes: outputs of the file's classifier, 0 for a file without; None is not checked.
        features: on fixed images, see `checkpoints.check_features`; None where nobody has
            recorded them. The manifest of the first preparation holds them.
        pretraining: by what method on which images.
        labels: what labels the weights have seen: "none", "in21k", "in1k" (mostly after in21k),
            "own" (those of `pretrain_stream`) or "unknown". ImageNet-R's classes are ImageNet-1k's.
        normalisation: of pixels, a name of `NORMALISATIONS`. "unit", which leaves [0, 1] as it is,
            is the convention of L2P and its successors whatever the trunk was pre-trained with
            ("half" for orig and augreg, "imagenet" for iBOT, DINO and MoCo v3); it is the default
            so that trunks compare, and suites may name another.
        repo, revision, gated: of a causal language model from outside: its repository on the hub,
            the commit, and whether its licence must be asked for; see `causal_lms`.
    """

    name: str
    modality: str
    architecture: dict
    adapted_matrices: int
    pretrain_stream: str | None = None
    patterns: tuple[str, ...] = ()
    url: str | None = None
    sha256: str | None = None
    entry: str | None = None
    prefix: str = ""
    classes: int | None = None
    features: tuple[float, ...] | None = None
    pretraining: str = "here"
    labels: str = "own"
    normalisation: str = "half"
    repo: str | None = None
    revision: str | None = None
    gated: bool = False

    @property
    def pinned(self) -> str:
        """How the published file is pinned, in words."""
        if self.repo:
            return "revision"
        if self.sha256:
            return "sha256"
        first = "sha256 of the first download"
        return f"revision, {first}" if "/resolve/" in self.url else first


def _vit_b16(name: str, file: str, url: str, **facts) -> Backbone:
    """ViT-B/16 at 224 px; `file` is the upstream's name for the checkpoint, without its suffix."""
    suffixes = (".safetensors", ".fp16.safetensors", ".pth", ".pth.tar")
    return Backbone(
        name,
        "vision",
        {"model_name": "vit_base_patch16_224"},
        adapted_matrices=24,
        patterns=tuple(file + suffix for suffix in suffixes),
        url=url,
        normalisation="unit",
        **facts,
    )


def _timm_b16(name: str, tag: str, revision: str, **facts) -> Backbone:
    """timm's copy on its hub. The tag matters: the bare name is a trunk tuned on ImageNet-1k."""
    file = f"vit_base_patch16_224.{tag}"
    url = f"https://huggingface.co/timm/{file}/resolve/{revision}/model.safetensors"
    return _vit_b16(name, file, url, **facts)


def _causal_lm(
    name: str, repo: str, revision: str, file: str, layers: int, gated: bool
) -> Backbone:
    """An instruction-tuned language model of the paper."""
    return Backbone(
        name,
        "language",
        {"file": file},
        adapted_matrices=2 * layers,
        repo=repo,
        revision=revision,
        gated=gated,
        pretraining="instruction-tuned, by its publisher",
        labels="unknown",
    )


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
            "micro-llama-trace",
            "language",
            {
                "vocab_size": 4096,
                "hidden_size": 128,
                "intermediate_size": 384,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 512,
                "tie_word_embeddings": True,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "pad_token_id": 0,
            },
            adapted_matrices=8,
            pretrain_stream="trace",
            pretraining="here, on the training prompts of the stream itself",
        ),
        Backbone(
            "vit-ti",
            "vision",
            {"model_name": "vit_tiny_patch16_224"},
            adapted_matrices=24,
            patterns=("vit_tiny_patch16_224*.safetensors",),
            url="https://huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
            "/resolve/20ea349/model.safetensors",  # part of every key without a local file
            sha256="fecf81b492bd13ee7a5297cb74d1d417aac8bf7e1b7d96aed89c4691984587ed",
            classes=1000,
            features=(5.793, -7.2574, 1.0816, 6.2301, 2.0243, 1.7967, 0.4003, 1.6433),
            pretraining="augreg on ImageNet-21k, tuned on ImageNet-1k",
            labels="in1k",
            normalisation="half",  # timm's own
        ),
        # The paper's: the teacher of the full checkpoint, as HiDe and with it the paper loads it.
        _vit_b16(
            "vit-b16-ibot21k",
            "vitb_16_pt22k",
            "https://lf3-nlp-opensource.bytetos.com/obj/nlp-opensource/archive/2022/ibot"
            "/vitb_16_pt22k/checkpoint.pth",
            entry="teacher",
            prefix="backbone.",
            classes=0,
            pretraining="iBOT on ImageNet-21k",
            labels="none",
        ),
        # Google's imagenet21k/ViT-B_16.npz, which L2P, DualPrompt and HiDePrompt start from.
        _timm_b16(
            "vit-b16-sup21k",
            "orig_in21k",
            "677f7d814cf0d89b7e65b1ea49277ed508a62363",
            classes=0,
            pretraining="supervised on ImageNet-21k",
            labels="in21k",
        ),
        # InfLoRA's, and RanPAC's on CIFAR-100.
        _timm_b16(
            "vit-b16-augreg-in21k",
            "augreg_in21k",
            "07eea34",
            classes=21843,
            pretraining="augreg on ImageNet-21k",
            labels="in21k",
        ),
        # That of HiDe-Prompt's LoRA network and of PILOT's L2P and DualPrompt.
        _timm_b16(
            "vit-b16-augreg-in21k-in1k",
            "augreg_in21k_ft_in1k",
            "b5b38b8f7dd93ce67d12e356a8771556b95c8cf9",
            sha256="c401d219603ac3e20b6373c7b198c78d3a733f80b755d148bda3bc320ae69800",
            classes=1000,
            pretraining="augreg on ImageNet-21k, tuned on ImageNet-1k",
            labels="in1k",
        ),
        # SD-LoRA's, and what timm's bare name stands for since 0.9.
        _timm_b16(
            "vit-b16-augreg2-in21k-in1k",
            "augreg2_in21k_ft_in1k",
            "063c6c38a5d8510b2e57df480445e94b231dad2c",
            sha256="32aa17d6e17b43500f531d5f6dc9bc93e56ed8841b8a75682e1bb295d722405b",
            classes=1000,
            pretraining="augreg on ImageNet-21k, tuned anew on ImageNet-1k",
            labels="in1k",
        ),
        _timm_b16(
            "vit-b16-dino",
            "dino",
            "9578d3895b3c81965d4fb6de0ffb14491b6fc8f9",
            sha256="93181583427d6de3e18ab0e6ee4df35736cfc51a3c1bf9ae0e9b53b1316598dc",
            classes=0,
            pretraining="DINO on ImageNet-1k",
            labels="none",
        ),
        # The base encoder, which its authors evaluate, not the momentum encoder beside it.
        _vit_b16(
            "vit-b16-mocov3",
            "vit-b-300ep",
            "https://dl.fbaipublicfiles.com/moco-v3/vit-b-300ep/vit-b-300ep.pth.tar",
            entry="state_dict",
            prefix="base_encoder.",
            classes=0,
            pretraining="MoCo v3 on ImageNet-1k, 300 epochs",
            labels="none",
        ),
        _causal_lm(
            "mistral-7b-instruct-v0.3",
            "mistralai/Mistral-7B-Instruct-v0.3",
            "e0bc86c23ce5aae1db576c8cca6f06f1f73af2db",
            *("mistral-7b-v0.3", 32, True),
        ),
        _causal_lm(
            "llama-2-7b-chat",
            "meta-llama/Llama-2-7b-chat-hf",
            "f5db02db724555f92da89c216ac04704f23d4590",
            *("llama-2-7b", 32, True),
        ),
        _causal_lm(
            "llama-2-13b-chat",
            "meta-llama/Llama-2-13b-chat-hf",
            "a2cb7a712bb6e5e736ca7f8cd98167f81a0b5bd8",
            *("llama-2-13b", 40, True),
        ),
        _causal_lm(
            "gemma-2b-it",
            "google/gemma-2b-it",
            "96988410cbdaeb8d5093d1ebdc5a8fb563e02bad",
            *("gemma-2b", 18, True),
        ),
        _causal_lm(
            "llama-3.2-1b-instruct",
            "meta-llama/Llama-3.2-1B-Instruct",
            "9213176726f574b556790deb65791e0c5aa438b6",
            *("llama-3.2-1b", 16, True),
        ),
        # Small and open, for a first try.
        Backbone(
            "smollm2-135m-instruct",
            "language",
            {
                "model_type": "llama",
                "num_hidden_layers": 30,
                "hidden_size": 576,
                "intermediate_size": 1536,
                "num_attention_heads": 9,
                "num_key_value_heads": 3,
                "vocab_size": 49152,
                "tie_word_embeddings": True,
            },
            adapted_matrices=60,
            repo="HuggingFaceTB/SmolLM2-135M-Instruct",
            revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
            pretraining="instruction-tuned, by its publisher",
            labels="unknown",
        ),
    )
}


def find(name: str) -> Backbone:
    """The backbone of that name; DataError with a near name otherwise."""
    if name.startswith(OWN):
        return _own(name)
    if name.startswith(causal_lms.OWN):
        return causal_lms.own(name)
    if name not in BACKBONES:
        near = get_close_matches(name, BACKBONES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(BACKBONES)}"
        raise DataError(f"no backbone is called {name!r}: {hint}")
    return BACKBONES[name]


@functools.cache
def _own(name: str) -> Backbone:
    """A user's checkpoint of any plain vision transformer of timm, named by its file.

    `timm-vit_small_patch16_224.mine` is `vit_small_patch16_224.mine.safetensors` (or .pth, bare) in
    the data directory: timm's name of the architecture and, behind a dot, what the user likes. So
    two files of one architecture are two backbones.
    """
    import timm
    import torch

    file = name.removeprefix(OWN)
    architecture = file.partition(".")[0]
    if not re.fullmatch(r"[a-z0-9_]+([.][a-z0-9_.-]+)?", file) or not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), n=1)
        hint = f"did you mean {OWN}{near[0]}?" if near else "see timm.list_models()"
        raise DataError(
            f"{name!r} should be {OWN}, timm's name of an architecture and optionally a dot and a "
            f"name of your own in lower case: {hint}"
        )
    with torch.device("meta"):
        network = timm.create_model(architecture, num_classes=0)
    plain = isinstance(network, timm.models.VisionTransformer) and network.global_pool == "token"
    if not plain or not all(hasattr(block.attn, "qkv") for block in network.blocks):
        raise DataError(
            f"{architecture} is no plain vision transformer with a class token, and only those "
            f"can be adapted: choose another architecture"
        )
    return Backbone(
        name,
        "vision",
        {"model_name": architecture},
        adapted_matrices=2 * len(network.blocks),
        patterns=(f"{file}.safetensors", f"{file}.pth"),
        pretraining="a user's own",
        labels="unknown",
        normalisation="unit",
    )


def fingerprint(name: str, data_dir: Path | None) -> str:
    """A digest that names the weights: their recipe if pre-trained here, else the file's content.

    Without a file in the data directory it names the pinned address, before the download and after.
    """
    backbone = find(name)
    if backbone.pretrain_stream:
        from benchmarks.backbones.pretrain import recipe_digest

        return recipe_digest(backbone)
    if backbone.repo:
        return causal_lms.fingerprint(backbone, data_dir)
    local = _local_file(backbone, data_dir)
    if local:
        return sha256_of(local)
    if backbone.url is None:
        raise DataError(
            f"the weights of {name} are missing: put {' or '.join(backbone.patterns)} into the "
            f"folder that {DATA_DIR_VARIABLE} names"
        )
    return hashlib.sha256(backbone.url.encode()).hexdigest()


def _local_file(backbone: Backbone, data_dir: Path | None) -> Path | None:
    """The user's own file; a download does not count, so that fetching it changes no digest."""
    for pattern in backbone.patterns if data_dir else ():
        for found in sorted(data_dir.glob(pattern)):
            return found
    return None


def prepare(name: str, out: Path, data_dir: Path | None) -> dict:
    """Find or download the weights, check that they are the backbone's, and return the manifest.

    A pickle is kept in `out` as safetensors, the trunk alone, so that runs never open it.
    """
    backbone = find(name)
    digest = fingerprint(name, data_dir)
    manifest = {
        "name": name,
        "modality": backbone.modality,
        "fingerprint": digest,
        "labels": backbone.labels,
    }
    if backbone.repo:
        return manifest | causal_lms.prepare(backbone, data_dir)
    if backbone.pretrain_stream:
        source = pretrained(name)
        if not source.exists():
            raise DataError(f"{source} is missing: make it with `make pretrain`")
    else:
        source = _local_file(backbone, data_dir)
        if source is None:
            from benchmarks.common.download import fetch

            file = backbone.patterns[0].removesuffix(".safetensors").replace("*", "")
            suffix = "".join(Path(backbone.url).suffixes)
            source = Path("resources/downloads") / f"{file}{suffix}"
            fetch(backbone.url, backbone.sha256, source)
    manifest |= {"weights": str(source), "weights_sha256": sha256_of(source)}
    if backbone.modality == "language":
        load(manifest, n_classes=1, image_size=None)
        return manifest
    from benchmarks.backbones import checkpoints

    model = build_vision(backbone, n_classes=1)
    state = checkpoints.read(source, backbone.entry, backbone.prefix)
    checkpoints.check_shapes(state, model.network, source)
    load_weights(model, state, str(source))
    checkpoints.check_origin(state, backbone, source)
    manifest["features"] = checkpoints.check_features(model, backbone, source)
    if backbone.prefix or source.suffix != ".safetensors":
        manifest["weights"] = str(out / "weights.safetensors")
        checkpoints.save_trunk(state, Path(manifest["weights"]))
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


def load(
    manifest: dict,
    n_classes: int,
    image_size: int | None,
    normalisation: str | None = None,
    weights: str | None = None,
) -> nn.Module:
    """Build a backbone and load its weights.

    Args:
        manifest: as `prepare` returned it.
        n_classes: outputs of the new classifier on vision.
        image_size: pixels that vision inputs are resized to; None for the model's own.
        normalisation: of pixels, a name of `NORMALISATIONS`; None for the backbone's.
        weights: precision of a language model's weights, None for float32.

    Raises:
        DataError: the file is truncated, or its keys or shapes are not the architecture's.
    """
    import torch

    from benchmarks.backbones import checkpoints

    backbone = find(manifest["name"])
    if backbone.repo:
        return causal_lms.load(Path(manifest["weights"]), weights)
    if backbone.modality == "vision":
        model = build_vision(backbone, n_classes, image_size, normalisation)
    else:
        model = build_language(backbone)
    load_weights(model, checkpoints.read(Path(manifest["weights"])), manifest["weights"])
    return model.to(getattr(torch, weights)) if weights else model


def load_weights(model: nn.Module, state: dict, source: str) -> None:
    """Fill a backbone's network, refusing a checkpoint of another architecture."""
    state = {k: value.float() for k, value in state.items() if not k.startswith("head.")}
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


def build_vision(
    backbone: Backbone,
    n_classes: int,
    image_size: int | None = None,
    normalisation: str | None = None,
) -> nn.Module:
    """A vision transformer of timm with a new classifier."""
    import timm

    from benchmarks.backbones.models import VisionModel

    options = dict(backbone.architecture)
    if image_size is not None:
        options["img_size"] = image_size
    network = timm.create_model(**options, num_classes=0)
    mean, std = NORMALISATIONS[normalisation or backbone.normalisation]
    return VisionModel(network, n_classes, mean, std)


def build_language(backbone: Backbone, n_classes: int = 0, image_size: None = None) -> nn.Module:
    """A causal language model of transformers, one from outside without its weights."""
    if backbone.repo:
        from benchmarks.backbones.models import LanguageModel

        network = causal_lms.build(causal_lms.architecture(backbone))
        causal_lms.check(backbone.name, network)
        return LanguageModel(network)
    from transformers import LlamaConfig, LlamaForCausalLM

    from benchmarks.backbones.models import LanguageModel

    return LanguageModel(LlamaForCausalLM(LlamaConfig(**backbone.architecture)))


def tokenizer(manifest: dict):
    """The tokenizer of a language backbone, a `benchmarks.streams.common.encoding.Tokenizer`."""
    name = manifest["name"]
    if find(name).repo:
        return causal_lms.tokenizer(Path(manifest["weights"]))
    import tokenizers

    from benchmarks.streams.common.encoding import Tokenizer

    file = pretrained(name).with_name(f"{name}.tokenizer.json")
    return Tokenizer.of(tokenizers.Tokenizer.from_file(str(file)))


def overview() -> str:
    """docs/data.md's table of the backbones from outside."""
    rows = [["Name", "Pre-training", "Labels seen", "Pixels", "Source", "Pinned by"], 6 * [":---"]]
    rows += [
        [
            f"`{b.name}`",
            b.pretraining,
            b.labels,
            b.normalisation,
            f"[{b.url.split('/')[2]}]({b.url})",
            b.pinned,
        ]
        for b in BACKBONES.values()
        if b.url
    ]
    rows += [
        [
            f"`{b.name}`",
            b.pretraining,
            b.labels,
            "–",
            f"[huggingface.co](https://huggingface.co/{b.repo})",
            b.pinned,
        ]
        for b in BACKBONES.values()
        if b.repo
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


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
