"""Network and method of a run, as its spec asks for them."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

import baselines
from baselines.common.base import Method
from baselines.common.task import Setting
from benchmarks import backbones
from benchmarks.common.digests import seed_for
from benchmarks.common.errors import DataError
from benchmarks.common.files import read_json
from benchmarks.streams.common.tasks import RESOURCES

if TYPE_CHECKING:
    from benchmarks.backbones.language import LanguageModel
    from benchmarks.backbones.tokenizer import Tokenizer
    from benchmarks.backbones.vision import VisionModel


def manifest_of(asked: dict) -> dict:
    """Of the prepared backbone of a spec; DataError if its weights are other ones."""
    manifest = read_json(RESOURCES / "backbones" / asked["name"] / "manifest.json")
    if manifest["fingerprint"] != asked["digest"]:
        raise DataError(
            f"the weights of {manifest['name']} are not what this run asks for: delete "
            f"resources/backbones/{manifest['name']} and run again"
        )
    return manifest


def network_of(
    spec: dict, backbone: backbones.Backbone, manifest: dict, n_classes: int
) -> VisionModel | LanguageModel:
    """The pretrained network of a run, with a new classifier on vision."""
    options = spec["backbone"]
    seed_everything(seed_for(spec["seed"], "init"))
    network = backbone.load(
        manifest,
        n_classes,
        options["image_size"],
        options.get("normalisation"),
        weights=options.get("weights"),
    )
    if spec["modality"] == "language":
        network.decoding = spec["stream"].get("decoding", "greedy")
    return network


def method_of(
    spec: dict,
    network: VisionModel | LanguageModel,
    task_of_class: Tensor,
    tokenizer: Tokenizer | None,
    device: str,
) -> Method:
    """The method of a run, on a network with its query, key and value projections apart."""
    method = baselines.of(spec["method"], spec["modality"])
    shared = {field.name for field in dataclasses.fields(Setting)}
    setting = Setting(
        modality=spec["modality"],
        n_tasks=spec["stream"]["n_tasks"],
        task_of_class=task_of_class,
        tokenizer=tokenizer,
        seed=spec["seed"],
        device=device,
        **{name: value for name, value in spec["train"].items() if name in shared},
    )
    return method(network, method.Config(**spec["method"]["config"]), setting)


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
