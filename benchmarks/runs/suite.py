"""Suites: one complete YAML document says what to run; unknown names and bad values are refused.

A suite lists experiments; each joins a stream, a backbone, training settings shared by all methods
and the methods with what they set themselves:

    label: what the numbers are, printed wherever they appear
    seeds: [0, 1, 2]
    experiments:
      - stream: {name: glyphs, train_per_class: 40}
        backbone: {name: micro-vit}
        train: {epochs: 4, learning_rate: 0.005, mask: all}
        methods:
          seqlora: {}
          l2p: {learning_rate: 0.03, pool_size: 10}     # own settings, or shared ones overridden
          treelora-strong: {method: treelora, strength: 1.0}
          treelora-released: {method: treelora, preset: released}
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

import baselines
from analysis.text import quoted, suggest
from baselines.common.base import Method
from benchmarks import backbones, streams
from benchmarks.common.errors import DataError
from benchmarks.common.options import at, check_names, field_names, parse
from benchmarks.runs import suite_text
from benchmarks.runs.options import BACKBONE, TRAINING
from benchmarks.runs.spec import Row, RunSpec, Setup, resolve
from benchmarks.streams import Stream

SUITES = Path(__file__).parents[1] / "suites"


@dataclass(frozen=True)
class Suite:
    """A validated suite."""

    name: str
    label: str
    threads: int
    runs: list[RunSpec] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class _Document:
    """A suite file. Seeds end where those of scikit-learn's generators do."""

    label: Annotated[str, Field(max_length=500)]
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)]
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    experiments: Annotated[list[dict[str, Any]], Field(min_length=1)]

    def __post_init__(self):
        if not self.label.strip():
            raise ValueError("label is empty: say what the numbers are")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, but are {quoted(self.seeds)}")


@dataclass(frozen=True, kw_only=True)
class _Experiment:
    """An item of a suite's list; its parts are checked once it is known what they are of."""

    stream: dict[str, Any]
    backbone: dict[str, Any]
    train: dict[str, Any]
    methods: Annotated[dict[str, dict[str, Any] | None], Field(min_length=1)]


def find(name: str) -> Path:
    """The file of a suite, by name or path; DataError if none has that name."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = SUITES / f"{name}.yaml"
        if not path.exists():
            known = sorted(p.stem for p in SUITES.glob("*.yaml"))
            raise DataError(
                f"no suite is called {quoted(name)} and no such .yaml file exists: "
                f"{suggest(name, known)}"
            )
    return path


def load_suite(name: str, data_dir: Path | None = None) -> Suite:
    """Read and check a suite by name or path, and resolve all its runs.

    Raises:
        DataError: one sentence that says where, what was expected, found, and what to do.
    """
    path = find(name)
    content = suite_text.read(path)
    with at(path.name):
        _check_name(path.stem)
        document = parse(_Document, content)
        runs = []
        for i, experiment in enumerate(document.experiments):
            with at(f"experiment {i + 1}"):
                runs += _runs(parse(_Experiment, experiment), document.seeds, data_dir)
        _check_unique(runs)
    return Suite(path.stem, document.label, document.threads, runs)


def _check_name(name: str) -> None:
    """A suite's name becomes that of a folder, and a word of Snakemake's, which knows patterns."""
    harmless = all(
        c in "._+-(),'" or unicodedata.category(c)[0] in "LMN" or unicodedata.category(c) == "Zs"
        for c in name
    )
    if not harmless or name[:1] in ".-+" or name in ("runs", "specs") or len(name.encode()) > 150:
        raise DataError(
            "results are kept under a suite's name, which can have letters, digits, spaces and "
            ". _ + - ( ) , ' and must not begin with a dot or be runs or specs: rename the file"
        )


def _check_unique(runs: list[RunSpec]) -> None:
    found = set()
    for spec in (run.spec for run in runs):
        stream, label = streams.place(spec["stream"]), spec["method"]["label"]
        name = stream, spec["backbone"]["name"], label, spec["seed"]
        if name in found:
            raise DataError(f"{label} stands twice on stream {stream}: give one another name")
        found.add(name)


def _runs(experiment: _Experiment, seeds: list[int], data_dir: Path | None) -> list[RunSpec]:
    """All runs of an experiment, methods in the order of the suite."""
    with at("stream"):
        stream = streams.make(experiment.stream, data_dir)
        stream_digest = stream.fingerprint()
        n_tasks = _n_tasks(stream)
        _check_limits(stream, n_tasks)
    with at("backbone"):
        backbone, network = _backbone(experiment.backbone, stream)
        backbone_digest = network.fingerprint(data_dir)
    setup = Setup(stream, stream_digest, n_tasks, backbone, backbone_digest)
    rows = []
    for label, own in experiment.methods.items():
        with at(f"method {label[:100]}"):
            row = _row(label, own or {}, experiment.train, stream.modality, n_tasks)
            row.config.check(network.adapted_matrices)
            rows.append(row)
    return [resolve(setup, row, seed) for row in rows for seed in seeds]


def _n_tasks(stream: Stream) -> int:
    """How many tasks are learnt."""
    name, n_tasks = stream.options.name, stream.options.n_tasks or stream.n_tasks
    if n_tasks is None:
        raise DataError(f"n_tasks is missing: say how many {name} has")
    if stream.n_classes and stream.n_classes % n_tasks:
        raise DataError(
            f"n_tasks of {name} must divide its {stream.n_classes} classes, but is {n_tasks}"
        )
    if not stream.n_classes and n_tasks > (stream.n_tasks or n_tasks):
        raise DataError(f"n_tasks of {name} must be at most {stream.n_tasks}, but is {n_tasks}")
    return n_tasks


def _check_limits(stream: Stream, n_tasks: int) -> None:
    """What each class or task is limited to can be had, as far as the whole stream's size says."""
    items = stream.n_items
    if not items or stream.content_options:  # those have what a user brings
        return
    unit, n_units = "task", stream.n_tasks if n_tasks == stream.n_tasks else 1  # they differ
    if stream.modality == "vision":
        unit, n_units = "class", items["classes"]
    for part in ("train", "test"):
        limit = getattr(stream.options, f"{part}_per_{unit}")
        if limit is not None and limit * n_units > items[part]:
            raise DataError(
                f"{part}_per_{unit} asks for {limit} items, but {stream.options.name} has "
                f"{items[part]:,} in all: lower it"
            )


