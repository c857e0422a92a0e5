"""What a learner is given: a task, the settings of a run, the loss, a classifier's first weights.

Batches are tensors only. Vision: x (B, 3, H, W) in [0, 1], y (B,) global class. Language:
x (B, 2, L) = token ids and a mask (0 padding, 1 prompt, 2 answer), y (B, L) = token ids, -100 on
prompt and padding; sequences are padded on the left. A model maps x to logits: (B, C) on vision; on
language (B, A, V) for the last A tokens, A being the longest answer of the batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

MASKS = ("all", "seen", "current")


@dataclass(frozen=True)
class Task:
    """What a learner may see of a task. It carries no test split, so none can leak.

    Attributes:
        train: samples as tensors.
        examples: (prompt, answer) of each training item as text, on language.
    """

    index: int
    name: str
    train: Dataset
    epochs: int
    examples: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Setting:
    """What all methods of a run share: the training settings, not the method's own.

    Attributes:
        modality: "vision" or "language".
        n_tasks: length of the stream.
        task_of_class: (C,) the task that brings each class; empty on language.
        batch_size: samples per step.
        learning_rate: constant rate of Adam(0.9, 0.999) without weight decay.
        clip_norm: largest gradient norm, None for no clipping.
        optimizer_reset: a fresh optimiser for each task; otherwise the moments of what is still
            trained live on.
        mask: the class logits that compete in the training loss: "all" classes, those "seen" so
            far, or those of the sample's own task ("current"); None on language.
        head_init: how the weights of a new classifier start on vision, see `start_head`.
        loss_mean: what the loss of a batch of texts is the mean over: "samples", each the mean over
            its answer's tokens, or None for all tokens of all answers: long ones weigh more.
        precision: "float32", or "bfloat16" for automatic mixed precision in training.
        micro_batch_size: the batch goes through the network in parts of so many samples, and one
            optimiser step follows with the gradient of the whole batch: the same step but for
            rounding and for what dropout and replay draw. Activations, most of a step's memory, are
            then those of a part; a second copy of the trained parameters' gradients comes on top,
            and what a plugin passes through the network itself (GEM's memory) is not split. A term
            that compares a batch's samples with one another (HiDe's contrast) compares a part's.
            None for the whole batch at once.
        compile: torch.compile of the network in training: once for full batches, once for any size,
            and anew where a method changes the network. Texts differ in length and break the graph
            at their longest answer, so that more is compiled. The time it takes is no part of
            train_seconds and consolidate_seconds; a task's report has it as compile_seconds.
        augment: None, or "crop_flip" for random crops resized to the network's input size and
            flips of the loop's batches (see `common.augment`), drawn from the task's seed. What
            a method reads from the task itself, such as memories and statistics, stays as it is.
        tokenizer: `benchmarks.backbones.tokenizer.Tokenizer` on language.
        seed: seed of the run; each task derives its own from it.
        device: where to train.
    """

    modality: str
    n_tasks: int
    task_of_class: Tensor
    batch_size: int
    learning_rate: float
    clip_norm: float | None = 1.0
    optimizer_reset: bool = True
    mask: str | None = "all"
    head_init: str | None = None
    loss_mean: str | None = None
    precision: str = "float32"
    micro_batch_size: int | None = None
    compile: bool = False
    augment: str | None = None
    tokenizer: Any = None
    seed: int = 0
    device: str = "cpu"


# What a row of a suite says beside a method's own settings, whose names these cannot be.
RESERVED = {field.name for field in dataclasses.fields(Setting)} | {
    *("method", "preset", "grid", "title", "tuned"),
    *("epochs", "evaluate", "curve_tests", "test_batch_size", "checkpointing", "general"),
}


def start_head(head: nn.Linear, init: str | None = None, seed: int = 0) -> nn.Linear:
    """Give a new linear classifier its first weights, in place.

    In short training they move scores by points, and public codes differ.

    Args:
        head: features (B, width) -> logits (B, C).
        init: None for N(0, 0.02^2) and no bias, as in timm and most code of prompts; "linear" for
            U(-1, 1) / sqrt(width), bias too, which is PyTorch's own and so CODA-Prompt's and
            InfLoRA's; "zero" for zeros, as L2P's authors.
        seed: of "linear", which changes no other draw of a run.
    """
    if init is None:
        nn.init.trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        return head
    bound = head.in_features**-0.5 if init == "linear" else 0.0
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return head


class ClassificationLoss:
    """Cross-entropy over the classes that may compete (see `Setting.mask`)."""

    def __init__(self, mask: str, task_of_class: Tensor):
        self._mask = mask
        self._task_of_class = task_of_class
        self.task = 0

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """logits (B, C), y (B,) -> scalar, the mean over the batch."""
        if self._mask != "all":
            self._task_of_class = self._task_of_class.to(y.device)  # copied once
            if self._mask == "seen":
                competes = (self._task_of_class <= self.task).expand_as(logits)
            else:  # from the labels, so that replayed samples compete within their own task
                competes = self._task_of_class[None, :] == self._task_of_class[y][:, None]
            logits = logits.masked_fill(~competes, -torch.inf)
        return F.cross_entropy(logits.float(), y)

    def n_terms(self, y: Tensor) -> Tensor | int:
        """What the loss is a mean over."""
        return len(y)


class TokenLoss:
    """Next-token cross-entropy on the answer tokens, averaged as `Setting.loss_mean` says."""

    task = 0

    def __init__(self, mean: str | None = None):
        self._of_samples = mean == "samples"

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """logits (B, A, V) of the last A tokens, y (B, L) with -100 where nothing is asked."""
        logits, y = logits.flatten(0, 1).float(), y[:, -logits.shape[1] :]
        if not self._of_samples:
            return F.cross_entropy(logits, y.flatten())
        losses = F.cross_entropy(logits, y.flatten(), reduction="none").view_as(y)
        return (losses.sum(dim=1) / (y != -100).sum(dim=1)).mean()

    def n_terms(self, y: Tensor) -> Tensor | int:
        """What the loss is a mean over."""
        return len(y) if self._of_samples else (y != -100).sum()
