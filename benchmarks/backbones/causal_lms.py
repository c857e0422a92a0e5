"""Causal language models from outside: any whose attention has q_proj, k_proj and v_proj.

The paper's five have names (`backbones.BACKBONES`). Any other is named by its folder in the data
directory, `hf-Qwen2.5-0.5B`, or by its repository on the hub and a commit of it,
`hf-Qwen--Qwen2.5-0.5B@<40 hexadecimal digits>`. A folder is what `save_pretrained` writes or the
hub holds: config.json, the tokenizer's files and weights as safetensors. No code from outside runs,
and nothing else that lies in a folder is read: `weight_files` says which weights are.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import tempfile
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common.files import DATA_DIR_VARIABLE, DataError, data_dir, digest_of, sha256_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig

    from benchmarks.backbones import Backbone
    from benchmarks.backbones.models import LanguageModel
    from benchmarks.streams.common.encoding import Tokenizer

OWN = "hf-"  # begins the name of a model that is none of the paper's
ARCHITECTURES = Path(__file__).parent / "architectures"
DOWNLOADS = Path("resources/downloads")
INDEX = "model.safetensors.index.json"
# Configuration and tokenizer; weights are named one by one.
FILES = ["*.json", "*.txt", "tokenizer*", "*.model", "*.jinja", "additional_chat_templates/*.jinja"]
# Part of every fingerprint; raise it when texts, weights or answers of a model come out otherwise.
# 2: answers without the checkpoint's own logits processors, the tokenizer's own begin, a fixed day.
READING = 2
PROJECTIONS = ("q_proj", "k_proj", "v_proj")
# What changes the logits behind the last layer, where `LanguageModel` has nothing but the layer.
_LOGIT_OPTIONS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
# Entries of config.json that name code or files, or what a pass returns, none of the network.
_ASIDE = {
    *("auto_map", "attn_implementation", "experts_implementation", "kernel_config"),
    *("fusion_config", "distributed_config", "transformers_weights", "name_or_path"),
    *("return_dict", "output_attentions", "output_hidden_states"),
}
_LONGEST_NAME = 200  # bytes; a file system's limit is 255
_MOST_LAYERS = 1000  # no model has so many, and each is made before every plan
_N_PROBES, _PROBE_BYTES = 1000, 4096  # of a weight file, spread evenly, that name it


def own(name: str) -> Backbone:
    """The backbone that a name of the form above stands for.

    Raises:
        DataError: the name is neither a folder in the data directory nor a pinned repository, or
            the repository cannot be read.
    """
    from benchmarks.backbones import Backbone

    found = re.fullmatch(rf"{OWN}(\w[\w.-]*?)(?:@([0-9a-f]{{40}}))?", name)
    if not found or len(name.encode()) > _LONGEST_NAME:
        raise DataError(
            f"{name[:_LONGEST_NAME]!r} should be {OWN} and the name of a folder in the data "
            f"directory (letters, digits, _, . and -), or {OWN}organisation--model@ and the 40 "
            "digits of a commit on the hub"
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
    layers = _layers(name, config)
    return dataclasses.replace(backbone, architecture=config, adapted_matrices=2 * layers)


def _read_config(backbone: Backbone) -> dict:
    data = data_dir()
    folder = local_folder(backbone, data)
    if folder:
        return check_folder(folder)
    if backbone.revision is None:
        raise DataError(_missing(backbone, data))
    config = _json(_from_hub(backbone, "config.json"))
    _check_config(backbone.name, config)
    return config


def _missing(backbone: Backbone, data: Path | None) -> str:
    """Why a name without a commit stands for nothing."""
    folder = data / backbone.repo.replace("/", "--") if data else None
    if folder and (folder / "adapter_config.json").exists():
        return (
            f"{folder} holds an adapter without its model: merge it into the model "
            "(PEFT's merge_and_unload) and save the whole there"
        )
    if folder and folder.is_dir():
        return f"{folder} holds no config.json: copy the whole model there"
    there = [path.parent.name for path in data.glob("*/config.json")] if data else []
    near = get_close_matches(folder.name, there, n=1) if folder else []
    hint = f"; did you mean {OWN}{near[0]}?" if near else ""
    return (
        f"{backbone.name} is no folder of the data directory and names no commit: put it into "
        f"the folder that {DATA_DIR_VARIABLE} names, or add @ and the 40 digits of a commit{hint}"
    )


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}): copy the model anew") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} should hold a JSON object, not a {type(found).__name__}")
    return found


def _layers(name: str, config: dict) -> int:
    layers = config.get("num_hidden_layers")
    if type(layers) is not int or not 1 <= layers <= _MOST_LAYERS:
        raise DataError(
            f"config.json of {name} should say num_hidden_layers, from 1 to {_MOST_LAYERS}, but "
            f"says {str(layers)[:40]}: name a causal language model"
        )
    return layers


def local_folder(backbone: Backbone, data: Path | None) -> Path | None:
    """The user's own copy in the data directory, if there is one."""
    names = (backbone.repo.replace("/", "--"), backbone.repo.rpartition("/")[2])
    folders = [data / name for name in names] if data else []
    return next((folder for folder in folders if (folder / "config.json").exists()), None)


