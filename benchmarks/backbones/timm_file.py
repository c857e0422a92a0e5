"""Checkpoints of timm's vision transformers: a file in the data directory, or else downloaded.

A trunk is known by its classifier (how many classes it was pre-trained on), by the shapes of its
tensors, by its norms (a random initialisation has none trained) and by its features on fixed
images. All are looked at once, before any training.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from analysis.text import suggest
from benchmarks.backbones.base import DOWNLOADS, OWN, Backbone
from benchmarks.common.data_dir import DATA_DIR_VARIABLE
from benchmarks.common.digests import sha256_of
from benchmarks.common.download import fetch
from benchmarks.common.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIX = "timm-"  # begins the name of a user's own checkpoint
SUFFIXES = (".safetensors", ".fp16.safetensors", ".pth", ".pth.tar")
N_VALUES = 8
# Of the largest value. Rounding ViT-Ti's weights to bfloat16 moves its features by 0.6 %, noise of
# 0.001 on all of them by 6 %, another normalisation of the pixels by 27 %.
TOLERANCE = 0.02


REMEDY = "take the file as it was published; one of your own is named timm-..."


@dataclass(frozen=True, kw_only=True)
class TimmFile(Backbone):
    """A plain vision transformer and the file of its weights.

    What is pinned: `url` names a revision where the host has revisions, and `sha256` the content
    where it is known. An unknown sha256 is None; then the first download is trusted, recorded, and
    required ever after. A file in the data directory is pinned by its own digest, in the key of
    every run.

    Attributes:
        file: name without suffix of the file in the data directory, as its publisher calls it.
        also: another name under which it is published.
        url: where the weights are otherwise downloaded from; None if they must be there.
        sha256: hex digest of what `url` gives.
        entry, prefix: where a pickled checkpoint keeps the network; see `checkpoints.read`.
        classes: outputs of the file's classifier, 0 for a file without; None is not checked.
        features: on fixed images, the first values; None where nobody has recorded them. The
            manifest of the first preparation holds them.
    """

    modality: Literal["vision"] = "vision"
    file: str
    also: str | None = None
    url: str | None = None
    sha256: str | None = None
    entry: str | None = None
    prefix: str = ""
    classes: int | None = None
    features: list[float] | None = None

    @classmethod
    @functools.cache
    def named(cls, name: str) -> TimmFile:
        """A user's checkpoint of any plain vision transformer of timm, named by its file.

        `timm-vit_small_patch16_224.mine` is `vit_small_patch16_224.mine.safetensors` (or .pth,
        bare) in the data directory: timm's name of the architecture and, behind a dot, what the
        user likes. So two files of one architecture are two backbones.
        """
        import timm
        import torch

        file = name.removeprefix(PREFIX)
        model = file.partition(".")[0]
        if not re.fullmatch(r"[a-z0-9_]+([.][a-z0-9_.-]+)?", file) or not timm.is_model(model):
            raise DataError(
                f"{name!r} should be {PREFIX}, timm's name of an architecture and optionally a dot "
                f"and a name of your own in lower case: {suggest(model, timm.list_models())}"
            )
        with torch.device("meta"):
            network = timm.create_model(model, num_classes=0)
        plain = (
            isinstance(network, timm.models.VisionTransformer)
            and network.global_pool == "token"
            and all(hasattr(getattr(block, "attn", None), "qkv") for block in network.blocks)
        )
        if not plain:
            raise DataError(
                f"{model} is no plain vision transformer with a class token, and only those can be "
                "adapted: choose another architecture"
            )
        return cls(
            name=name,
            architecture={"model_name": model, "depth": len(network.blocks)},
            file=file,
            pretraining=OWN,
        )

    @property
    def pinned(self) -> str:
        """How the published file is pinned, in words."""
        if self.sha256:
            return "sha256"
        first = "sha256 of the first download"
        return f"revision, {first}" if "/resolve/" in self.url else first

    def fingerprint(self, data_dir: Path | None) -> str:
        """The file's content; without one the pinned address, before its download and after."""
        local = self._local(data_dir)
        if local:
            return sha256_of(local)
        if self.url is None:
            raise DataError(
                f"the weights of {self.name} are missing: put {self.file}.safetensors or "
                f"{self.file}.pth into the folder that {DATA_DIR_VARIABLE} names"
            )
        return hashlib.sha256(self.url.encode()).hexdigest()

    def _local(self, data_dir: Path | None) -> Path | None:
        """The user's own file; a download does not count, so that fetching it changes no digest."""
        stems = filter(None, (self.file, self.also) if data_dir else ())
        found = (data_dir / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES)
        return next((file for file in found if file.is_file()), None)

    def find_weights(self, out: Path, data_dir: Path | None) -> dict:
        """A pickle is kept in `out` as safetensors, the trunk alone, so that runs never open it."""
        from benchmarks.backbones import checkpoints

        source = self._local(data_dir)
        if source is None:
            name = self.file + "".join(Path(self.url).suffixes)
            source = DOWNLOADS / name
            fetch(self.url, self.sha256, source)
        model = self.build()
        state = checkpoints.read(source, self.entry, self.prefix)
        checkpoints.check_shapes(state, model.network, source)
        checkpoints.fill(model, state, source)
        self._check_origin(state, source)
        found = {"weights_sha256": sha256_of(source), "features": self._features(model, source)}
        if self.prefix or source.suffix != ".safetensors":
            source = out / "weights.safetensors"
            checkpoints.save_trunk(state, source)
        return {"weights": str(source)} | found

    def _check_origin(self, state: Mapping[str, Tensor], source: Path) -> None:
        """Refuse a trunk of another pre-training, or of none.

        Its classifier tells on how many classes it was tuned; where that is missing only known
        features can tell. A scale of a normalisation layer is 1 until it is trained.
        """
        found = len(state["head.weight"]) if "head.weight" in state else 0
        told = self.classes is None or (found == 0 and self.features is not None)
        if not told and found != self.classes:
            raise DataError(
                f"{source} is not {self.name}: its classifier has {found or 'no'} classes and "
                f"should have {self.classes or 'none'}; the trunk may have seen other labels: "
                f"{REMEDY}"
            )
        scales = [v for k, v in state.items() if "norm" in k and k.endswith("weight")]
        if all((scale.float() - 1).abs().max() < 1e-3 for scale in scales):
            raise DataError(
                f"{source} holds a random initialisation, as no normalisation is trained: {REMEDY}"
            )

    def _features(self, model: nn.Module, source: Path) -> list[float]:
        """The first values of the first fixed image; refused if no features or not its own."""
        from benchmarks.backbones import checkpoints

        found = checkpoints.features(model)
        if not found.isfinite().all():
            raise DataError(f"{source} gives features that are not finite: it is damaged")
        spread = (found - found.mean(dim=0)).norm() / found.norm().clamp_min(1e-12)
        if spread < 1e-3:
            raise DataError(f"{source} gives the same features for different images: it is damaged")
        values = [round(value, 4) for value in found[0, :N_VALUES].tolist()]
        if self.features is not None:
            most = TOLERANCE * max(map(abs, self.features))
            if any(abs(a - b) > most for a, b in zip(values, self.features, strict=True)):
                raise DataError(
                    f"{source} is not {self.name}: its features on the fixed images begin with "
                    f"{values} and should with {self.features}: {REMEDY}"
                )
        return values
