"""Backbones that are pre-trained here, on a stream's held-out domain or its training prompts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from benchmarks import streams
from benchmarks.backbones.base import Backbone, Labels
from benchmarks.backbones.tokenizer import Tokenizer
from benchmarks.common.digests import digest_of, sha256_of
from benchmarks.common.errors import DataError

COMMITTED = Path(__file__).parent / "pretrained"
REBUILT = Path("resources/pretrained")


@dataclass(frozen=True, kw_only=True)
class Embedded(Backbone):
    """Small enough to be made by anybody: `benchmarks.backbones.pretrain` follows the recipe.

    Attributes:
        pretrain_stream: the stream that it is pre-trained on.
        recipe: settings of the pre-training.
        held_out: every so manieth image or text is not trained on.
    """

    pretraining: str = "here"
    labels: Labels = "own"
    pretrain_stream: str
    recipe: dict
    held_out: int

    def fingerprint(self, data_dir: Path | None) -> str:
        """Digest of architecture, recipe and data: everything but the machine's rounding."""
        architecture = {k: v for k, v in self.architecture.items() if k != "model_type"}
        data = streams.of({"name": self.pretrain_stream}, data_dir).digest()
        return digest_of([architecture, self.recipe, data])

    @property
    def rebuilt(self) -> bool:
        """Whether the workflow makes the weights: none that the present recipe made are committed.

        Damaged ones are as good as of another recipe.
        """
        return not self._made(COMMITTED / f"{self.name}.safetensors")

    def _made(self, file: Path) -> bool:
        """Whether a file is whole and of the present recipe, so that its tensors fit."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "np") as opened:
                return (opened.metadata() or {}).get("recipe") == self.fingerprint(None)
        except (OSError, SafetensorError):
            return False

    @property
    def file(self) -> Path:
        """The weights, a tokenizer lying beside them."""
        folder = REBUILT if self.rebuilt else Path(os.path.relpath(COMMITTED))
        return folder / f"{self.name}.safetensors"

    def find_weights(self, out: Path, data_dir: Path | None) -> dict:
        file = self.file
        if not self._made(file):
            raise DataError(
                f"{file} is missing, damaged or of another recipe: make it with `make pretrain`"
            )
        return {"weights": str(file), "weights_sha256": sha256_of(file)}

    def tokenizer(self, manifest: dict) -> Tokenizer:
        """The one that was trained with a language model."""
        import tokenizers

        file = self.file.with_name(f"{self.name}.tokenizer.json")
        return Tokenizer.of(tokenizers.Tokenizer.from_file(str(file)))
