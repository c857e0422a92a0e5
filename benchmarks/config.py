"""Suites: one complete YAML document says what to run; unknown keys and bad values are refused.

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
import types
import typing
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from benchmarks import backbones, causal_lms, streams
from benchmarks.files import DataError, digest_of
from benchmarks.text import BOUNDARIES, TRUNCATIONS

SUITES = Path(__file__).parent / "suites"
PROTOCOL = 2  # raise it when the loop, the evaluation or the data splits change any number

TEST_BATCH_SIZE = 128  # where a suite says none

# Of StreamOptions: what a stream's content depends on.
CONTENT_OPTIONS = ("path", "test_fraction", "tasks", "size", "scoring", "keep_leaks")
# How text is read and written; a spec has only those that are not at their default.
TEXT_OPTIONS = {
    *("max_answer_tokens", "truncation", "boundary", "chat_template"),
    *("decoding", "max_new_tokens"),
}
_CHOICES = {
    "order": ("seed", "fixed"),
    "truncation": TRUNCATIONS,
    "boundary": BOUNDARIES,
    "decoding": ("greedy", "released"),
}


@dataclass(frozen=True)
class StreamOptions:
    """The task stream of an experiment.

    Attributes:
        name: a module of `benchmarks/streams`.
        order: "seed" draws the order of tasks (or of classes, where tasks are splits of one
            dataset) from the run's seed, the same for all methods; "fixed" keeps the stream's own.
        n_tasks: how many tasks to learn; None for all the stream has.
        train_per_class, test_per_class: the first so many images of each class; None for all.
        train_per_task, test_per_task: the first so many items of each text task; None for all.
        max_prompt_tokens, max_answer_tokens, truncation, boundary, chat_template: how text becomes
            token ids, see `text.encode`.
        decoding: how answers are generated, "greedy" or "released", see `models.LanguageModel`.
        max_new_tokens: of a generated answer; None for as many as the longest answer of the task
            has. Metrics that look at the first token or line stop earlier, see `scores`.
        path, test_fraction: of the stream `folder`, see there; the digest of the content stands
            for them and for those below in the key, so that a folder may be moved.
        tasks: of the stream `text`, see there: each task's metric, in the order of the stream.
        size: of a language benchmark, the items of a task for training: 500, the default, or 5000.
        scoring: of a language benchmark, "released" for the metrics of the paper's code.
        keep_leaks: of text, whether training items whose prompt is in the test set stay.
    """

    name: str
    order: str = "seed"
    n_tasks: int | None = None
    train_per_class: int | None = None
    test_per_class: int | None = None
    train_per_task: int | None = None
    test_per_task: int | None = None
    max_prompt_tokens: int = 128
    max_answer_tokens: int | None = None
    truncation: str = "middle"
    boundary: str = "exact"
    chat_template: bool = False
    decoding: str = "greedy"
    max_new_tokens: int | None = None
    path: str | None = None
    test_fraction: float | None = None
    tasks: dict[str, str] | None = None
    size: int | None = None
    scoring: str | None = None
    keep_leaks: bool | None = None

    def __post_init__(self):
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                value = getattr(self, name)
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
        limits = ("train_per_class", "test_per_class", "train_per_task", "test_per_task")
        for name in (*limits, "max_answer_tokens", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}")
        if self.size not in (None, 500, 5000):
            raise ValueError(f"size must be 500 or 5000, but is {self.size}")
        if self.scoring not in (None, "released"):
            raise ValueError(f"scoring must be released or left out, not {self.scoring!r}")
        if self.max_prompt_tokens < 4:
            raise ValueError(
                f"max_prompt_tokens must be at least 4, but is {self.max_prompt_tokens}"
            )


@dataclass(frozen=True)
class BackboneOptions:
    """The backbone of an experiment.

    Attributes:
        image_size: in pixels, None for its own.
        normalisation: of pixels, a name of `backbones.NORMALISATIONS`, None for its own.
        weights: "bfloat16" keeps the frozen weights of a language model in half the memory; None
            for float32. Adapters and what else is trained stay in float32.
    """

    name: str
    image_size: int | None = None
    normalisation: str | None = None
    weights: str | None = None

    def __post_init__(self):
        known = backbones.NORMALISATIONS
        if self.normalisation is not None and self.normalisation not in known:
            raise ValueError(
                f"normalisation must be one of {', '.join(known)}, not {self.normalisation!r}"
            )
        if self.weights not in (None, "bfloat16"):
            raise ValueError(f"weights must be bfloat16 or left out, not {self.weights!r}")


@dataclass(frozen=True)
class TrainOptions:
    """Training settings shared by all methods of an experiment; see `baselines.base.Setting`.

    Attributes:
        checkpointing: keep only the inputs of a language model's blocks for the backward pass: a
            third more time, and much less memory.
        curve_tests: how often the task being learnt is tested meanwhile; changes no other number.
        test_batch_size: items tested at a time, None for 128; changes memory and no score.
    """

    epochs: int | list[int]
    batch_size: int = 32
    learning_rate: float = 0.005
    clip_norm: float | None = 1.0
    optimizer_reset: bool = True
    mask: str | None = None
    head_init: str | None = None
    precision: str = "float32"
    micro_batch_size: int | None = None
    compile: bool = False
    augment: str | None = None
    checkpointing: bool = False
    curve_tests: int = 0
    test_batch_size: int | None = None

    def __post_init__(self):
        if self.curve_tests < 0:
            raise ValueError(f"curve_tests must not be negative, but is {self.curve_tests}")
        epochs = self.epochs if isinstance(self.epochs, list) else [self.epochs]
        if min(epochs, default=0) < 1:
            raise ValueError(f"epochs must be at least 1, but is {self.epochs}")
        for name in ("batch_size", "test_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, but is {self.learning_rate}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be float32 or bfloat16, not {self.precision!r}")
        if self.micro_batch_size is not None and not 1 <= self.micro_batch_size <= self.batch_size:
            raise ValueError(
                f"micro_batch_size must lie between 1 and batch_size, {self.batch_size}, "
                f"but is {self.micro_batch_size}"
            )
        if self.head_init not in (None, "linear", "zero"):
            raise ValueError(f"head_init must be linear, zero or left out, not {self.head_init!r}")
        if self.augment not in (None, "crop_flip"):
            raise ValueError(f"augment must be crop_flip or left out, not {self.augment!r}")


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
class Suite:
    """A validated suite."""

    name: str
    label: str
    threads: int
    runs: list[RunSpec] = field(repr=False)


def load_suite(name: str, data_dir: Path | None = None) -> Suite:
    """Read and check a suite by name or path, and resolve all its runs.

    Raises:
        DataError: one sentence that says where, what was expected, found, and what to do.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = SUITES / f"{name}.yaml"
        if not path.exists():
            known = sorted(p.stem for p in SUITES.glob("*.yaml"))
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise DataError(f"no suite is called {name!r} and no such .yaml file exists: {hint}")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"the suite file {path} does not exist: check the path") from error
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    where = path.name
    allowed = {"label", "seeds", "threads", "experiments"}
    _check_keys(document, allowed, {"label", "seeds", "experiments"}, where)
    seeds = document["seeds"]
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int for s in seeds):
        raise DataError(f"{where}: seeds must be a list of integers, but is {seeds!r}")
    if len(set(seeds)) < len(seeds):
        raise DataError(f"{where}: seeds must differ, but are {seeds}")
    runs = []
    for i, experiment in enumerate(document["experiments"]):
        runs += _resolve(experiment, seeds, f"{where}, experiment {i + 1}", data_dir)
    names = Counter(
        (
            *(streams.place(r.spec["stream"]), r.spec["backbone"]["name"]),
            *(r.spec["method"]["label"], r.spec["seed"]),
        )
        for r in runs
    )
    doubled = [name for name, n in names.items() if n > 1]
    if doubled:
        stream, _, label, _ = min(doubled)
        raise DataError(f"{where}: {label} stands twice on stream {stream}; give one another name")
    return Suite(path.stem, str(document["label"]), _threads(document, where), runs)


