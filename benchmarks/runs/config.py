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
import math
import re
import types
import typing
import unicodedata
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from benchmarks import backbones, streams
from benchmarks.backbones import causal_lms
from benchmarks.common.files import DataError, digest_of, quoted
from benchmarks.runs import suite_text
from benchmarks.streams.common.encoding import BOUNDARIES, TRUNCATIONS

SUITES = Path(__file__).parents[1] / "suites"
PROTOCOL = 2  # raise it when the loop, the evaluation or the data splits change any number

TEST_BATCH_SIZE = 128  # where a suite says none
MOST_SEED = 2**32 - 1  # of scikit-learn's generators
MOST = 10**6  # of every other whole number: no machine has room for what a larger one asks for

# Of StreamOptions: what a stream's content depends on.
CONTENT_OPTIONS = ("path", "test_fraction", "tasks", "size", "scoring", "keep_leaks")
# How text is read and written; a spec has only those that are not at their default.
TEXT_OPTIONS = {
    *("max_answer_tokens", "truncation", "boundary", "chat_template"),
    *("decoding", "max_new_tokens"),
}
# What concerns streams of one modality only.
_OF = {
    "vision": ("train_per_class", "test_per_class"),
    "language": ("train_per_task", "test_per_task", "max_prompt_tokens", *sorted(TEXT_OPTIONS)),
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
        for name in (*limits, "n_tasks", "max_answer_tokens", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}")
        if self.size not in (None, 500, 5000):
            raise ValueError(f"size must be 500 or 5000, but is {self.size}")
        if self.test_fraction is not None and not 0 < self.test_fraction < 1:
            raise ValueError(f"test_fraction must be between 0 and 1, but is {self.test_fraction}")
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
        if self.image_size is not None and not 1 <= self.image_size <= 4096:
            raise ValueError(f"image_size must lie between 1 and 4096, but is {self.image_size}")
        known = backbones.NORMALISATIONS
        if self.normalisation is not None and self.normalisation not in known:
            raise ValueError(
                f"normalisation must be one of {', '.join(known)}, not {self.normalisation!r}"
            )
        if self.weights not in (None, "bfloat16"):
            raise ValueError(f"weights must be bfloat16 or left out, not {self.weights!r}")


@dataclass(frozen=True)
class TrainOptions:
    """Training settings shared by all methods of an experiment; see `common.base.Setting`.

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
    loss_mean: str | None = None
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
        if self.loss_mean not in (None, "samples"):
            raise ValueError(f"loss_mean must be samples or left out, not {self.loss_mean!r}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(
                f"clip_norm must be positive, but is {self.clip_norm}: for no clipping set null"
            )
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
    document = suite_text.read(path)
    where = path.name
    _check_name(path.stem, where)
    allowed = {"label", "seeds", "threads", "experiments"}
    _check_keys(document, allowed, {"label", "seeds", "experiments"}, where)
    label, seeds, experiments = (document[key] for key in ("label", "seeds", "experiments"))
    if not isinstance(label, str) or not 0 < len(label.strip()) <= 500:
        raise DataError(
            f"{where}: label must be text, up to 500 characters and in quotes if need be, "
            f"but is {quoted(label)}"
        )
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int for s in seeds):
        raise DataError(f"{where}: seeds must be a list of integers, but is {quoted(seeds)}")
    if not all(0 <= seed <= MOST_SEED for seed in seeds):
        raise DataError(
            f"{where}: seeds must lie between 0 and {MOST_SEED}, but are {quoted(seeds)}"
        )
    if len(set(seeds)) < len(seeds):
        raise DataError(f"{where}: seeds must differ, but are {quoted(seeds)}")
    if not isinstance(experiments, list) or not experiments:
        raise DataError(
            f"{where}: experiments must be a list of at least one, but is {quoted(experiments)}"
        )
    runs = []
    for i, experiment in enumerate(experiments):
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
    return Suite(path.stem, label, _threads(document, where), runs)


def _threads(document: dict, where: str) -> int:
    threads = document.get("threads", 1)
    if type(threads) is not int or not 1 <= threads <= 1024:
        raise DataError(f"{where}: threads must be a positive integer, but is {quoted(threads)}")
    return threads


def _check_name(name: str, where: str) -> None:
    """A suite's name becomes that of a folder, and a word of Snakemake's, which knows patterns."""
    harmless = all(
        c in "._+-(),'" or unicodedata.category(c)[0] in "LMN" or unicodedata.category(c) == "Zs"
        for c in name
    )
    if not harmless or name[:1] in ".-+" or name in ("runs", "specs") or len(name.encode()) > 150:
        raise DataError(
            f"{where}: results are kept under a suite's name, which can have letters, digits, "
            f"spaces and . _ + - ( ) , ' and must not begin with a dot or be runs or specs: rename "
            f"the file"
        )


def _resolve(experiment: Any, seeds: list, where: str, data_dir: Path | None) -> list[RunSpec]:
    import baselines

    parts = {"stream", "backbone", "train", "methods"}
    _check_keys(experiment, parts, parts, where)
    if not isinstance(experiment["train"], dict):
        raise DataError(
            f"{where}: train must be a mapping of settings, but is {quoted(experiment['train'])}"
        )
    if not isinstance(experiment["methods"], dict) or not experiment["methods"]:
        raise DataError(f"{where}: methods must map at least one method's name to its settings")
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
    for name in ("normalisation", "image_size") if modality == "language" else ():
        if getattr(backbone, name) is not None:
            raise DataError(f"{where}: {name} is of pixels; leave it out on language")
    _check_size(network, backbone.image_size, where)
    for other, names in _OF.items():
        for name in names if other != modality else ():
            if name in _without_defaults(stream):
                raise DataError(
                    f"{where}, stream: {name} is of {other} streams; leave it out on {modality}"
                )
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
        counted = getattr(module, "n_items", None)
        items = counted(**own_options) if counted else getattr(module, "N_ITEMS", None)
    except DataError as error:
        raise DataError(f"{where}, stream: {error}") from error
    n_tasks = stream.n_tasks or own_tasks
    if n_tasks is None:
        raise DataError(f"{where}, stream: n_tasks is missing: say how many {stream.name} has")
    if (whole and whole % n_tasks) or (not whole and n_tasks > own_tasks):
        limit = f"divide its {whole} classes" if whole else f"be at most {own_tasks}"
        raise DataError(f"{where}: n_tasks of {stream.name} must {limit}, but is {n_tasks}")
    if items and not getattr(module, "OPTIONS", ()):  # others have what a user brings
        whole_stream = modality == "vision" or n_tasks == own_tasks  # tasks differ in size
        units = items["classes"] if modality == "vision" else own_tasks
        _check_limits(stream, items, units if whole_stream else 1, f"{where}, stream")
    own_n_tasks = None if n_tasks == own_tasks else n_tasks
    stream = dataclasses.replace(stream, n_tasks=own_n_tasks)  # the default has one key
    stream_key = _without_defaults(stream) | {"digest": digest}
    for option in CONTENT_OPTIONS:
        stream_key.pop(option, None)  # the digest stands for it
    backbone_key = _without_defaults(backbone) | {
        "digest": backbones.fingerprint(backbone.name, data_dir)
    }
    shared = {f.name for f in dataclasses.fields(TrainOptions)}
    runs = []
    for label, own in experiment["methods"].items():
        place = f"{where}, method {label[:100]}"
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,99}", label):
            raise DataError(
                f"{place}: a name has lower-case letters, digits, hyphens and dots only, up to 100"
            )
        if own is not None and not isinstance(own, dict):
            raise DataError(f"{place}: a mapping of settings was expected, but found {quoted(own)}")
        own = dict(own or {})
        name = own.pop("method", label)
        if not isinstance(name, str):
            raise DataError(f"{place}: method must be a method's name, but is {quoted(name)}")
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
        if modality == "vision" and train.loss_mean is not None:
            raise DataError(f"{place}: loss_mean is of text; leave it out on vision")
        if modality == "vision" and train.checkpointing:
            raise DataError(f"{place}: checkpointing is of language models; leave it out on vision")
        if train.augment is not None and getattr(config, "cache_queries", False):
            raise DataError(
                f"{place}: cache_queries needs the same pixels in every epoch, but augment is "
                f"{train.augment}: leave one of the two out"
            )
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


def _check_size(network: backbones.Backbone, size: int | None, where: str) -> None:
    """An image is cut into whole patches, or its border would be left out without a word."""
    found = re.search(r"_patch(\d+)", network.architecture.get("model_name", ""))
    patch = network.architecture.get("patch_size", int(found[1]) if found else 1)
    if size is not None and size % patch:
        raise DataError(
            f"{where}, backbone: image_size must be a multiple of {patch}, the patch of "
            f"{network.name}, but is {size}"
        )


def _check_limits(stream: StreamOptions, items: Mapping, units: int, where: str) -> None:
    """What each class or task is limited to can be had, as far as the whole stream's size says."""
    for part in ("train", "test"):
        for unit in ("class", "task"):
            limit = getattr(stream, f"{part}_per_{unit}")
            if limit is not None and limit * units > items[part]:
                raise DataError(
                    f"{where}: {part}_per_{unit} asks for {limit} items, but {stream.name} has "
                    f"{items[part]:,} in all: lower it"
                )


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
    if not isinstance(name, str) or name not in presets:
        known = f"one of {', '.join(presets)}" if presets else "left out, as there are none"
        raise DataError(f"{where}: preset must be {known}, but is {quoted(name)}")
    return dict(presets[name])


def _mask(mask: str | None, modality: str, where: str) -> str | None:
    from baselines.common.task import MASKS

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
            raise DataError(f"{where}: {key} must be {error}, but is {quoted(value)}") from error
    try:
        return cls(**values)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _typed(value: Any, hint: Any) -> Any:
    """The value as the annotated type; TypeError says what it must be if it is not.

    A number is finite, and a whole one no larger than `MOST`; a field's own bounds are checked by
    its class.
    """
    if isinstance(hint, types.UnionType):
        reasons = []
        for option in typing.get_args(hint):
            try:
                return _typed(value, option)
            except TypeError as error:
                reasons.append(str(error))
        raise TypeError(" or ".join(reasons))
    elif typing.get_origin(hint) is list:
        with suppress(TypeError):
            if isinstance(value, list):
                return [_typed(item, typing.get_args(hint)[0]) for item in value]
    elif typing.get_origin(hint) is dict:
        with suppress(TypeError):
            if isinstance(value, dict):
                of_key, of_value = typing.get_args(hint)
                return {_typed(k, of_key): _typed(v, of_value) for k, v in value.items()}
    elif hint is float and type(value) in (int, float, str):
        with suppress(ValueError, OverflowError):
            number = float(value)  # YAML reads 1e-3 as text
            if not math.isfinite(number):
                raise TypeError("a finite number")
            return number
    elif hint is int and type(value) is int and abs(value) > MOST:
        raise TypeError(f"at most {MOST:,}")
    elif type(value) is hint or (hint is types.NoneType and value is None):
        return value
    raise TypeError("null" if hint is types.NoneType else getattr(hint, "__name__", str(hint)))


def _check_keys(mapping: Any, allowed: set[str], required: set[str], where: str) -> None:
    if not isinstance(mapping, dict):
        raise DataError(f"{where}: a mapping of settings was expected, but found {quoted(mapping)}")
    for key in mapping:
        if key not in allowed:
            near = get_close_matches(str(key)[:100], allowed, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(allowed))}"
            raise DataError(f"{where}: {quoted(key)} is no setting here: {hint}")
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