def check_folder(folder: Path) -> dict:
    """A folder's configuration; DataError if its weights are quantised or may lack an adapter."""
    config = _json(folder / "config.json")
    _check_config(str(folder), config)
    # AutoGPTQ and AutoAWQ put their settings into a file of their own.
    for file in ("quantize_config.json", "quant_config.json"):
        if (folder / file).exists():
            raise _quantised(str(folder), _json(folder / file))
    if (folder / "adapter_config.json").exists():
        raise DataError(
            f"{folder} holds an adapter (adapter_config.json) beside a model's weights, and "
            "nothing says whether it is merged into them: if it is, remove the adapter's files, "
            "if not, merge it"
        )
    return config


def check_model(name: str, layers: int, folder: Path) -> None:
    """Raise DataError unless configuration and tokenizer make a model that can be adapted."""
    config = check_folder(folder)
    if _layers(name, config) != layers:
        raise DataError(
            f"{folder} is not {name}: it has {config['num_hidden_layers']} layers and should have "
            f"{layers}"
        )
    network = build(config)
    check(name, network)
    tokenizer(folder)


def _check_config(where: str, config: dict) -> None:
    if config.get("quantization_config") is not None:
        raise _quantised(where, config["quantization_config"])


def _quantised(where: str, settings: object) -> DataError:
    settings = settings if isinstance(settings, dict) else {}
    method = str(settings.get("quant_method", "a method it does not name"))[:40]
    return DataError(
        f"the weights of {where} are quantised ({method}), and such cannot be adapted here: take "
        "the model that was quantised, with weights: bfloat16 if memory is short"
    )


def weight_files(folder: Path) -> list[Path]:
    """The weights that are read: model.safetensors, or the shards that its index names.

    Others beside them are left alone: those of other libraries, formats and precisions.

    Raises:
        DataError: there are none, or two sets of them, or some are missing.
    """
    names = _shards(folder)
    single = (folder / "model.safetensors").exists()
    if single and names != ["model.safetensors"]:
        raise DataError(
            f"{folder} holds two sets of weights, model.safetensors and {names[0]} with the others "
            f"that {INDEX} names: remove the set that is not meant"
        )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing and (folder / INDEX).exists():
        raise DataError(
            f"{folder} lacks {missing[0]}, which its {INDEX} names: copy the model anew"
        )
    if missing:
        others = ", ".join(sorted(path.name for path in folder.glob("*.safetensors"))[:3])
        raise DataError(
            f"{folder} holds no model.safetensors and no {INDEX}"
            f"{f', but {others}' if others else ''}: weights in other formats are not read, "
            "convert them (load the model and save_pretrained)"
        )
    return [folder / name for name in names]