def _threads(document: dict, where: str) -> int:
    threads = document.get("threads", 1)
    if type(threads) is not int or threads < 1:
        raise DataError(f"{where}: threads must be a positive integer, but is {threads!r}")
    return threads


def _resolve(experiment: Any, seeds: list, where: str, data_dir: Path | None) -> list[RunSpec]:
    import baselines

    parts = {"stream", "backbone", "train", "methods"}
    _check_keys(experiment, parts, parts, where)
    stream, own_options = stream_options(experiment["stream"], f"{where}, stream")
    backbone = from_mapping(BackboneOptions, experiment["backbone"], f"{where}, backbone")
    module = streams.load(stream.name)
    try:
        network = backbones.find(backbone.name)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    modality = module.MODALITY
    if network.modality != modality:
        raise DataError(
            f"{where}: stream {stream.name} is {modality}, "
            f"but backbone {backbone.name} is {network.modality}"
        )
    if modality == "language" and backbone.normalisation is not None:
        raise DataError(f"{where}: normalisation is of pixels; leave it out on language")
    if modality == "vision" and backbone.weights is not None:
        raise DataError(f"{where}: weights is of language models; leave it out on vision")
    if modality == "language":
        new = stream.max_new_tokens or stream.max_answer_tokens or 1
        try:
            causal_lms.check_context(
                backbone.name,
                causal_lms.architecture(network).get("max_position_embeddings"),
                stream.max_prompt_tokens + new,
            )
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
    try:
        counted = getattr(module, "n_tasks", None)
        own_tasks = counted(**own_options) if counted else module.N_TASKS
        digest = module.fingerprint(data_dir, **own_options)
        counted = getattr(module, "n_classes", None)
        whole = counted(**own_options) if counted else getattr(module, "N_CLASSES", None)
    except DataError as error:
        raise DataError(f"{where}, stream: {error}") from error
    n_tasks = stream.n_tasks or own_tasks
    if n_tasks is None:
        raise DataError(f"{where}, stream: n_tasks is missing: say how many {stream.name} has")
    if (whole and (n_tasks < 1 or whole % n_tasks)) or (not whole and n_tasks > own_tasks):
        limit = f"divide its {whole} classes" if whole else f"be at most {own_tasks}"
        raise DataError(f"{where}: n_tasks of {stream.name} must {limit}, but is {n_tasks}")
    own_n_tasks = None if n_tasks == own_tasks else n_tasks
    stream = dataclasses.replace(stream, n_tasks=own_n_tasks)  # the default has one key
    stream_key = _without_defaults(stream) | {"digest": digest}
    for option in CONTENT_OPTIONS:
        stream_key.pop(option, None)  # the digest stands for it
    backbone_key = _without_defaults(backbone) | {
        "digest": backbones.fingerprint(backbone.name, data_dir)
    }
    if not isinstance(experiment["methods"], dict) or not experiment["methods"]:
        raise DataError(f"{where}: methods must map at least one method's name to its settings")
    shared = {f.name for f in dataclasses.fields(TrainOptions)}
    runs = []
    for label, own in experiment["methods"].items():
        place = f"{where}, method {label}"
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", str(label)):
            raise DataError(
                f"{place}: a name has lower-case letters, digits, hyphens and dots only"
            )
        own = dict(own or {})
        name = own.pop("method", label)
        try:
            method = baselines.load(name, modality)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from error
        own = _preset(method.presets, own, place) | own
        settings = {k: v for k, v in own.items() if k not in shared}
        overrides = {k: v for k, v in own.items() if k in shared}
        _check_keys(own, shared | {f.name for f in dataclasses.fields(method.Config)}, set(), place)
        config = from_mapping(method.Config, settings, place)
        train = from_mapping(TrainOptions, experiment["train"] | overrides, f"{place}, train")
        if modality == "language" and train.augment is not None:
            raise DataError(f"{place}: augment is for images; leave it out on language")
        if modality == "language" and train.head_init is not None:
            raise DataError(f"{place}: head_init is of classifiers; leave it out on language")
        if modality == "vision" and train.checkpointing:
            raise DataError(f"{place}: checkpointing is of language models; leave it out on vision")
        mask = _mask(train.mask, modality, place)
        if method.offline and mask is not None:
            mask = "all"  # all classes are there from the start
        train = dataclasses.replace(train, mask=mask)
        epochs = train.epochs if isinstance(train.epochs, list) else [train.epochs] * n_tasks
        if len(epochs) != n_tasks:
            raise DataError(
                f"{place}: epochs must be one number or {n_tasks} of them, one per task, "
                f"but the list has {len(epochs)}"
            )
        try:
            config.check(network.adapted_matrices)
        except ValueError as error:
            raise DataError(f"{place}: {error}") from error
        for seed in seeds:
            base = {"protocol": PROTOCOL, "seed": seed, "modality": modality}
            key = base | {
                "stream": stream_key,
                "backbone": backbone_key,
                "method": [name, method.version, _without_defaults(config)],
                "train": _without_defaults(train) | {"epochs": epochs, "mask": train.mask},
            }
            left_out = {*CONTENT_OPTIONS, *(TEXT_OPTIONS - stream_key.keys())}
            asked = {k: v for k, v in _as_dict(stream).items() if k not in left_out}
            spec = base | {
                "stream": asked | own_options | {"n_tasks": n_tasks, "digest": digest},
                "backbone": {"image_size": None} | backbone_key,
                "method": {
                    "label": label,
                    "name": name,
                    "version": method.version,
                    "config": _as_dict(config),
                },
                "train": _as_dict(train) | {"epochs": epochs, "optimizer": "adam"},
            }
            runs.append(RunSpec(spec, digest_of(key)[:12], method.skip(modality)))
    return runs


