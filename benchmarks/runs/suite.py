"""Suites: one complete YAML document says what to run; unknown names and bad values are refused.

A suite lists experiments; each joins a stream, a backbone, training settings shared by all methods
and the methods with what they set themselves:

    label: what the numbers are, printed wherever they appear
    seeds: [0, 1, 2]
    reference: seqlora                  # the row that differences are taken to, treelora otherwise
    keep: [all, adapters]               # beside records: all predictions, an adapter for each task
    experiments:
      - stream: {name: glyphs, train_per_class: 40}
        backbone: {name: micro-vit}
        train: {epochs: 4, learning_rate: 0.005, mask: all}
        methods:
          seqlora: {}
          l2p: {learning_rate: 0.03, pool_size: 10}     # own settings, or shared ones overridden
          treelora-strong: {method: treelora, strength: 1.0}
          treelora-released: {method: treelora, preset: released}
          treelora-tuned: {method: treelora, grid: {learning_rate: [0.001, 0.003], rank: [4, 8]}}
          mine: {method: ../mine/mine.py, title: Mine++}         # a file from outside, or a module
          ewc: {strength: 500.0, tuned: pilot/ewc}               # what trials of a suite chose

A grid is short for the rows of all combinations, here `treelora-tuned-learning-rate-0.001-rank-4`
and three more. `tuned` says that the trials of a suite, by a grid of that name, chose the settings;
tables list these rows. A path is relative to the suite's file, and `name` of a stream can be one,
too.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

import baselines
from analysis.text import quoted, suggest, visible
from benchmarks import backbones, streams
from benchmarks.common.errors import DataError
from benchmarks.common.files import expanded
from benchmarks.common.options import NonEmpty, at, check_names, field_names, parse
from benchmarks.runs import general, suite_text
from benchmarks.runs.kept import Keep
from benchmarks.runs.options import BACKBONE, TRAINING
from benchmarks.runs.spec import Row, RunSpec, Setup, resolve
from benchmarks.streams import Stream

SUITES = Path(__file__).parents[1] / "suites"
MOST_ROWS = 1000  # of a grid


@dataclass(frozen=True)
class Suite:
    """A validated suite.

    Attributes:
        reference: the label of the row that differences are taken to, None if the suite names none.
        keep: what its runs keep beside their records, see `runs.kept`.
    """

    file: Path
    label: str
    threads: int
    reference: str | None
    keep: tuple[Keep, ...]
    runs: list[RunSpec] = field(repr=False)

    @property
    def name(self) -> str:
        return self.file.stem


@dataclass(frozen=True, kw_only=True)
class _Document:
    """A suite file. Seeds end where those of scikit-learn's generators do."""

    label: Annotated[str, Field(max_length=500)]
    seeds: NonEmpty[list[Annotated[int, Field(ge=0, lt=2**32)]]]
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    reference: str | None = None
    keep: list[Keep] = field(default_factory=list)
    experiments: NonEmpty[list[dict[str, Any]]]

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
    methods: NonEmpty[dict[str, dict[str, Any] | None]]


@dataclass(frozen=True, kw_only=True)
class _Words:
    """What a row says beside settings; a grid has values of some."""

    method: str | None = None
    preset: str | None = None
    title: Annotated[str, Field(max_length=60)] | None = None
    tuned: Annotated[str, Field(pattern=r"^[^/]+/[^/]+$", max_length=300)] | None = None
    grid: dict[str, NonEmpty[list[Any]]] = field(default_factory=dict)

    def __post_init__(self):
        if self.title is not None:
            if not self.title or visible(self.title).strip() != self.title:
                raise ValueError(f"title must be a line of text, but is {quoted(self.title)}")
            if self.grid:
                raise ValueError("the rows of a grid are told apart by their names: omit title")
        for name, values in self.grid.items():
            if nested := [value for value in values if isinstance(value, (list, dict))]:
                raise ValueError(
                    f"grid, {quoted(name)} takes numbers, texts, true, false and null, but has "
                    f"{quoted(nested[0])}: write a row for it"
                )


