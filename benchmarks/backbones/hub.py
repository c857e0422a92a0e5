"""Causal language models of the hub, or of a folder in the data directory.

The paper's five have names (`catalogue.toml`). Any other is named by its folder,
`hf-Qwen2.5-0.5B`, or by its repository on the hub and a commit of it,
`hf-Qwen--Qwen2.5-0.5B@<40 hexadecimal digits>`.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from analysis.text import suggest
from benchmarks.backbones import model_folder
from benchmarks.backbones.base import DOWNLOADS, Backbone
from benchmarks.backbones.tokenizer import Tokenizer
from benchmarks.common.data_dir import DATA_DIR_VARIABLE, data_dir
from benchmarks.common.digests import digest_of, sha256_of
from benchmarks.common.errors import DataError, one_sentence
from benchmarks.common.options import at

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from benchmarks.backbones.language import LanguageModel

PREFIX = "hf-"  # begins the name of a model that is none of the paper's
_LONGEST_NAME = 200  # bytes; a file system's limit is 255
_MOST_LAYERS = 1000  # no model has so many, and each is made before every plan
_digests: dict[tuple, str] = {}  # of folders that were checked, by name and state of their files


@dataclass(frozen=True, kw_only=True)
class HubModel(Backbone):
    """A causal language model from outside.

    Attributes:
        repo: its repository on the hub.
        revision: the commit; None for a folder in the data directory.
        gated: whether its licence must be asked for.
    """

    modality: Literal["language"] = "language"
    pretraining: str = "instruction-tuned, by its publisher"
    repo: str
    revision: str | None = None
    gated: bool = False

    @classmethod
    def named(cls, name: str) -> HubModel:
        """The model that a name of the form above stands for.

        Raises:
            DataError: the name is neither a folder in the data directory nor a pinned repository,
                or the repository cannot be read.
        """
        found = re.fullmatch(rf"{PREFIX}(\w[\w.-]*?)(?:@([0-9a-f]{{40}}))?", name)
        if not found or len(name.encode()) > _LONGEST_NAME:
            raise DataError(
                f"{name[:_LONGEST_NAME]!r} should be {PREFIX} and the name of a folder in the data "
                f"directory (letters, digits, _, . and -), or {PREFIX}organisation--model@ and the "
                "40 digits of a commit on the hub"
            )
        model, revision = found.groups()
        backbone = cls(
            name=name,
            architecture={},
            repo=model.replace("--", "/"),
            revision=revision,
            pretraining="a user's own",
        )
        data = data_dir()
        if folder := backbone.folder(data):
            config = model_folder.config(folder)
        elif revision:
            config = model_folder.read_json(backbone._from_hub("config.json"))
            model_folder.refuse_quantised(name, config.get("quantization_config"))
        else:
            raise DataError(backbone._missing(data))
        _layers(name, config)
        return dataclasses.replace(backbone, architecture=config)

    def folder(self, data: Path | None) -> Path | None:
        """The user's own copy in the data directory, if there is one."""
        names = (self.repo.replace("/", "--"), self.repo.rpartition("/")[2])
        folders = [data / name for name in names] if data else []
        return next((folder for folder in folders if (folder / "config.json").exists()), None)

    def _missing(self, data: Path | None) -> str:
        """Why a name without a commit stands for nothing."""
        folder = data / self.repo.replace("/", "--") if data else None
        if folder and (folder / "adapter_config.json").exists():
            return (
                f"{folder} holds an adapter without its model: merge it into the model "
                "(PEFT's merge_and_unload) and save the whole there"
            )
        if folder and folder.is_dir():
            return f"{folder} holds no config.json: copy the whole model there"
        there = [PREFIX + path.parent.name for path in data.glob("*/config.json")] if data else []
        return (
            f"{self.name} is no folder of the data directory and names no commit: put it into the "
            f"folder that {DATA_DIR_VARIABLE} names, or add @ and the 40 digits of a commit"
            f"{f'; {suggest(self.name, there)}' if there else ''}"
        )

    @property
    def source(self) -> str:
        """Link to the repository."""
        return f"[huggingface.co](https://huggingface.co/{self.repo})"

    pinned = "revision"

    def fingerprint(self, data_dir: Path | None) -> str:
        """Repository and commit, or the content of a folder, checked once for each state of it."""
        folder = self.folder(data_dir)
        if folder is None:
            return digest_of([model_folder.READING, self.repo, self.revision])
        stats = [(path.name, path.stat()) for path in model_folder.files(folder)]
        state = tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
        state = self.name, self.n_layers, folder, state
        if state not in _digests:
            self._check(folder)
            _digests[state] = model_folder.digest(folder)
        return _digests[state]

    def _check(self, folder: Path) -> None:
        """DataError unless configuration and tokenizer make a model that can be adapted."""
        import torch

        from benchmarks.backbones import language

        config = model_folder.config(folder)
        if (found := _layers(self.name, config)) != self.n_layers:
            raise DataError(
                f"{folder} is not {self.name}: it has {found} layers and should have "
                f"{self.n_layers}"
            )
        with at(str(folder)), torch.device("meta"):
            language.build(config)
        self.tokenizer({"weights": folder})

    def find_weights(self, out: Path, data_dir: Path | None) -> dict:
        """The folder, as its fingerprint checked it, or a download."""
        folder = self.folder(data_dir) or self._download()
        content = {path.name: sha256_of(path) for path in model_folder.weight_files(folder)}
        return {"weights": str(folder), "weights_sha256": digest_of(content)}

    def _download(self) -> Path:
        """The folder of `DOWNLOADS` with what is read of a commit: weights last, and no others."""
        folder = DOWNLOADS / self.name
        self._from_hub(model_folder.FILES)
        self._check(folder)
        self._from_hub(model_folder.weight_names(folder))
        return folder

    def _from_hub(self, wanted: str | list[str]) -> Path:
        """One file of the pinned commit, or all that fit a list of patterns, in `DOWNLOADS`."""
        from huggingface_hub import errors, get_token, hf_hub_download, snapshot_download

        put = (
            f"put the model's folder {self.repo.rpartition('/')[2]} into the folder that "
            f"{DATA_DIR_VARIABLE} names"
        )
        access = (
            f"ask for access at https://huggingface.co/{self.repo}, make a token at "
            f"https://huggingface.co/settings/tokens and set HF_TOKEN, or {put}"
        )
        target = DOWNLOADS / self.name
        if self.gated and get_token() is None and not (target / "config.json").exists():
            raise DataError(f"{self.name} is licensed to those who ask: {access}")
        where = {"repo_id": self.repo, "revision": self.revision}
        try:
            if isinstance(wanted, str):
                return Path(hf_hub_download(filename=wanted, **where))
            return Path(snapshot_download(allow_patterns=wanted, local_dir=target, **where))
        except errors.GatedRepoError as error:
            raise DataError(f"{self.name} is not open to this token: {access}") from error
        except errors.HFValidationError as error:
            raise DataError(
                f"{self.name} names no repository of the hub, where {self.repo} is none: it should "
                f"be {PREFIX}organisation--model@ and the 40 digits of a commit"
            ) from error
        except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
            raise DataError(
                f"{self.repo} at {self.revision} could not be read from the hub "
                f"({type(error).__name__}): check network and commit, or {put}"
            ) from error

    def load(self, manifest: dict, *shape, weights: str | None = None) -> LanguageModel:
        import torch
        from transformers import AutoModelForCausalLM, GenerationConfig

        from benchmarks.backbones import language

        folder = Path(manifest["weights"])
        failed = one_sentence(f"the model in {folder} cannot be loaded", "copy it anew")
        with failed, model_folder.weights_alone(folder) as view:
            network, report = AutoModelForCausalLM.from_pretrained(
                view,
                config=_configuration(folder),
                dtype=getattr(torch, weights or "float32"),
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


def _configuration(folder: Path) -> PreTrainedConfig:
    from benchmarks.backbones import language

    return language.configuration(model_folder.read_json(folder / "config.json"))


def _layers(name: str, config: dict) -> int:
    layers = config.get("num_hidden_layers")
    if type(layers) is not int or not 1 <= layers <= _MOST_LAYERS:
        raise DataError(
            f"config.json of {name} should say num_hidden_layers, from 1 to {_MOST_LAYERS}, but "
            f"says {str(layers)[:40]}: name a causal language model"
        )
    return layers