def _parse(classes: dict[str, type], modality: str, mapping: dict) -> Any:
    """The modality's options; a setting of the other modality is said to be one."""
    for other, cls in classes.items():
        for name in mapping:
            if name in field_names(cls) - field_names(classes[modality]):
                raise DataError(f"{name} is a setting of {other}: leave it out on {modality}")
    return parse(classes[modality], mapping)


def _backbone(mapping: dict, stream: Stream) -> tuple[Any, backbones.Backbone]:
    """The backbone's options and what it is, if it fits the stream."""
    options = _parse(BACKBONE, stream.modality, mapping)
    network = backbones.find(options.name)
    if network.modality != stream.modality:
        raise DataError(
            f"stream {stream.options.name} is {stream.modality}, but backbone {options.name} is "
            f"{network.modality}: take one of the stream's"
        )
    if stream.modality == "vision":
        network.check_image_size(options.image_size)
    else:
        asked = stream.options
        new = asked.max_new_tokens or asked.max_answer_tokens or 1
        network.check_context(asked.max_prompt_tokens + new)
    return options, network


def _row(label: str, own: dict, shared: dict, modality: str, n_tasks: int) -> Row:
    """A method with its own settings, and those shared ones that it does not override."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,99}", label):
        raise DataError("a name has lower-case letters, digits, hyphens and dots only, up to 100")
    own = dict(own)
    name = own.pop("method", label)
    if not isinstance(name, str):
        raise DataError(f"method must be a method's name, but is {quoted(name)}")
    if name not in baselines.names():
        raise DataError(f"no method is called {quoted(name)}: {suggest(name, baselines.names())}")
    method = baselines.load(name, modality)
    own = _preset(method, own) | own
    of_train, of_method = field_names(TRAINING[modality]), field_names(method.Config)
    check_names(own, of_train | of_method)
    config = parse(method.Config, {k: v for k, v in own.items() if k in of_method})
    with at("train"):
        overrides = {k: v for k, v in own.items() if k in of_train}
        train = _epochs(_parse(TRAINING, modality, shared | overrides), n_tasks)
    if modality == "vision" and method.offline:
        train = dataclasses.replace(train, mask="all")  # all classes are there from the start
    if getattr(config, "cache_queries", False) and getattr(train, "augment", None):
        raise DataError(
            f"cache_queries needs the same pixels in every epoch, but augment is {train.augment}: "
            "leave one of the two out"
        )
    return Row(label, name, method, config, train)


def _preset(method: type[Method], own: dict) -> dict:
    """Takes `preset` out of a method's own settings and returns what it stands for."""
    if "preset" not in own:
        return {}
    name = own.pop("preset")
    if name not in list(method.presets):
        raise DataError(f"preset {quoted(name)} is not known: {suggest(name, method.presets)}")
    return dict(method.presets[name])


def _epochs(train: Any, n_tasks: int) -> Any:
    """With the epochs of each task."""
    each = train.epochs if isinstance(train.epochs, list) else [train.epochs] * n_tasks
    if len(each) != n_tasks:
        raise DataError(
            f"epochs must be one number or {n_tasks} of them, one per task, but the list has "
            f"{len(each)}"
        )
    return dataclasses.replace(train, epochs=each)
