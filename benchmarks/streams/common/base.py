"""What every stream is: its options, what is known of it beforehand, and the data it writes."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from analysis.text import quoted, suggest
from benchmarks.common import bundled
from benchmarks.common.digests import seed_for
from benchmarks.common.errors import DataError
from benchmarks.common.options import MOST, Count, NonEmpty
from benchmarks.streams.common.encoding import BOUNDARIES, TRUNCATIONS

Index = Annotated[int, Field(ge=0, le=MOST)]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a suite says of any stream.

    Attributes:
        name: a stream's, see `streams.names`.
        order: of tasks, or of classes where tasks are splits of one dataset. "seed" draws it from
            the run's seed, the same for all methods; "fixed" keeps the stream's own; a number is
            the seed of one order for all runs, `numpy.random.RandomState(number).permutation(n)`,
            as in the code of iCaRL and of PyCIL, where it is 1993; a list has the names, or the
            positions from 0 on, of those to learn.
        n_tasks: how many tasks to learn; None for all the stream has.
        holdout: so many training images of each class, or items of each task, the last ones, are
            left out of training and tested in place of the test part, so that settings can be
            chosen without it.
    """

    name: str
    order: Literal["seed", "fixed"] | Index | NonEmpty[list[str]] | NonEmpty[list[Index]] = "seed"
    n_tasks: Count | None = None
    holdout: Count | None = None

    def check_holdout(self, limit: str, items: str) -> None:
        """ValueError if a limit of what is tested stands beside a part held out instead of it."""
        if self.holdout is not None and getattr(self, limit) is not None:
            raise ValueError(
                f"holdout, {self.holdout}, is tested in place of the test {items}, so that "
                f"{limit}, {getattr(self, limit)}, limits nothing: leave it out"
            )

    def arranged(self, names: Sequence[str], seed: int) -> list[int]:
        """The positions, in the order to learn them, of a stream's tasks or classes.

        Raises:
            DataError: the list that `order` is has one that is not among the names, or has it
                twice.
        """
        n, order = len(names), self.order
        if order == "fixed":
            return list(range(n))
        if order == "seed":
            return np.random.default_rng(seed_for(seed, "order")).permutation(n).tolist()
        if isinstance(order, int):
            return np.random.RandomState(order).permutation(n).tolist()
        position = {name: i for i, name in enumerate(names)} | {i: i for i in range(n)}
        for i, entry in enumerate(order):
            if entry not in position:
                last = isinstance(entry, int)
                hint = f"the last is {n - 1}" if last else suggest(entry, names)
                raise DataError(
                    f"item {i + 1} of order is {quoted(entry)}, which {self.name} does not have: "
                    f"{hint}"
                )
            if entry in order[:i]:
                raise DataError(f"order has {quoted(entry)} twice: leave one out")
        return [position[entry] for entry in order]


