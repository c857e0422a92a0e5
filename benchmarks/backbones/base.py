"""What every backbone is, wherever its weights come from: a frozen network to start from."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from analysis.text import quoted, suggest
from benchmarks.common import bundled
from benchmarks.common.errors import DataError
from benchmarks.common.files import read_json

if TYPE_CHECKING:
    from torch import nn

# Pixel normalisations (mean, std), for all channels or for each.
NORMALISATIONS = {
    "unit": (0.0, 1.0),
    "half": (0.5, 0.5),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
DOWNLOADS = Path("resources/downloads")
PREPARED = Path("resources/backbones")
PROJECTIONS = ("q_proj", "k_proj", "v_proj")
OWN = "a user's own"  # pre-training of what a user names by a file, a folder or a commit
Labels = Literal["none", "in21k", "in1k", "own", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Backbone(ABC):
    """A network and where its weights come from.

    Attributes:
        modality: "vision" or "language".
        architecture: keyword arguments of timm's `create_model` with the `depth` among them, or on
            language those of a config.json that decide shapes.
        pretraining: by what method on which data, in words.
        labels: what labels the weights have seen: "none", "in21k", "in1k" (mostly after in21k),
            "own" (those of a stream here) or "unknown". ImageNet-R's classes are ImageNet-1k's.
        normalisation: of pixels, a name of `NORMALISATIONS`. "unit", which leaves [0, 1] as it is,
            is the convention of L2P and its successors whatever the trunk was pre-trained with
            ("half" for orig and augreg, "imagenet" for iBOT, DINO and MoCo v3); it is the default
            so that trunks compare, and suites may name another.
    """

    name: str
    architecture: dict
    modality: Literal["vision", "language"]
    pretraining: str
    labels: Labels = "unknown"
    normalisation: Literal[tuple(NORMALISATIONS)] = "unit"
    quantisable: ClassVar[bool] = False  # whether `load` takes the weights "nf4"

    @abstractmethod
    def fingerprint(self, data_dir: Path | None) -> str:
        """A digest that names the weights, without loading or downloading them.

        Raises:
            DataError: there are none, or they cannot be used.
        """

    @property
    def source(self) -> str:
        """Link to where the weights were published."""
        return f"[{self.url.split('/')[2]}]({self.url})"

    @abstractmethod
    def find_weights(self, out: Path, data_dir: Path | None) -> dict:
        """Find or download the weights and check them: `weights`, a path, and `weights_sha256`.

        What has to be written goes into the folder `out`.
        """

    @property
    def bundled(self) -> dict:
        """The manifest of what a bundle has brought of it; empty in any other checkout."""
        return bundled.manifest("backbones", self.name)

    @property
    def prepared(self) -> Path | None:
        """Its weights as they were prepared here; None if they are not, or lie there no more."""
        manifest = PREPARED / self.name / "manifest.json"
        weights = Path(read_json(manifest)["weights"]) if manifest.is_file() else None
        return weights if weights and weights.exists() else None

    def digest(self, data_dir: Path | None) -> str:
        """`fingerprint`, or that of the weights that a bundle has brought."""
        return self.bundled.get("fingerprint") or self.fingerprint(data_dir)

    def prepare(self, out: Path, data_dir: Path | None) -> dict:
        """The manifest of the weights, found or downloaded and checked to be the backbone's."""
        manifest = {
            "name": self.name,
            "modality": self.modality,
            "fingerprint": self.fingerprint(data_dir),
            "labels": self.labels,
        }
        return manifest | self.find_weights(out, data_dir)

    @property
    def n_layers(self) -> int:
        """Number of its transformer blocks."""
        return self.architecture["depth" if self.modality == "vision" else "num_hidden_layers"]

    @property
    def adapted_matrices(self) -> int:
        """Number of its query and value projections."""
        return 2 * self.n_layers

    @cached_property
    def _blocks(self) -> dict[str, int | None]:
        """For each module of the network by name the block that it is a matrix of, or None."""
        from torch import nn

        from baselines.common.lora import block_of

        network = self.build(device="meta").split_qkv()
        return {
            name: block_of(name) if isinstance(module, nn.Linear) else None
            for name, module in network.named_modules()
        }

    def check_targets(self, names: Sequence[str] | None) -> None:
        """DataError unless each block has one matrix of each name, as PEFT matches names.

        None stands for the projections of query, key and value, which all backbones of the
        catalogue have, and all vision transformers that are taken.
        """
        if names is None and (self.pretraining != OWN or self.modality == "vision"):
            return
        from baselines.common.lora import ends_with

        matrices = [name for name, block in self._blocks.items() if block is not None]
        there = dict.fromkeys(name.rpartition(".")[2] for name in matrices)
        if names is None:
            if missing := [name for name in PROJECTIONS if name not in there]:
                raise DataError(
                    f"{self.name} has no {missing[0]} in its attention, there are "
                    f"{', '.join(there)}: give a LoRA method target_modules among these, or choose "
                    "a model like Llama, Mistral, Gemma or Qwen"
                )
            return
        for asked in names:
            found = [name for name in self._blocks if ends_with(name, asked)]
            blocks = [self._blocks[name] for name in found]
            if [block for block in blocks if block is not None] != [*range(self.n_layers)]:
                raise DataError(
                    f"target_modules must name one matrix in each block of {self.name}, which "
                    f"{quoted(asked)} does not: {suggest(asked, there)}"
                )
            if None in blocks:
                raise DataError(
                    f"target_modules, {quoted(asked)}, also names {found[blocks.index(None)]} of "
                    f"{self.name}, which is no matrix of a block: write more of the name, as in "
                    "mlp.down_proj"
                )

    def check_image_size(self, size: int | None) -> None:
        """DataError unless an image is cut into whole patches: its border would be left out."""
        found = re.search(r"_patch(\d+)", self.architecture.get("model_name", ""))
        patch = self.architecture.get("patch_size", int(found[1]) if found else 1)
        if size is not None and size % patch:
            raise DataError(
                f"image_size must be a multiple of {patch}, the patch of {self.name}, but is {size}"
            )

    def check_context(self, tokens: int, positions: int | None = None) -> None:
        """DataError if prompts and answers are longer than what a language model was made for.

        Args:
            tokens: the longest prompt with its answer.
            positions: of the loaded network; those of the architecture, if it names them, before.
        """
        positions = positions or self.architecture.get("max_position_embeddings")
        if positions is not None and tokens > positions:
            raise DataError(
                f"prompts with their answers may have {tokens} tokens, but {self.name} has "
                f"positions for {positions}: lower max_prompt_tokens, max_answer_tokens or "
                "max_new_tokens"
            )

    def build(
        self,
        n_classes: int = 0,
        image_size: int | None = None,
        normalisation: str | None = None,
        weights: str = "float32",
        device: str = "cpu",
    ) -> nn.Module:
        """A `VisionModel` or `LanguageModel` with random weights, with none on the device "meta".

        Args:
            n_classes: outputs of the classifier on vision.
            image_size: pixels that vision inputs are resized to; None for the model's own.
            normalisation: of pixels, a name of `NORMALISATIONS`; None for the backbone's.
            weights: precision of a language model's weights.
            device: where it is made.
        """
        import torch

        if self.modality == "language":
            from benchmarks.backbones import language

            with torch.device(device):
                return language.LanguageModel(language.build(self.architecture, weights))
        from benchmarks.backbones import vision

        pixels = NORMALISATIONS[normalisation or self.normalisation]
        with torch.device(device):
            return vision.build(self.architecture, n_classes, image_size, *pixels)

    def load(self, manifest: dict, *shape, weights: str | None = None) -> nn.Module:
        """The network with the weights that `prepare` found; arguments as in `build`.

        Args:
            weights: also "nf4" where the backbone is `quantisable`, on a GPU.

        Raises:
            DataError: the file is truncated, or its keys or shapes are not the architecture's.
        """
        import torch

        from benchmarks.backbones import checkpoints

        model = self.build(*shape)
        file = Path(manifest["weights"])
        checkpoints.fill(model, checkpoints.read(file), file)
        return model.to(getattr(torch, weights)) if weights else model
