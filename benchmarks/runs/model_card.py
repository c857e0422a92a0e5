"""What a kept adapter is of: as data, and as the model card that the hub shows."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import baselines
from analysis.text import markdown, visible
from benchmarks.backbones import NORMALISATIONS, Backbone, Embedded, HubModel

if TYPE_CHECKING:
    from torch import Tensor

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {"markdown": markdown, "json": json.dumps}


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What a kept adapter is of.

    Attributes:
        key, spec: of the run.
        tasks, metrics, scores: names of the tasks learnt so far, and how they are tested now;
            no score of what was not tested.
        classes: names of the classes of each task of the stream by their numbers, on vision.
        image: height and width of the stream's images in pixels, on vision.
        reading: how a prompt becomes token ids, the arguments of `encoding.encode`, on language.
        max_new_tokens: of an answer, on language.
        stop: the text before which an answer to the latest task ends; None for none.
        weights_sha256: of the backbone.
        commit: of this project's code.
        sources: digests of the code behind the run, see `runs.sources`.
    """

    key: str
    spec: dict[str, Any]
    tasks: list[str]
    metrics: list[str]
    scores: list[float | None]
    classes: list[list[str]]
    image: list[int] | None
    reading: dict[str, Any] | None
    max_new_tokens: int | None
    stop: str | None
    weights_sha256: str
    commit: str | None
    sources: dict[str, str]

    @property
    def seen(self) -> list[str]:
        """The classes learnt so far by their numbers."""
        return [name for names in self.classes[: len(self.tasks)] for name in names]


def repository(backbone: Backbone) -> tuple[str | None, str | None]:
    """Where the hub has a backbone: repository and revision; None for what is not there."""
    if isinstance(backbone, HubModel) and backbone.revision:
        return backbone.repo, backbone.revision
    url = getattr(backbone, "url", None) or ""
    found = re.match(r"https://huggingface\.co/([^/]+/[^/]+)/resolve/([^/]+)/", url)
    return found.groups() if found else (None, None)


def text(learnt: Learnt, backbone: Backbone, tensors: Mapping[str, Tensor] | None) -> str:
    """The card of what a run has learnt.

    Args:
        backbone: that was adapted.
        tensors: of the method's state; None for an adapter that PEFT reads.
    """
    spec, vision = learnt.spec, bool(learnt.classes)
    repo, revision = repository(backbone)
    front = {
        "base_model": repo,
        "library_name": None if tensors else "peft",
        "pipeline_tag": "image-classification" if vision else "text-generation",
        "tags": ["continual-learning", *([] if tensors else ["lora"]), spec["method"]["name"]],
    }
    front = {name: value for name, value in front.items() if value}
    options = spec["backbone"]
    own_size = {} if options.get("image_size") is None else {"img_size": options["image_size"]}
    return TEMPLATES.get_template("model_card.md.j2").render(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        learnt=learnt,
        spec=spec,
        settings=spec["method"]["config"] | spec["train"],
        backbone=backbone,
        repo=repo,
        revision=revision,
        architecture=backbone.architecture | own_size,
        made_here=isinstance(backbone, Embedded),
        pixels=NORMALISATIONS[options.get("normalisation") or backbone.normalisation],
        tensors=tensors,
        method=[visible(line) for line in _documented(spec).splitlines()],
    )


def _documented(spec: dict) -> str:
    """What the file of a run's method says of it."""
    method = baselines.of(spec["method"], spec["modality"])
    return inspect.getdoc(inspect.getmodule(method)) or "Its file says nothing."
