"""Causal language models in a folder as `save_pretrained` writes it, wherever that is from."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmarks.backbones import model_folder
from benchmarks.backbones.base import Backbone
from benchmarks.backbones.tokenizer import Tokenizer
from benchmarks.common.errors import DataError, one_sentence
from benchmarks.common.options import at

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from benchmarks.backbones.language import LanguageModel

BITSANDBYTES = "bitsandbytes==0.50.2"  # quantises; the lock does not have it
_MOST_LAYERS = 1000  # no model has so many, and each is made before every plan


@dataclass(frozen=True, kw_only=True)
class CausalModel(Backbone):
    """A causal language model whose manifest names its folder."""

    modality: Literal["language"] = "language"
    quantisable = True

    def check(self, folder: Path) -> None:
        """DataError unless configuration and tokenizer make a model that can be adapted."""
        import torch

        from benchmarks.backbones import language

        config = model_folder.config(folder)
        if (found := layers(self.name, config)) != self.n_layers:
            raise DataError(
                f"{folder} is not {self.name}: it has {found} layers and should have "
                f"{self.n_layers}: copy the model as it was published, or name it hf-..."
            )
        with at(str(folder)), torch.device("meta"):
            language.build(config)
        self.tokenizer({"weights": folder})

    def load(self, manifest: dict, *shape, weights: str | None = None) -> LanguageModel:
        import torch
        from transformers import AutoModelForCausalLM, GenerationConfig

        from benchmarks.backbones import language

        folder = Path(manifest["weights"])
        nf4 = {} if weights != "nf4" else {"quantization_config": language.nf4()}
        failed = one_sentence(f"the model in {folder} cannot be loaded", "copy it anew")
        with failed, model_folder.weights_alone(folder) as view:
            network, report = AutoModelForCausalLM.from_pretrained(
                view,
                config=_configuration(folder),
                dtype=torch.bfloat16 if nf4 else getattr(torch, weights or "float32"),
                **nf4,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                generation_config=GenerationConfig(),
                output_loading_info=True,
            )
        if lacking := [*report["missing_keys"], *report["mismatched_keys"]]:
            some = ", ".join(sorted(map(str, lacking))[:3])
            raise DataError(f"the weights in {folder} lack {some}: copy the model anew")
        own = self.tokenizer(manifest).end
        return language.LanguageModel(network, model_folder.ends(folder, own))

    def tokenizer(self, manifest: dict) -> Tokenizer:
        """The model's own; DataError if it cannot be used, or has ids beyond its vocabulary."""
        folder = Path(manifest["weights"])
        config = _configuration(folder)
        with one_sentence(f"the tokenizer in {folder} cannot be used", "copy the model anew"):
            found = Tokenizer.from_folder(folder, config)
        # A folder that holds less than a whole tokenizer may load as an empty one.
        text = "The cat sat on the mat: 12 + 3 = 15."
        if found.decode(found.encode(text)).strip() != text:
            raise DataError(
                f"the tokenizer in {folder} does not give a plain sentence back: copy "
                "tokenizer.json or tokenizer.model, and tokenizer_config.json"
            )
        return found


def require_bitsandbytes() -> None:
    """DataError unless the package that quantises weights is installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise DataError(
            "weights: nf4 needs the package bitsandbytes, which is not installed: install it with "
            f"`.venv/bin/python -m pip install --no-deps {BITSANDBYTES}`, or set weights: bfloat16"
        )


def _configuration(folder: Path) -> PreTrainedConfig:
    from benchmarks.backbones import language

    return language.configuration(model_folder.read_json(folder / "config.json"))


def layers(name: str, config: dict) -> int:
    """Its number of layers; DataError if its configuration says none that can be."""
    found = config.get("num_hidden_layers")
    if type(found) is not int or not 1 <= found <= _MOST_LAYERS:
        raise DataError(
            f"config.json of {name} should say num_hidden_layers, from 1 to {_MOST_LAYERS}, but "
            f"says {str(found)[:40]}: name a causal language model"
        )
    return found
