"""What a suite says of the backbone and of training; a class for each modality has its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from baselines.common.task import MASKS
from benchmarks.backbones import NORMALISATIONS
from benchmarks.common.options import Count, NonEmpty

Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class VisionBackbone:
    """The backbone of an experiment on images.

    Attributes:
        image_size: in pixels, None for its own.
        normalisation: of pixels, a name of `backbones.NORMALISATIONS`, None for its own.
    """

    name: str
    image_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    normalisation: Literal[tuple(NORMALISATIONS)] | None = None


@dataclass(frozen=True, kw_only=True)
class LanguageBackbone:
    """The backbone of an experiment on texts.

    Attributes:
        weights: "bfloat16" keeps the frozen weights of a language model in half the memory, "nf4"
            the matrices of one from outside in an eighth, as QLoRA does; None for float32. Adapters
            and what else is trained stay in float32.
    """

    name: str
    weights: Literal["bfloat16", "nf4"] | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """Training settings shared by all methods of an experiment; see `common.base.Setting`.

    Attributes:
        epochs: of each task, or a list with those of each.
        curve_tests: how often the task being learnt is tested meanwhile; changes no other number.
        test_batch_size: items tested at a time, None for 128; changes memory and no score.
        evaluate: "final" tests each task when it is learnt and all at the end; None tests all tasks
            so far after each, which forgetting from the best score and curves over time need.
    """

    epochs: Count | NonEmpty[list[Count]]
    batch_size: Count = 32
    learning_rate: Positive = 0.005
    clip_norm: Positive | None = 1.0
    optimizer_reset: bool = True
    precision: Literal["float32", "bfloat16"] = "float32"
    micro_batch_size: Count | None = None
    compile: bool = False
    curve_tests: Annotated[int, Field(ge=0)] = 0
    test_batch_size: Count | None = None
    evaluate: Literal["final"] | None = None

    def __post_init__(self):
        if (self.micro_batch_size or 1) > self.batch_size:
            raise ValueError(
                f"micro_batch_size must lie between 1 and batch_size, {self.batch_size}, "
                f"but is {self.micro_batch_size}"
            )


@dataclass(frozen=True, kw_only=True)
class VisionTraining(Training):
    """What concerns classifiers of images, see `common.base.Setting`."""

    mask: Literal[MASKS]
    head_init: Literal["linear", "zero"] | None = None
    augment: Literal["crop_flip"] | None = None


@dataclass(frozen=True, kw_only=True)
class LanguageTraining(Training):
    """What concerns language models.

    Attributes:
        loss_mean: see `common.base.Setting`.
        checkpointing: keep only the inputs of a language model's blocks for the backward pass: a
            third more time, and much less memory.
        general: the text on which general ability is measured before and after, "docs" or a file's
            path, see `runs.general`; changes no other number.
    """

    loss_mean: Literal["samples"] | None = None
    checkpointing: bool = False
    general: str | None = None


BACKBONE = {"vision": VisionBackbone, "language": LanguageBackbone}
TRAINING = {"vision": VisionTraining, "language": LanguageTraining}
