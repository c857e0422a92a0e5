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

from analysis.text import suggest
from benchmarks.backbones import model_folder
from benchmarks.backbones.base import DOWNLOADS, OWN
from benchmarks.backbones.causal import CausalModel, layers
from benchmarks.common.data_dir import DATA_DIR_VARIABLE, data_dir
from benchmarks.common.digests import digest_of, sha256_of
from benchmarks.common.errors import DataError

PREFIX = "hf-"  # begins the name of a model that is none of the paper's
_LONGEST_NAME = 200  # bytes; a file system's limit is 255
_digests: dict[tuple, str] = {}  # of folders that were checked, by name and state of their files


@dataclass(frozen=True, kw_only=True)
class HubModel(CausalModel):
    """A causal language model from outside.

    Attributes:
        repo: its repository on the hub.
        revision: the commit; None for a folder in the data directory.
        gated: whether its licence must be asked for.
    """

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
        leaves = found and {".", ".."} & set(found[1].split("--"))
        if not found or leaves or len(name.encode()) > _LONGEST_NAME:
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
            pretraining=OWN,
        )
        data = data_dir()
        if folder := backbone.folder(data) or backbone.prepared:
            config = model_folder.config(folder)
        elif revision:
            config = model_folder.read_json(backbone._from_hub("config.json"))
            model_folder.refuse_quantised(name, config.get("quantization_config"))
        else:
            raise DataError(backbone._missing(data))
        layers(name, config)
        return dataclasses.replace(backbone, architecture=config)

    def folder(self, data: Path | None) -> Path | None:
        """The user's own copy in the data directory, or what a bundle has brought, if there is."""
        names = (self.repo.replace("/", "--"), self.repo.rpartition("/")[2])
        folders = [data / name for name in names] if data else []
        folders += [Path(self.bundled["weights"])] if self.bundled else []
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
    def url(self) -> str:
        return f"https://huggingface.co/{self.repo}"

    pinned = "revision"

    def fingerprint(self, data_dir: Path | None) -> str:
        """Repository and commit, or the content of a folder, checked once for each state of it.

        Raises:
            DataError: there is neither, or the folder cannot be used.
        """
        folder = self.folder(data_dir)
        if folder is None:
            if not self.revision:
                raise DataError(self._missing(data_dir))
            return digest_of([model_folder.READING, self.repo, self.revision])
        stats = [(path.name, path.stat()) for path in model_folder.files(folder)]
        state = tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
        state = self.name, self.n_layers, folder, state
        if state not in _digests:
            self.check(folder)
            _digests[state] = model_folder.digest(folder)
        return _digests[state]

    def find_weights(self, out: Path, data_dir: Path | None) -> dict:
        """The folder, as its fingerprint checked it, or a download."""
        folder = self.folder(data_dir) or self._download()
        content = {path.name: sha256_of(path) for path in model_folder.weight_files(folder)}
        return {"weights": str(folder), "weights_sha256": digest_of(content)}

    def _download(self) -> Path:
        """The folder of `DOWNLOADS` with what is read of a commit: weights last, and no others."""
        folder = DOWNLOADS / self.name
        self._from_hub(model_folder.FILES)
        self.check(folder)
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
            f"ask for access at {self.url}, make a token at "
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