def _shards(folder: Path) -> list[str]:
    """Names of the weight files, whether they are there or not."""
    index = folder / INDEX
    if not index.exists():
        return ["model.safetensors"]
    shards = _json(index).get("weight_map")
    names = {str(name) for name in shards.values()} if isinstance(shards, dict) else set()
    if not names or not all(re.fullmatch(r"[^/]+[.]safetensors", name) for name in names):
        raise DataError(f"{index} should name .safetensors beside it: copy the model anew")
    return sorted(names)


def fingerprint(backbone: Backbone, data: Path | None) -> str:
    """A digest that names the weights: repository and commit, or the content of a checked folder.

    Of a weight file its size and a thousandth part count, spread evenly, so that a fine-tuned
    matrix is seen: gigabytes are not read before every plan. `prepare` records the digest of all
    of it.
    """
    folder = local_folder(backbone, data)
    if folder is None:
        return digest_of([READING, backbone.repo, backbone.revision])
    state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in _files(folder)]
    return _checked_digest(backbone.name, backbone.adapted_matrices // 2, folder, tuple(state))


@functools.cache
def _checked_digest(name: str, layers: int, folder: Path, state: tuple) -> str:
    check_model(name, layers, folder)
    parts = {}
    for path in _files(folder):
        size = path.stat().st_size
        content = hashlib.sha256()
        with open(path, "rb") as file:
            if size <= _N_PROBES * _PROBE_BYTES:
                content.update(file.read())
            else:
                for i in range(_N_PROBES):  # the first at the beginning, the last at the end
                    file.seek(i * (size - _PROBE_BYTES) // (_N_PROBES - 1))
                    content.update(file.read(_PROBE_BYTES))
        parts[str(path.relative_to(folder))] = [size, content.hexdigest()]
    return digest_of([READING, parts])


def _files(folder: Path) -> list[Path]:
    found = {path for pattern in FILES for path in folder.glob(pattern) if path.is_file()}
    return sorted(found.union(weight_files(folder)))


def prepare(backbone: Backbone, data: Path | None) -> dict:
    """Find the model, as its fingerprint checked it, or download it; the manifest's part."""
    folder = local_folder(backbone, data) or _download(backbone)
    weights = weight_files(folder)
    return {
        "weights": str(folder),
        "weights_sha256": digest_of({path.name: sha256_of(path) for path in weights}),
    }


def _download(backbone: Backbone) -> Path:
    """The folder of `DOWNLOADS` with what is read of a commit: weights last, and no others."""
    folder = DOWNLOADS / backbone.name
    _from_hub(backbone, FILES)
    check_model(backbone.name, backbone.adapted_matrices // 2, folder)
    _from_hub(backbone, _shards(folder))
    return folder


def _from_hub(backbone: Backbone, wanted: str | list[str]) -> Path:
    """One file of the pinned commit, or all that fit a list of patterns, in `DOWNLOADS`."""
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
        if isinstance(wanted, str):
            return Path(hf_hub_download(filename=wanted, **where))
        return Path(snapshot_download(allow_patterns=wanted, local_dir=target, **where))
    except errors.GatedRepoError as error:
        raise DataError(f"{backbone.name} is not open to this token: {access}") from error
    except errors.HFValidationError as error:
        raise DataError(
            f"{backbone.name} names no repository of the hub, where {backbone.repo} is none: it "
            f"should be {OWN}organisation--model@ and the 40 digits of a commit"
        ) from error
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
    from transformers import AutoModelForCausalLM

    config = _configuration(architecture)
    try:
        with torch.device(device):
            return AutoModelForCausalLM.from_config(
                config, dtype=getattr(torch, weights or "float32"), trust_remote_code=False
            )
    except Exception as error:  # of whatever kind its many parts raise
        raise DataError(
            f"no causal language model of the type {config.model_type!r} can be made of its "
            f"config.json ({_cause(error)}), and no code from outside is run: choose another model"
        ) from error


def _configuration(architecture: dict) -> PreTrainedConfig:
    """What transformers makes of a config.json, without what names code or files."""
    from transformers import CONFIG_MAPPING, AutoConfig

    kind = architecture.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise DataError(
            f"a model of the type {kind!r} needs code that transformers has not, and none from "
            "outside is run: choose another model"
        )
    aside = _ASIDE | {"model_type", *(key for key in architecture if key.startswith("_"))}
    options = {key: value for key, value in architecture.items() if key not in aside}
    try:
        return AutoConfig.for_model(kind, **options)
    except Exception as error:  # of whatever kind its many parts raise
        raise DataError(
            f"config.json of a model of the type {kind!r} is damaged ({_cause(error)}): copy the "
            "model anew"
        ) from error


def _cause(error: Exception) -> str:
    """What a library says, as part of a sentence."""
    return " ".join(str(error).split())[:200] or type(error).__name__


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


def check_context(name: str, context: int | None, tokens: int) -> None:
    """Raise DataError if prompts and answers are longer than what the model was made for."""
    if context is not None and tokens > context:
        raise DataError(
            f"prompts with their answers may have {tokens} tokens, but {name} has positions for "
            f"{context}: lower max_prompt_tokens, max_answer_tokens or max_new_tokens"
        )


def load(folder: Path, weights: str | None) -> LanguageModel:
    """The network with its weights, in float32 or in the precision asked for.

    Raises:
        DataError: the weights are damaged or not those of the configuration.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from benchmarks.backbones.models import LanguageModel

    config = _configuration(_json(folder / "config.json"))
    try:
        # A folder of links, where no adapter, generation settings or code lie beside the weights.
        with tempfile.TemporaryDirectory() as view:
            files = weight_files(folder)
            for path in [*files, folder / INDEX] if len(files) > 1 else files:
                (Path(view) / path.name).symlink_to(path.resolve())
            network, report = AutoModelForCausalLM.from_pretrained(
                view,
                config=config,
                dtype=getattr(torch, weights or "float32"),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                generation_config=GenerationConfig(),
                output_loading_info=True,
            )
    except DataError:
        raise
    except Exception as error:  # of whatever kind its many parts raise
        raise DataError(
            f"the model in {folder} cannot be loaded ({_cause(error)}): copy it anew"
        ) from error
    if report["missing_keys"] or report["mismatched_keys"]:
        some = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))[:3]
        raise DataError(f"the weights in {folder} lack {', '.join(some)}: copy the model anew")
    own = tokenizer(folder)
    return LanguageModel(network, _ends(folder, own.end))


def _ends(folder: Path, own: int) -> list[int]:
    """Ids that end an answer: the tokenizer's, to which answers are trained, and the model's."""
    file = folder / "generation_config.json"
    settings = _json(file if file.exists() else folder / "config.json")
    named = settings.get("eos_token_id")
    others = named if isinstance(named, list) else [named]
    return [own, *sorted({end for end in others if type(end) is int} - {own})]


def tokenizer(folder: Path) -> Tokenizer:
    """The model's own; DataError if it cannot be used, or has ids beyond the model's vocabulary."""
    from benchmarks.streams.common.encoding import Tokenizer

    config = _configuration(_json(folder / "config.json"))
    try:
        found = Tokenizer.from_folder(folder, config)
    except Exception as error:  # of whatever kind its many parts raise
        raise DataError(f"the tokenizer in {folder} cannot be used ({_cause(error)})") from error
    # A folder that holds less than a whole tokenizer may load as an empty one.
    text = "The cat sat on the mat: 12 + 3 = 15."
    if found.decode(found.encode(text)).strip() != text:
        raise DataError(
            f"the tokenizer in {folder} does not give a plain sentence back: copy tokenizer.json "
            "or tokenizer.model, and tokenizer_config.json"
        )
    return found
