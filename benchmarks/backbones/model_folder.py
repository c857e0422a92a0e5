"""What counts in a folder of a language model: config.json, tokenizer, weights as safetensors.

The folder is what `save_pretrained` writes or the hub holds. Nothing else that lies in it is read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.common.digests import digest_of
from benchmarks.common.errors import DataError, one_sentence

INDEX = "model.safetensors.index.json"
# Configuration and tokenizer; weights are named one by one.
FILES = ["*.json", "*.txt", "tokenizer*", "*.model", "*.jinja", "additional_chat_templates/*.jinja"]
# Part of every fingerprint; raise it when texts, weights or answers of a model come out otherwise.
# 2: answers without the checkpoint's own logits processors, the tokenizer's own begin, a fixed day.
READING = 2
_N_PROBES, _PROBE_BYTES = 1000, 4096  # of a weight file, spread evenly, that name it


def read_json(path: Path) -> dict:
    """A file's object; DataError if it holds none."""
    with one_sentence(f"{path} cannot be read", "copy the model anew"):
        found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise DataError(f"{path} should hold a JSON object, not a {type(found).__name__}")
    return found


def config(folder: Path) -> dict:
    """A folder's configuration; DataError if its weights are quantised or may lack an adapter."""
    found = read_json(folder / "config.json")
    refuse_quantised(str(folder), found.get("quantization_config"))
    # AutoGPTQ and AutoAWQ put their settings into a file of their own.
    for file in ("quantize_config.json", "quant_config.json"):
        if (folder / file).exists():
            refuse_quantised(str(folder), read_json(folder / file))
    if (folder / "adapter_config.json").exists():
        raise DataError(
            f"{folder} holds an adapter (adapter_config.json) beside a model's weights, and "
            "nothing says whether it is merged into them: if it is, remove the adapter's files, "
            "if not, merge it"
        )
    return found


def refuse_quantised(where: str, settings: object) -> None:
    """DataError unless there are no settings of a quantisation."""
    if settings is None:
        return
    settings = settings if isinstance(settings, dict) else {}
    method = str(settings.get("quant_method", "a method it does not name"))[:40]
    raise DataError(
        f"the weights of {where} are quantised ({method}), and such cannot be adapted here: take "
        "the model that was quantised, with weights: bfloat16 if memory is short"
    )


def weight_files(folder: Path) -> list[Path]:
    """The weights that are read: model.safetensors, or the shards that its index names.

    Others beside them are left alone: those of other libraries, formats and precisions.

    Raises:
        DataError: there are none, or two sets of them, or some are missing.
    """
    names = weight_names(folder)
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


def weight_names(folder: Path) -> list[str]:
    """Names of the weight files, whether they are there or not."""
    index = folder / INDEX
    if not index.exists():
        return ["model.safetensors"]
    shards = read_json(index).get("weight_map")
    names = {str(name) for name in shards.values()} if isinstance(shards, dict) else set()
    if not names or not all(re.fullmatch(r"[^/]+[.]safetensors", name) for name in names):
        raise DataError(f"{index} should name .safetensors beside it: copy the model anew")
    return sorted(names)


def files(folder: Path) -> list[Path]:
    """All that is read, sorted."""
    found = {path for pattern in FILES for path in folder.glob(pattern) if path.is_file()}
    return sorted(found.union(weight_files(folder)))


def digest(folder: Path) -> str:
    """A digest of all that is read.

    Of a weight file its size and a thousandth part count, spread evenly, so that a fine-tuned
    matrix is seen: gigabytes are not read before every plan.
    """
    parts = {}
    for path in files(folder):
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


@contextmanager
def weights_alone(folder: Path) -> Iterator[str]:
    """A folder of links to the weights, without adapter, generation settings or code."""
    with TemporaryDirectory() as view:
        found = weight_files(folder)
        for path in [*found, folder / INDEX] if len(found) > 1 else found:
            (Path(view) / path.name).symlink_to(path.resolve())
        yield view


def ends(folder: Path, own: int) -> list[int]:
    """Ids that end an answer: the tokenizer's, to which answers are trained, and the model's."""
    file = folder / "generation_config.json"
    settings = read_json(file if file.exists() else folder / "config.json")
    named = settings.get("eos_token_id")
    others = named if isinstance(named, list) else [named]
    return [own, *sorted({end for end in others if type(end) is int} - {own})]
