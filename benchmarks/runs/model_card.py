"""The model card of a kept adapter: README.md with the front matter that the hub reads."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import baselines
from analysis.tables.table import markdown
from analysis.text import visible
from benchmarks.backbones import NORMALISATIONS, Backbone, Embedded, HubModel

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.runs.adapters import Learnt

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {"markdown": markdown, "json": json.dumps}


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