WORDS = field_names(_Words)


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
        suite_text.check_name(path.stem)
        document = parse(_Document, content)
        runs = []
        for i, experiment in enumerate(document.experiments):
            with at(f"experiment {i + 1}"):
                parsed = parse(_Experiment, experiment)
                runs += _runs(parsed, document.seeds, path.parent, data_dir)
        _check_unique(runs)
        labels = dict.fromkeys(run.spec["method"]["label"] for run in runs)
        if document.reference not in (None, *labels):
            raise DataError(
                f"reference must be the name of a row, but is {quoted(document.reference)}: "
                f"{suggest(document.reference, labels)}"
            )
    keep = tuple(sorted(set(document.keep)))
    return Suite(path, document.label, document.threads, document.reference, keep, runs)


def _check_unique(runs: list[RunSpec]) -> None:
    """No two rows of one place on disk, and no two files behind one name."""
    found, origins = set(), {}
    for spec in (run.spec for run in runs):
        for what in ("stream", "method"):
            name, origin = spec[what]["name"], spec[what].get("origin")
            if origins.setdefault((what, name), origin) != origin:
                raise DataError(
                    f"{origin} and {origins[what, name]} would both be the {what} {name}: rename "
                    "one of them"
                )
        stream, label = streams.place(spec["stream"]), spec["method"]["label"]
        name = stream, spec["backbone"]["name"], label, spec["seed"]
        if name in found:
            raise DataError(f"{label} stands twice on stream {stream}: give one another name")
        found.add(name)


def _runs(
    experiment: _Experiment, seeds: list[int], folder: Path, data_dir: Path | None
) -> list[RunSpec]:
    """All runs of an experiment, methods in the order of the suite, which lies in the folder."""
    with at("stream"):
        asked = experiment.stream | {"name": _from_here(experiment.stream.get("name"), folder)}
        path = asked.get("path")
        if isinstance(path, str) and Path(path).is_relative_to(Path.cwd()):
            asked["path"] = os.path.relpath(path)  # records are published
        stream = streams.make(asked, data_dir)
        stream_digest = stream.digest()
        n_tasks = len(stream.task_sizes())
        _check_limits(stream, n_tasks)
    with at("backbone"):
        backbone, network = _backbone(experiment.backbone, stream)
        backbone_digest = network.digest(data_dir)
    setup = Setup(stream, stream_digest, n_tasks, backbone, backbone_digest)
    nf4 = getattr(backbone, "weights", None) == "nf4"
    rows = []
    for label, words, own in _written_out(experiment.methods, folder):
        with at(f"method {label[:100]}"):
            row = _row(label, words, own, experiment.train, stream.modality, n_tasks, folder)
            row.config.check(network.adapted_matrices)
            network.check_targets(getattr(row.config, "target_modules", None))
            if nf4 and getattr(row.config, "trained", None) == "all":
                raise DataError(
                    "trained: all trains the weights, and those of weights: nf4 are frozen: leave "
                    "one of the two out"
                )
            rows.append(row)
    return [resolve(setup, row, seed) for row in rows for seed in seeds]


def _from_here(place: Any, folder: Path) -> Any:
    """A path as it is from the current folder, where runs are made; anything else as it is."""
    is_path = isinstance(place, str) and ("/" in place or place.endswith(".py"))
    return os.path.relpath(folder / expanded(place)) if is_path else place


