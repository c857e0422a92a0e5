"""Causal language models from outside: any whose attention has q_proj, k_proj and v_proj.

The paper's five have names (`backbones.BACKBONES`). Any other is named by its folder in the data
directory, `hf-Qwen2.5-0.5B`, or by its repository on the hub and a commit of it,
`hf-Qwen--Qwen2.5-0.5B@<40 hexadecimal digits>`. A folder is what `save_pretrained` writes or the
hub holds: config.json, the tokenizer's files and weights as safetensors. No code from outside runs.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.files import DATA_DIR_VARIABLE, DataError, data_dir, digest_of, sha256_of

if TYPE_CHECKING:
    from torch import nn

    from benchmarks.backbones import Backbone
    from benchmarks.models import LanguageModel
    from benchmarks.text import Tokenizer

OWN = "hf-"  # begins the name of a model that is none of the paper's
ARCHITECTURES = Path(__file__).parent / "architectures"
DOWNLOADS = Path("resources/downloads")
FILES = ["*.safetensors", "*.json", "tokenizer*", "*.model", "*.jinja"]
PROJECTIONS = ("q_proj", "k_proj", "v_proj")
# What changes the logits behind the last layer, where `LanguageModel` has nothing but the layer.
_LOGIT_OPTIONS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
_ENDS_BYTES = 1 << 20  # of a weight file's beginning and end that name it


def own(name: str) -> Backbone:
    """The backbone that a name of the form above stands for.

    Raises:
        DataError: the name is neither a folder in the data directory nor a pinned repository, or
            the repository cannot be read.
    """
    from benchmarks.backbones import Backbone

    found = re.fullmatch(rf"{OWN}(\w[\w.-]*?)(?:@([0-9a-f]{{40}}))?", name)
    if not found:
        raise DataError(
            f"{name!r} should be {OWN} and the name of a folder in the data directory, or "
            f"{OWN}organisation--model@ and the 40 digits of a commit on the hub"
        )
    model, revision = found.groups()
    backbone = Backbone(
        name,
        "language",
        {},
        adapted_matrices=0,
        repo=model.replace("--", "/"),
        revision=revision,
        pretraining="a user's own",
        labels="unknown",
    )
    config = _read_config(backbone)
    layers = config.get("num_hidden_layers")
    if not isinstance(layers, int):
        raise DataError(
            f"config.json of {name} should say num_hidden_layers, but says {layers!r}: "
            "name a causal language model"
        )
    return dataclasses.replace(backbone, architecture=config, adapted_matrices=2 * layers)


def _read_config(backbone: Backbone) -> dict:
    folder = local_folder(backbone, data_dir())
    if folder is None and backbone.revision is None:
        raise DataError(
            f"{backbone.name} is no folder of the data directory and names no commit: put it into "
            f"the folder that {DATA_DIR_VARIABLE} names, or add @ and the 40 digits of a commit"
        )
    path = folder / "config.json" if folder else _from_hub(backbone, "config.json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): copy the model anew") from error


def local_folder(backbone: Backbone, data: Path | None) -> Path | None:
    """The user's own copy in the data directory, if there is one."""
    names = (backbone.repo.replace("/", "--"), backbone.repo.rpartition("/")[2])
    folders = [data / name for name in names] if data else []
    return next((folder for folder in folders if (folder / "config.json").exists()), None)


def fingerprint(backbone: Backbone, data: Path | None) -> str:
    """A digest that names the weights: repository and commit, or a folder's content.

    Of a weight file its size, its first and its last megabyte count: gigabytes are not read before
    every plan. `prepare` records the digest of all of it.
    """
    folder = local_folder(backbone, data)
    if folder is None:
        return hashlib.sha256(f"{backbone.repo}@{backbone.revision}".encode()).hexdigest()
    state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in _files(folder)]
    return _folder_digest(folder, tuple(state))


@functools.cache
def _folder_digest(folder: Path, state: tuple) -> str:
    parts = {}
    for path in _files(folder):
        with open(path, "rb") as file:
            content = hashlib.sha256(file.read(_ENDS_BYTES))
            file.seek(max(0, path.stat().st_size - _ENDS_BYTES))
            content.update(file.read())
        parts[path.name] = [path.stat().st_size, content.hexdigest()]
    return digest_of(parts)


def _files(folder: Path) -> list[Path]:
    return sorted({path for pattern in FILES for path in folder.glob(pattern)})


def prepare(backbone: Backbone, data: Path | None) -> dict:
    """Find or download the model, check that it can be adapted, and return the manifest's part."""
    folder = local_folder(backbone, data)
    if folder is None:
        _from_hub(backbone, None)
        folder = DOWNLOADS / backbone.name
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise DataError(
            f"{folder} holds no .safetensors: weights in other formats are not read, convert them"
        )
    check(backbone.name, build(json.loads((folder / "config.json").read_text(encoding="utf-8"))))
    tokenizer(folder)
    return {
        "weights": str(folder),
        "weights_sha256": digest_of({path.name: sha256_of(path) for path in weights}),
    }


