"""What a run keeps of a task where a suite asks for `keep: [adapters]`: a folder, fit for the hub.

    README.md                   a model card
    run.json                    what was learnt, and what outputs stand for: a `Learnt`
    adapter_config.json,        as PEFT reads them, where a low-rank change of the backbone, on
    adapter_model.safetensors   images with the classifier, is all that is tested
    state.safetensors           the method's state where it is not

PEFT's fit the network as its own library makes it: a causal language model of transformers, or a
vision transformer of timm, whose classifier has an output for each class that was learnt.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from baselines.common.base import LowRank, Method
from benchmarks import backbones
from benchmarks.common.errors import DataError, one_sentence
from benchmarks.common.files import read_json, write_bytes, write_json
from benchmarks.common.options import at, parse
from benchmarks.runs import model_card
from benchmarks.runs.model_card import Learnt

RUN, STATE, CARD = "run.json", "state.safetensors", "README.md"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # names that PEFT knows
# What is read of PEFT's configuration; it could also name modules and functions to be run.
_READ = ("r", "lora_alpha", "target_modules", "modules_to_save", "rank_pattern", "alpha_pattern")


def place(folder: Path, number: int, of: int, task: str) -> Path:
    """The folder of a task's adapter, numbered from 1 on, among those of a run."""
    name = re.sub(r"[^\w.-]+", "-", task)[:50].strip("-.")
    return folder / f"{number:0{len(str(of))}}-{name}".rstrip("-")


def write(folder: Path, method: Method, learnt: Learnt) -> None:
    """Keep what a method tests now as a folder, whole or not at all; an earlier one is replaced."""
    part = folder.parent.with_name(f".{folder.parent.name}.part")  # a kill may have left it
    shutil.rmtree(part, ignore_errors=True)
    backbone = backbones.find(learnt.spec["backbone"]["name"])
    adapter = method.adapter()
    if adapter is None:
        structure, tensors = _flat(method.state_dict())
        metadata = {"structure": json.dumps(structure)}
        write_bytes(part / STATE, save(tensors, metadata))
    else:
        head = method.backbone.head if learnt.classes else None
        config, tensors = _for_peft(adapter, head, len(learnt.seen), backbone)
        write_json(part / CONFIG, config)
        write_bytes(part / WEIGHTS, save(tensors, {"format": "pt"}))
    write_json(part / RUN, dataclasses.asdict(learnt))
    card = model_card.text(learnt, backbone, None if adapter else tensors)
    write_bytes(part / CARD, card.encode())
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    os.replace(part, folder)


def read(folder: Path) -> Learnt:
    """What a folder holds the adapter of; DataError if it is none."""
    if not (folder / RUN).is_file():
        raise DataError(
            f"{folder} is no kept adapter: name the folder of a task below results/runs/.../"
            "adapters-..., which has a run.json, or ask for `keep: [adapters]` in the suite"
        )
    with at(str(folder / RUN)):
        return parse(Learnt, read_json(folder / RUN))


def is_state(folder: Path) -> bool:
    """Whether a folder has a method's state and nothing for PEFT."""
    return (folder / STATE).is_file()


def add(folder: Path, model: nn.Module) -> None:
    """Put PEFT's adapter into a backbone's `VisionModel` or `LanguageModel`, in place."""
    from peft import LoraConfig, PeftModel  # seconds to import

    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise DataError(f"{folder} lacks {file}: copy the whole folder anew")
    found = read_json(folder / CONFIG)
    if hasattr(model, "head"):
        model.network.head = model.head
    with _whole(folder), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries to one another
        warnings.filterwarnings("error", message="Found missing adapter keys")
        config = LoraConfig(**{name: found[name] for name in _READ})
        PeftModel.from_pretrained(model.network, str(folder), config=config)
    if hasattr(model, "head"):
        model.head = model.network.head


def read_state(folder: Path) -> dict:
    """A method's state, for its `load_state_dict`."""
    with _whole(folder), safe_open(folder / STATE, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        return _nested(json.loads(file.metadata()["structure"]), tensors)


def _whole(folder: Path):
    return one_sentence(f"the adapter in {folder} cannot be read", "copy the whole folder anew")


def _for_peft(
    adapter: LowRank, head: nn.Linear | None, n_seen: int, backbone: backbones.Backbone
) -> tuple[dict, dict[str, Tensor]]:
    """PEFT's configuration and tensors; the first `n_seen` outputs of a classifier among them."""
    from peft import LoraConfig

    from benchmarks.backbones.vision import joined_qkv  # timm takes seconds to import

    factors = {name.removeprefix("network."): pair for name, pair in adapter.factors.items()}
    factors = factors if head is None else joined_qkv(factors)
    ranks = {name: len(A) for name, (A, _) in factors.items()}
    rank = max(ranks.values())
    lower = {name: r for name, r in ranks.items() if r < rank}
    repo, revision = model_card.repository(backbone)
    config = LoraConfig(
        task_type="CAUSAL_LM" if head is None else None,
        base_model_name_or_path=repo or backbone.name,
        revision=revision,
        inference_mode=True,
        r=rank,
        lora_alpha=adapter.scale * rank,
        rank_pattern=lower,
        alpha_pattern={name: adapter.scale * r for name, r in lower.items()},
        target_modules=list(factors),
        modules_to_save=None if head is None else ["head"],
    ).to_dict()
    tensors = {}
    for name, (A, B) in factors.items():
        tensors |= {f"{name}.lora_A.weight": A, f"{name}.lora_B.weight": B}
    if head is not None:
        tensors |= {f"head.{name}": value[:n_seen] for name, value in head.named_parameters()}
    tensors = {f"base_model.model.{name}": _own(value) for name, value in tensors.items()}
    return config | {"target_modules": sorted(factors)}, tensors


def _own(value: Tensor) -> Tensor:
    """With memory of its own, which safetensors asks for."""
    return value.detach().cpu().contiguous().clone()


def _flat(value: Any, name: str = "") -> tuple[Any, dict[str, Tensor]]:
    """A state as JSON, in which names stand for its tensors, and the tensors by these names."""
    if isinstance(value, Tensor):
        return {"tensor": name}, {name: _own(value)}
    if not isinstance(value, dict | list | tuple):
        return value, {}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    parts = {key: _flat(part, f"{name}.{key}".lstrip(".")) for key, part in pairs}
    tensors = {name: tensor for _, own in parts.values() for name, tensor in own.items()}
    if isinstance(value, dict):
        return {"dict": [[key, part] for key, (part, _) in parts.items()]}, tensors
    return [part for part, _ in parts.values()], tensors


def _nested(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The state that `_flat` was given."""
    if isinstance(value, list):
        return [_nested(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    return {key: _nested(part, tensors) for key, part in value["dict"]}