def _check_limits(stream: Stream, n_tasks: int) -> None:
    """What each class or task is limited to can be had, as far as the whole stream's size says."""
    items = stream.n_items
    if not items or stream.content:  # the content is another, or what a user brings
        return
    unit, n_units = "task", stream.n_tasks if n_tasks == stream.n_tasks else 1  # they differ
    if stream.modality == "vision":
        unit, n_units = "class", items["classes"]
    holdout = stream.options.holdout or 0
    for part, left_out in (("train", holdout), ("test", 0)):
        limit = getattr(stream.options, f"{part}_per_{unit}")
        if limit is not None and (limit + left_out) * n_units > items[part]:
            beside = f" beside {left_out} held out" if left_out else ""
            raise DataError(
                f"{part}_per_{unit} asks for {limit} items{beside}, but {stream.options.name} has "
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
        if options.weights == "nf4" and not network.quantisable:
            raise DataError(
                f"weights: nf4 is for language models from outside, but {options.name} is small "
                "and pre-trained here: leave it out"
            )
    return options, network


def _written_out(
    methods: dict[str, dict | None], folder: Path
) -> Iterator[tuple[str, _Words, dict[str, Any]]]:
    """Label, words and settings of each row; for one with a grid of all that it stands for."""
    for label, own in methods.items():
        with at(f"method {label[:100]}"):
            own = dict(own or {})
            words = parse(_Words, {name: own.pop(name) for name in WORDS & own.keys()})
            if both := sorted(words.grid.keys() & own.keys()):
                raise DataError(f"{both[0]} stands beside the grid and in it: leave one out")
            if math.prod(map(len, words.grid.values())) > MOST_ROWS:
                raise DataError(f"grid stands for more than {MOST_ROWS} rows: leave values out")
        words = dataclasses.replace(words, method=_from_here(words.method or label, folder))
        for values in itertools.product(*words.grid.values()):
            settings = dict(zip(words.grid, values, strict=True))
            named = (str(word).lower() for setting in settings.items() for word in setting)
            slugs = (re.sub(r"[^a-z0-9.]+", "-", word).strip("-") for word in named)
            yield "-".join([label, *slugs]), words, own | settings


def _row(
    label: str,
    words: _Words,
    own: dict,
    shared: dict,
    modality: str,
    n_tasks: int,
    folder: Path,
) -> Row:
    """A method with its own settings, and those shared ones that it does not override."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,99}", label):
        raise DataError("a name has lower-case letters, digits, hyphens and dots only, up to 100")
    name, method = baselines.name_of(words.method), baselines.load(words.method, modality)
    of_train, of_method = field_names(TRAINING[modality]), field_names(method.Config)
    if words.preset not in (None, *method.presets):
        hint = suggest(words.preset, method.presets)
        raise DataError(f"preset {quoted(words.preset)} is not known: {hint}")
    own = {**method.presets.get(words.preset, {}), **own}
    check_names(own, of_train | of_method)
    config = parse(method.Config, {k: v for k, v in own.items() if k in of_method})
    with at("train"):
        overrides = {k: v for k, v in own.items() if k in of_train}
        train = _epochs(_parse(TRAINING, modality, shared | overrides), n_tasks)
        general_digest = None
        if place := getattr(train, "general", None):
            train = dataclasses.replace(train, general=general.located(place, folder))
            general_digest = general.digest(train.general)
    if method.offline:
        train = dataclasses.replace(train, evaluate=None)  # it has a last row only
        if modality == "vision":
            train = dataclasses.replace(train, mask="all")  # all classes are there from the start
    if modality == "language" and getattr(config, "align", False):
        raise DataError("align trains a classifier of classes, and text has none: leave it out")
    if getattr(config, "cache_queries", False) and getattr(train, "augment", None):
        raise DataError(
            f"cache_queries needs the same pixels in every epoch, but augment is {train.augment}: "
            "leave one of the two out"
        )
    if words.tuned:
        _check_tuned(words.tuned, folder)
    title = words.title or (method.title if label == name else None)
    origin = None if name in baselines.names() else words.method
    return Row(label, name, method, config, train, title, origin, general_digest, words.tuned)


def _check_tuned(tuned: str, folder: Path) -> None:
    """The trials that chose a row's settings are rows of a suite, beside this one or one here."""
    suite, row = tuned.split("/")
    beside = folder / f"{suite}.yaml"
    with at("tuned"):
        rows = _labels(beside if beside.is_file() else find(suite))
        if row not in rows:
            raise DataError(f"{quoted(row)} is no row of {suite}: {suggest(row, rows)}")


@functools.cache
def _labels(path: Path) -> list[str]:
    """Of the rows of a suite as they are written."""
    document = parse(_Document, suite_text.read(path))
    return [label for part in document.experiments for label in part.get("methods", ())]


def _epochs(train: Any, n_tasks: int) -> Any:
    """With the epochs of each task."""
    each = train.epochs if isinstance(train.epochs, list) else [train.epochs] * n_tasks
    if len(each) != n_tasks:
        raise DataError(
            f"epochs must be one number or {n_tasks} of them, one per task, but the list has "
            f"{len(each)}"
        )
    return dataclasses.replace(train, epochs=each)
