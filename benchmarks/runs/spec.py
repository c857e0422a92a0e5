"""What decides a run's numbers, as its key, and what is asked for, as its record's spec."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from baselines.common.base import Method
from benchmarks.common.files import digest_of
from benchmarks.common.options import changed
from benchmarks.runs.options import LanguageTraining, VisionTraining
from benchmarks.streams.common.base import LanguageOptions, Stream, VisionOptions

PROTOCOL = 2  # raise it when the loop, the evaluation or the data splits change any number

# What every record says, whichever the modality; of other options, those not at their default.
_STREAM = {
    field.name: field.default
    for cls in (VisionOptions, LanguageOptions)
    for field in dataclasses.fields(cls)
    if field.name in ("order", "max_prompt_tokens") or "_per_" in field.name
}
_TRAIN = {
    field.name: field.default
    for cls in (VisionTraining, LanguageTraining)
    for field in dataclasses.fields(cls)
} | {"mask": None}


@dataclass(frozen=True)
class RunSpec:
    """One run, fully resolved.

    Attributes:
        spec: what is asked for, as in the result record.
        key: 12 hex digits of everything that decides the numbers, settings at their default left
            out, so that a new option keeps old results valid.
        skip: why the run cannot be made; None if it can.
    """

    spec: dict
    key: str
    skip: str | None = None


@dataclass(frozen=True)
class Row:
    """A method of an experiment, with all its settings.

    Attributes:
        label: the suite's name for it.
        name: of the method's file.
        config: the method's own settings.
        train: of `runs.options`, with `epochs` of each task.
    """

    label: str
    name: str
    method: type[Method]
    config: Any
    train: Any


def resolve(
    stream: Stream, stream_digest: str, backbone: Any, backbone_digest: str, row: Row, seed: int
) -> RunSpec:
    """The run of one seed.

    Args:
        stream: whose options have `n_tasks`.
        stream_digest, backbone_digest: fingerprints of the data and of the weights.
        backbone: of `runs.options`.
    """
    asked = changed(stream.options)
    n_tasks = asked.pop("n_tasks")
    # The default has one key, and the digest stands for what decides the content.
    own_key = {} if n_tasks == stream.n_tasks else {"n_tasks": n_tasks}
    own_key |= {k: v for k, v in asked.items() if k not in stream.content_options}
    backbone_key = changed(backbone) | {"digest": backbone_digest}
    base = {"protocol": PROTOCOL, "seed": seed, "modality": stream.modality}
    key = base | {
        "stream": own_key | {"digest": stream_digest},
        "backbone": backbone_key,
        "method": [row.name, row.method.version, changed(row.config)],
        "train": {"mask": None} | changed(row.train),
    }
    spec = base | {
        "stream": _STREAM | asked | {"n_tasks": n_tasks, "digest": stream_digest},
        "backbone": {"image_size": None} | backbone_key,
        "method": {
            "label": row.label,
            "name": row.name,
            "version": row.method.version,
            "config": dataclasses.asdict(row.config),
        },
        "train": _TRAIN | dataclasses.asdict(row.train) | {"optimizer": "adam"},
    }
    return RunSpec(spec, digest_of(key)[:12], row.method.skip(stream.modality))
