"""The interface of a continual-learning method, for vision and language alike.

Batches are tensors only. Vision: x (B, 3, H, W) in [0, 1], y (B,) global class. Language:
x (B, 2, L) = token ids and a mask (0 padding, 1 prompt, 2 answer), y (B, L) = token ids, -100 on
prompt and padding; sequences are padded on the left. A model maps x to logits: (B, C) on vision; on
language (B, A, V) for the last A tokens, A being the longest answer of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
        optimizer_reset: a fresh optimiser for each task; otherwise Adam's moments live on.
        mask: the class logits that compete in the training loss: "all" classes, those "seen" so
            far, or those of the sample's own task ("current"); None on language.
        head_init: how the weights of a new classifier start on vision, see `start_head`.
        loss_mean: what the loss of a batch of texts is the mean over: "samples", each the mean over
            its answer's tokens, or None for all tokens of all answers: long ones weigh more.
        precision: "float32", or "bfloat16" for automatic mixed precision in training.
        micro_batch_size: the batch goes through the network in parts of so many samples, and one
            optimiser step follows with the gradient of the whole batch: the same step but for
            rounding and for what dropout draws. Activations, most of a step's memory, are then
            those of a part; a second copy of the trained parameters' gradients comes on top, and
            what a plugin passes through the network itself (GEM's memory) is not split. A term
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


@dataclass(frozen=True)
class Needs:
    """What decides how much memory a run on a language model takes; see `Method.needs`.

    Attributes:
        backbone: a `benchmarks.backbones.language.LanguageModel`, only its shapes.
        n_tasks: length of the stream.
        prompt_tokens, answer_tokens: of a sample, at most.
        samples: that pass through the network at a time, with gradients.
        trained: parameters that a task trains.
        kept_bytes: what the method keeps at the last task beside the network, the trained
            parameters, their gradients and the optimiser's moments.
        made_bytes: what it makes of that in a step's passes or at the task's end.
    """

    backbone: nn.Module
    n_tasks: int
    prompt_tokens: int
    answer_tokens: int
    samples: int
    trained: int = 0
    kept_bytes: int = 0
    made_bytes: int = 0


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


class Method:
    """A continual-learning method; subclass it in a file of its own.

    A subclass overrides what it needs: `Config` and `version`, `adapt` (what is trained),
    `plugins` (Avalanche plugins for the shared loop), `penalty` and `batch_penalty` (added to each
    step's loss), `optimizer`, `begin` and `end` (before and after a task), `state_dict` and
    `load_state_dict` (what the method remembers beyond the trained parameters), `needs` (what that
    takes on a language model), `diagnostics`. A method that does not fit the loop overrides
    `learn`.

    Attributes:
        version: raise it when a default or a numeric detail changes; results are keyed by it.
        offline: the method sees the whole stream as one task.
        stages: how often the loop trains on each task; 0 for a method without gradient steps.
        presets: named bundles of its settings, which a suite asks for as `preset: NAME`.
        model: ready for evaluation; never given a task id.
        image_size: height and width of the network's input in pixels; None on language.
    """

    version = 1
    offline = False
    stages = 1
    presets: Mapping[str, Mapping[str, Any]] = {}

    @dataclass(frozen=True)
    class Config:
        """The method's own settings. Checks its values; a bad one raises ValueError."""

        def check(self, adapted_matrices: int) -> None:
            """Raise ValueError if the settings do not fit that many adapted matrices."""

    def __init__(self, backbone: nn.Module, config: Any, setting: Setting):
        from baselines.common.loop import Loop  # avalanche takes seconds to import

        self.config = config
        self.setting = setting
        self.image_size = getattr(backbone, "image_size", None)
        if setting.head_init:
            start_head(backbone.head, setting.head_init, setting.seed)
        self.model = self.adapt(backbone)
        self.model.to(setting.device)
        self.loop = Loop(method=self)

    @classmethod
    def passes(cls, config: Any, task: int, n: int, epochs: int, batch_size: int) -> tuple:
        """Forward and backward passes of one sample that learning takes, for estimates of time.

        Args:
            config: the method's own settings.
            task: how many tasks were learnt before.
            n: training samples of the task.
            epochs, batch_size: of the training.
        """
        return cls.stages * epochs * n, cls.stages * epochs * n

    @classmethod
    def needs(cls, config: Any, needs: Needs) -> Needs:
        """What the method trains, keeps and passes through a language model, for estimates of
        memory: `needs` with that put right."""
        return needs

    @classmethod
    def skip(cls, modality: str) -> str | None:
        """Why the method cannot run on that modality; None if it can."""
        return None

    def adapt(self, backbone: nn.Module) -> nn.Module:
        """Freeze and extend the backbone; what requires a gradient afterwards is trained."""
        raise NotImplementedError(f"{type(self).__name__} must say in adapt() what is trained")

    def new_head(self, backbone: nn.Module) -> nn.Linear:
        """Another classifier like the backbone's."""
        head = start_head(nn.Linear(backbone.width, backbone.head.out_features))
        if self.setting.head_init:
            start_head(head, self.setting.head_init, self.setting.seed + 1)
        return head

    def plugins(self) -> list:
        """Avalanche plugins that make the method out of the shared loop."""
        return []

    def penalty(self, loss: Tensor) -> Tensor | float:
        """A term added to the loss of the current step, which it may look at; once a step."""
        return 0.0

    def batch_penalty(self) -> Tensor | float:
        """A term added to the loss that is a mean over the samples of the last forward pass."""
        return 0.0

    def optimizer(self, parameters: list) -> torch.optim.Optimizer:
        """The optimiser of a task's trained parameters."""
        return torch.optim.Adam(parameters, lr=self.setting.learning_rate)

    def begin(self, task: Task) -> None:
        """Called before a task's optimiser is made."""

    def end(self, task: Task) -> None:
        """Called when a task is learnt."""

    def learn(self, task: Task, report: Callable[[Tensor, int], None] | None = None) -> dict:
        """Learn one task.

        Args:
            task: the task.
            report: called after each step with its loss and number of samples.

        Returns:
            steps, samples, last_loss, curve, train_seconds (optimisation steps only) and
            consolidate_seconds (everything else), both without compile_seconds, which is there
            where the setting asks to compile.
        """
        return self.loop.learn(task, report)

    def state_dict(self) -> dict:
        """What learning changed, nothing frozen; tensors, numbers, strings, lists and dicts."""
        parameters = {n: p.detach() for n, p in self.model.named_parameters() if p.requires_grad}
        return {"parameters": parameters, "loop": self.loop.state_dict()}

    def load_state_dict(self, state: Mapping) -> None:
        """Restore what `state_dict` returned."""
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in state["parameters"].items():
                own[name].copy_(value)
        self.loop.load_state_dict(state["loop"])

    def diagnostics(self) -> dict:
        """Facts for the record beyond accuracy and time, JSON-ready (a tree, for example)."""
        return {}

    def footprint(self) -> dict:
        """Numbers of parameters trained at present and of values kept from task to task."""
        trainable = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        return {"trainable_parameters": trainable, "stored_values": _numel(self.state_dict())}


def _numel(state: Any) -> int:
    if isinstance(state, Tensor):
        return state.numel()
    if isinstance(state, Mapping):
        return sum(_numel(value) for value in state.values())
    if isinstance(state, list | tuple):
        return sum(_numel(value) for value in state)
    return 0
