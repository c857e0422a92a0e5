"""What every stream is: its options, what is known of it beforehand, and the data it writes."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from benchmarks.common.options import Count
from benchmarks.streams.common.encoding import BOUNDARIES, TRUNCATIONS


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a suite says of any stream.

    Attributes:
        name: a stream's, see `streams.names`.
        order: "seed" draws the order of tasks (or of classes, where tasks are splits of one
            dataset) from the run's seed, the same for all methods; "fixed" keeps the stream's own.
        n_tasks: how many tasks to learn; None for all the stream has.
    """

    name: str
    order: Literal["seed", "fixed"] = "seed"
    n_tasks: Count | None = None


@dataclass(frozen=True, kw_only=True)
class VisionOptions(Options):
    """What a suite says of a stream of images.

    Attributes:
        train_per_class, test_per_class: the first so many images of each class; None for all.
    """

    train_per_class: Count | None = None
    test_per_class: Count | None = None


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

    @property
    def reading(self) -> dict[str, Any]:
        """The arguments of `encoding.encode`."""
        names = ("max_prompt_tokens", "max_answer_tokens", "truncation", "boundary")
        return {name: getattr(self, name) for name in (*names, "chat_template")}


class Stream:
    """A stream of tasks. What it knows of itself costs no download, and next to nothing to ask.

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
        n_items: the whole stream's "train" and "test" items and, on vision, its "classes"; None if
            that is not known.
        n_tokens: of each task, the mean tokens of a training item, of a test prompt and of an
            answer; None if that is not known.
    """

    modality: ClassVar[Literal["vision", "language"]]
    Options: ClassVar[type[Options]]
    content_options: ClassVar[tuple[str, ...]] = ()
    n_tasks: int | None = None
    n_classes: int | None = None
    n_items: dict[str, int] | None = None
    n_tokens: list[tuple[int, int, int]] | None = None

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
        return [self.options.name, *texts]

    def fingerprint(self) -> str:
        """Hex digest that names the exact content, without preparing it."""
        raise NotImplementedError

    def prepare(self, out: Path) -> dict:
        """Write the data files into the folder `out`, which is there; returns the manifest.

        `streams.prepare` adds name, modality and fingerprint.
        """
        raise NotImplementedError


class VisionStream(Stream):
    """A stream of images."""

    modality = "vision"
    Options = VisionOptions


class LanguageStream(Stream):
    """A stream of prompts and answers."""

    modality = "language"
    Options = LanguageOptions