def _from_hub(backbone: Backbone, file: str | None) -> Path:
    """One file of the pinned commit, or with None all that is needed, in `DOWNLOADS`."""
    from huggingface_hub import errors, get_token, hf_hub_download, snapshot_download

    access = (
        f"ask for access at https://huggingface.co/{backbone.repo}, make a token at "
        "https://huggingface.co/settings/tokens and set HF_TOKEN, or put the model's folder "
        f"{backbone.repo.rpartition('/')[2]} into the folder that {DATA_DIR_VARIABLE} names"
    )
    target = DOWNLOADS / backbone.name
    if backbone.gated and get_token() is None and not (target / "config.json").exists():
        raise DataError(f"{backbone.name} is licensed to those who ask: {access}")
    where = {"repo_id": backbone.repo, "revision": backbone.revision}
    try:
        if file:
            return Path(hf_hub_download(filename=file, **where))
        return Path(snapshot_download(allow_patterns=FILES, local_dir=target, **where))
    except errors.GatedRepoError as error:
        raise DataError(f"{backbone.name} is not open to this token: {access}") from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            f"{backbone.repo} at {backbone.revision} could not be read from the hub "
            f"({type(error).__name__}): check network and commit, or put the model's folder into "
            f"the folder that {DATA_DIR_VARIABLE} names"
        ) from error


def build(architecture: dict, device: str = "meta", weights: str | None = None) -> nn.Module:
    """A network of that configuration with random weights, on the meta device with none at all.

    Args:
        architecture: as in config.json.
        device: where it is made.
        weights: their precision, None for float32.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    options = {key: value for key, value in architecture.items() if key != "model_type"}
    kind = architecture.get("model_type")
    try:
        config = AutoConfig.for_model(kind, **options)
    except (KeyError, ValueError) as error:
        raise DataError(
            f"a model of the type {kind!r} needs code that transformers has not, and none from "
            "outside is run: choose another model"
        ) from error
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, weights or "float32"))


def architecture(backbone: Backbone) -> dict:
    """The configuration of a model, known before it is downloaded."""
    if file := backbone.architecture.get("file"):
        return json.loads((ARCHITECTURES / f"{file}.json").read_text(encoding="utf-8"))
    return backbone.architecture


def check(name: str, network: nn.Module) -> None:
    """Raise DataError if adapters do not fit the network, or its logits would be wrong here."""
    kinds = {module.rpartition(".")[2] for module, _ in network.named_modules()}
    if missing := [part for part in PROJECTIONS if part not in kinds]:
        raise DataError(
            f"{name} ({type(network).__name__}) has no {missing[0]} in its attention, which the "
            "adapters need: choose a model like Llama, Mistral, Gemma or Qwen"
        )
    for option in _LOGIT_OPTIONS:
        value = getattr(network.config, option, None)
        if value not in (None, 1, 1.0):
            raise DataError(
                f"{name} changes its logits by {option} ({value}), which is not supported: "
                "choose another model"
            )


def load(folder: Path, weights: str | None) -> LanguageModel:
    """The network with its weights, in float32 or in the precision asked for.

    Raises:
        DataError: the weights are damaged or not those of the configuration.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from benchmarks.models import LanguageModel

    try:
        network, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, weights or "float32"),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # of whatever kind its many parts raise
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"the model in {folder} cannot be loaded ({cause}): copy it anew"
        ) from error
    if report["missing_keys"] or report["mismatched_keys"]:
        some = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))[:3]
        raise DataError(f"the weights in {folder} lack {', '.join(some)}: copy the model anew")
    own, generation = tokenizer(folder), network.generation_config
    ends = generation.eos_token_id
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    generation.eos_token_id = sorted({*ends, own.end})  # among them what answers are trained to
    generation.pad_token_id = own.pad
    return LanguageModel(network)


def tokenizer(folder: Path) -> Tokenizer:
    """The model's own; DataError if it cannot be used."""
    from benchmarks.text import Tokenizer

    try:
        found = Tokenizer.from_folder(folder)
    except Exception as error:  # of whatever kind its many parts raise
        raise DataError(f"the tokenizer in {folder} cannot be used ({error})") from error
    # A folder that holds less than a whole tokenizer may load as an empty one.
    text = "The cat sat on the mat: 12 + 3 = 15."
    if found.decode(found.encode(text)).strip() != text:
        raise DataError(
            f"the tokenizer in {folder} does not give a plain sentence back: copy tokenizer.json "
            "or tokenizer.model, and tokenizer_config.json"
        )
    return found