def stream_options(mapping: Any, where: str) -> tuple[StreamOptions, dict]:
    """A stream's options, and those of them that its content depends on.

    Raises:
        DataError: there is no such stream or option, or the option is another stream's.
    """
    options = from_mapping(StreamOptions, mapping, where)
    try:
        own = streams.own_options(_as_dict(options))
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    for name in CONTENT_OPTIONS:
        if name not in own and getattr(options, name) is not None:
            raise DataError(f"{where}: {name} is no option of {options.name}: leave it out")
    return options, own


def _preset(presets: Mapping, own: dict, where: str) -> dict:
    """Takes `preset` out of a method's own settings and returns what it stands for."""
    if "preset" not in own:
        return {}
    name = own.pop("preset")
    if name not in presets:
        known = f"one of {', '.join(presets)}" if presets else "left out, as there are none"
        raise DataError(f"{where}: preset must be {known}, but is {name!r}")
    return dict(presets[name])


def _mask(mask: str | None, modality: str, where: str) -> str | None:
    from baselines.base import MASKS

    if modality == "language":
        if mask is not None:
            raise DataError(f"{where}: mask is for class logits; leave it out on language")
        return None
    if mask not in MASKS:
        raise DataError(f"{where}: mask must be one of {', '.join(MASKS)}, but is {mask!r}")
    return mask