@dataclass(frozen=True, kw_only=True)
class VisionOptions(Options):
    """What a suite says of a stream of images.

    Attributes:
        train_per_class, test_per_class: the first so many images of each class; None for all.
        first_task_classes: of the first of `n_tasks` tasks, the others share the rest equally; None
            for equal tasks.
    """

    train_per_class: Count | None = None
    test_per_class: Count | None = None
    first_task_classes: Count | None = None

    def __post_init__(self):
        self.check_holdout("test_per_class", "images")

    def split(self, n_classes: int, n_tasks: int) -> list[int]:
        """How many classes each task has where the tasks are splits of one dataset.

        Raises:
            DataError: they cannot be shared out like that.
        """
        first = self.first_task_classes
        if first is None:
            if n_classes % n_tasks:
                raise DataError(
                    f"n_tasks of {self.name} must divide its {n_classes} classes, but is {n_tasks}"
                )
            return [n_classes // n_tasks] * n_tasks
        left, n_later = n_classes - first, n_tasks - 1
        if left < 1 or n_later < 1 or left % n_later:
            raise DataError(
                f"first_task_classes must leave classes for every later task of {self.name}, the "
                f"same number for each, but {first} of {n_classes} leave {max(left, 0)} for "
                f"{n_later}: change it or n_tasks"
            )
        return [first] + [left // n_later] * n_later


@dataclass(frozen=True, kw_only=True)
class LanguageOptions(Options):
    """What a suite says of a stream of texts.

    Attributes:
        train_per_task, test_per_task: the first so many items of each task; None for all.
        max_prompt_tokens, max_answer_tokens, truncation, boundary, chat_template: how text becomes
            token ids, see `encoding.encode`.
        decoding: how answers are generated, "greedy" or "released", see `language.LanguageModel`.
        max_new_tokens: of a generated answer; None for as many as the longest answer of the task
            has. Metrics that look at the first token or line stop earlier, see `scores`.
    """

    train_per_task: Count | None = None
    test_per_task: Count | None = None
    max_prompt_tokens: Annotated[Count, Field(ge=4)] = 128
    max_answer_tokens: Count | None = None
    truncation: Literal[TRUNCATIONS] = "middle"
    boundary: Literal[BOUNDARIES] = "exact"
    chat_template: bool = False
    decoding: Literal["greedy", "released"] = "greedy"
    max_new_tokens: Count | None = None

    def __post_init__(self):
        self.check_holdout("test_per_task", "items")
        if self.boundary == "released" and self.max_answer_tokens:
            raise DataError(
                "max_answer_tokens is for boundary: exact, as the released code cuts no answer: "
                "leave one of the two out"
            )

    @property
    def reading(self) -> dict[str, Any]:
        """The arguments of `encoding.encode`."""
        names = ("max_prompt_tokens", "max_answer_tokens", "truncation", "boundary")
        return {name: getattr(self, name) for name in (*names, "chat_template")}


class Stream:
    """A stream of tasks. What it knows of itself costs no download, and next to nothing to ask.

    A subclass, of `VisionStream` or `LanguageStream`, has `fingerprint` and `prepare` and says how
    many tasks it has: `n_tasks`, or `n_classes` where they are splits of one dataset. What else it
    knows lets a suite be checked, and its time be estimated, before anything is prepared.

    Args:
        options: of the class's own `Options`.
        data_dir: searched for data before any download.

    Attributes:
        modality: "vision" or "language".
        Options: what a suite can say of it, see `VisionOptions` and `LanguageOptions`.
        content_options: those of them that the content depends on. In a run's key the digest stands
            for them, so that a folder may be moved; each content is prepared in its own folder.
        n_tasks: of the whole stream, or the default number of tasks where they are splits of one
            dataset; None where a suite has to say it.
        n_classes: of the dataset where tasks are splits of one, else None.
        unit_names: of the classes where tasks are splits of one dataset, else of the tasks; None if
            only the prepared data has them.
        n_items: the whole stream's "train" and "test" items and, on vision, its "classes"; None if
            that is not known.
        n_tokens: of each task, the mean tokens of a training item, of a test prompt and of an
            answer; None if that is not known.
        origin: the module or path of a stream from outside, see `streams.load`.
    """

    modality: ClassVar[Literal["vision", "language"]]
    Options: ClassVar[type[Options]]
    content_options: ClassVar[tuple[str, ...]] = ()
    n_tasks: int | None = None
    n_classes: int | None = None
    unit_names: Sequence[str] | None = None
    n_items: dict[str, int] | None = None
    n_tokens: list[tuple[int, int, int]] | None = None
    origin: str | None = None

    def __init__(self, options: Options, data_dir: Path | None = None):
        self.options, self.data_dir = options, data_dir

    @property
    def content(self) -> dict[str, Any]:
        """The options that are set of those that the content depends on."""
        options = dataclasses.asdict(self.options)
        return {k: options[k] for k in self.content_options if options[k] is not None}

    @property
    def arguments(self) -> list[str]:
        """The stream for the command line of `benchmarks.streams`, which reads it again."""
        texts = (
            f"{name}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in self.content.items()
        )
        return [self.origin or self.options.name, *texts]

    @property
    def bundled(self) -> dict:
        """The manifest of what a bundle has brought of it; empty in any other checkout.

        A stream that knows its classes or tasks from its source alone has them from there, then.
        """
        return bundled.manifest("streams", shlex.join(self.arguments))

    def digest(self) -> str:
        """Hex digest of the content: of its source, or of what a bundle has brought."""
        return self.bundled.get("fingerprint") or self.fingerprint()

    def task_sizes(self) -> list[int]:
        """Of each task to learn how many classes of the dataset it gets, 1 for a task of its own.

        Raises:
            DataError: the stream has not what `n_tasks`, `order` and `first_task_classes` ask for.
        """
        o, n_units = self.options, self.n_classes or self.n_tasks
        if isinstance(o.order, list):
            by_position = n_units and isinstance(o.order[0], int)
            if names := self.unit_names or (by_position and range(n_units)):
                o.arranged(names, 0)
            n_units = len(o.order)
        n_tasks = o.n_tasks or (self.n_tasks if self.n_classes else n_units)
        if n_tasks is None:
            raise DataError(f"n_tasks is missing: say how many {o.name} has")
        if self.n_classes:
            return o.split(n_units, n_tasks)
        if getattr(o, "first_task_classes", None):
            raise DataError(f"first_task_classes: {o.name} has tasks of its own: leave it out")
        if n_tasks > (n_units or n_tasks):
            raise DataError(f"n_tasks of {o.name} must be at most {n_units}, but is {n_tasks}")
        return [1] * n_tasks

    def fingerprint(self) -> str:
        """Hex digest that names the exact content, without preparing it."""
        raise NotImplementedError

    def prepare(self, out: Path) -> dict:
        """Write the data files into the folder `out`, which is there; returns the manifest.

        The files are described in `VisionStream` and `LanguageStream`; the same content must give
        the same bytes. `streams.prepare` adds name, modality and fingerprint. Of the rest these are
        read, others are free:

            source      where the data was found, in words
            n_bytes     of the files
            converted   if there is any: {what was done to images: of how many}
            defects     if there are any: [{"task", "kind", "count", "note"}]
        """
        raise NotImplementedError


class VisionStream(Stream):
    """A stream of images.

    `prepare` writes `data.npz` with four arrays. `train_images` and `test_images` are uint8, grey
    (N, H, W) or RGB (N, H, W, 3); large ones are files `train_images.npy` and `test_images.npy`
    instead, which stay on the disk. `train_labels` and `test_labels` are integers (N,), the
    positions of their classes. Limits take the first images of each class, so that no class may be
    sorted by anything that matters. The manifest has in addition to what every stream's has

        classes   where tasks are splits of one dataset: the names of the classes, by position
        tasks     else: [{"name", "group", "classes": [names]}], classes counted on from task to
                  task; the group of tasks that are alike is a name, "" if nobody planted any
    """

    modality = "vision"
    Options = VisionOptions


class LanguageStream(Stream):
    """A stream of prompts and answers.

    `prepare` writes `data.json`, a list with one object for each task: "name", "group" (of tasks
    that are alike, "" if nobody planted any), "metric" (a key of `text_metrics.METRICS`), "train"
    and "test", lists of {"prompt", "answer"}, and where it is asked for "stop", the text before
    which a model's answer ends. An answer begins where its prompt ends: what lies between them,
    such as a space, belongs to the prompt.
    """

    modality = "language"
    Options = LanguageOptions
