"""What decides a run's numbers, as its key, and what is asked for, as its record's spec."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from baselines.common.base import Method
from benchmarks.common.digests import digest_of
from benchmarks.common.options import changed
from benchmarks.runs.options import LanguageTraining, VisionTraining
from benchmarks.streams.common.base import Stream

PROTOCOL = 2  # raise it when the loop, the evaluation or the data splits change any number

# What every record says, of either modality; of other options, those not at their default.
_STREAM = {"order": "seed", "max_prompt_tokens": 128} | dict.fromkeys(
    f"{part}_per_{unit}" for part in ("train", "test") for unit in ("class", "task")
)
_TRAIN = {"mask": None} | {
    field.name: field.default
    for cls in (LanguageTraining, VisionTraining)
    for field in dataclasses.fields(cls)
    if field.default is not dataclasses.MISSING
}


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
class Setup:
    """What all methods of an experiment share but for training.

    Attributes:
        n_tasks: that are learnt.
        backbone: of `runs.options`.
        stream_digest, backbone_digest: fingerprints of the data and of the weights.
    """

    stream: Stream
    stream_digest: str
    n_tasks: int
    backbone: Any
    backbone_digest: str


@dataclass(frozen=True)
class Row:
    """A method of an experiment.

    Attributes:
        label: the suite's name for it.
        name: of the method's file.
        config: the method's own settings.
        train: of `runs.options`, with the epochs of each task.
        title: its name in tables, None for the label.
        origin: where the method is from if it is from outside, see `baselines.load`.
        general_digest: of the text that `train.general` names, which stands for it in the key.
        tuned: "SUITE/ROW" of the trials that its settings were chosen by, None if it was not tuned.
    """

    label: str
    name: str
    method: type[Method]
    config: Any
    train: Any
    title: str | None = None
    origin: str | None = None
    general_digest: str | None = None
    tuned: str | None = None


def resolve(setup: Setup, row: Row, seed: int) -> RunSpec:
    """The run of one method with one seed."""
    stream, modality = setup.stream, setup.stream.modality
    asked = changed(stream.options) | {"n_tasks": setup.n_tasks, "digest": setup.stream_digest}
    decided = {k: v for k, v in asked.items() if k not in stream.content_options}  # by the digest
    if setup.n_tasks == stream.n_tasks:
        del decided["n_tasks"]  # the default has one key
    backbone = changed(setup.backbone) | {"digest": setup.backbone_digest}
    base = {"protocol": PROTOCOL, "seed": seed, "modality": modality}
    key = base | {
        "stream": decided,
        "backbone": backbone,
        "method": [row.name, row.method.version, changed(row.config)],
        "train": {"mask": None} | changed(row.train) | _stated(general=row.general_digest),
    }
    spec = base | {
        "stream": _STREAM | asked | _stated(origin=stream.origin),
        "backbone": {"image_size": None} | backbone,
        "method": {
            "label": row.label,
            "name": row.name,
            "version": row.method.version,
            "config": dataclasses.asdict(row.config),
            **_stated(title=row.title, origin=row.origin, tuned=row.tuned),
        },
        "train": _TRAIN | dataclasses.asdict(row.train) | {"optimizer": "adam"},
        **_stated(general_digest=row.general_digest),
    }
    return RunSpec(spec, digest_of(key)[:12], row.method.skip(modality))


def _stated(**values: str | None) -> dict[str, str]:
    """Those that are not None; records are silent about the others."""
    return {name: value for name, value in values.items() if value is not None}