def from_mapping(cls: type, mapping: Any, where: str) -> Any:
    """A dataclass from a mapping, every key known and every value of the declared type."""
    hints = typing.get_type_hints(cls)
    required = {
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    _check_keys(mapping, {f.name for f in dataclasses.fields(cls)}, required, where)
    values = {}
    for key, value in mapping.items():
        try:
            values[key] = _typed(value, hints[key])
        except TypeError as error:
            raise DataError(f"{where}: {key} must be {error}, but is {value!r}") from error
    try:
        return cls(**values)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _typed(value: Any, hint: Any) -> Any:
    """The value as the annotated type; TypeError names the type if it is not one."""
    if isinstance(hint, types.UnionType):
        for option in typing.get_args(hint):
            try:
                return _typed(value, option)
            except TypeError:
                continue
    elif typing.get_origin(hint) is list:
        if isinstance(value, list):
            return [_typed(item, typing.get_args(hint)[0]) for item in value]
    elif typing.get_origin(hint) is dict:
        if isinstance(value, dict):
            of_key, of_value = typing.get_args(hint)
            return {_typed(k, of_key): _typed(v, of_value) for k, v in value.items()}
    elif hint is float and type(value) in (int, float, str):
        try:
            return float(value)  # YAML reads 1e-3 as text
        except ValueError:
            pass
    elif type(value) is hint or (hint is types.NoneType and value is None):
        return value
    raise TypeError(str(getattr(hint, "__name__", hint)))


def _check_keys(mapping: Any, allowed: set[str], required: set[str], where: str) -> None:
    if not isinstance(mapping, dict):
        raise DataError(f"{where}: a mapping of settings was expected, but found {mapping!r}")
    for key in mapping:
        if key not in allowed:
            near = get_close_matches(str(key), allowed, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(allowed))}"
            raise DataError(f"{where}: {key!r} is no setting here: {hint}")
    missing = sorted(required - mapping.keys())
    if missing:
        raise DataError(f"{where}: {missing[0]} is missing: add it")


def _as_dict(value: Any) -> dict:
    return dataclasses.asdict(value)


def _without_defaults(value: Any) -> dict:
    """The fields that differ from their default."""
    return {
        f.name: getattr(value, f.name)
        for f in dataclasses.fields(value)
        if getattr(value, f.name) != f.default
    }
