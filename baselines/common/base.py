"""The interface of a continual-learning method, for vision and language alike.

`common.task` says what batches and tasks look like.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from baselines.common.task import RESERVED, Setting, Task, start_head


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


@dataclass(frozen=True)
class LowRank:
    """Low-rank changes of linear maps of a backbone, each of W to W + scale B A.

    Attributes:
        factors: by name of the map in the backbone, A (r, in) and B (out, r).
        scale: what PEFT calls alpha / r.
    """

    factors: Mapping[str, tuple[Tensor, Tensor]]
    scale: float = 1.0


def _check_names(cls: type) -> None:
    """Raise ValueError if a setting of a method would hide another one of that name."""
    for name in (field.name for field in dataclasses.fields(cls.Config)):
        own, *hidden = (c for c in cls.Config.__mro__ if name in inspect.get_annotations(c))
        if name in RESERVED:
            raise ValueError(
                f"{name} in {own.__qualname__} is a setting that all methods share: rename it"
            )
        for other in hidden:
            if "inherited" not in own.__dataclass_fields__[name].metadata:
                raise ValueError(
                    f"{name} in {own.__qualname__} replaces that of {other.__module__}."
                    f"{other.__qualname__}: rename it, or say new_default(...) if only its default "
                    "differs"
                )
            own = other


class Method:
    """A continual-learning method; subclass it in a file of its own.

    A subclass overrides what it needs: `Config` and `version`, `adapt` (what is trained),
    `plugins` (Avalanche plugins for the shared loop), `batch_loss` and `penalty` (added to each
    step's loss), `after_step`, `optimizer`, `begin` and `end` (before and after a task),
    `ready_to_test`, `state_dict` and `load_state_dict` (what the method remembers beyond the
    trained parameters), `adapter` (what is tested, as one adapter), `needs` (the memory that it all
    takes on a language model), `diagnostics`. A method that does not fit the loop overrides
    `learn`.

    Attributes:
        version: raise it when a default or a numeric detail changes; results are keyed by it.
        offline: the method sees the whole stream as one task.
        stages: how often the loop trains on each task; 0 for a method without gradient steps.
        made_inside: classes of which objects are made within a task, as a tree that a stage has
            grown; all others are there from the task's first step (see `common.inside`).
        reads: how often a task's samples pass through the network beside that, without gradients.
        skips: modalities that it cannot run on -> why, in the words of a report.
        presets: named bundles of its settings, which a suite asks for as `preset: NAME`.
        title: its name in tables and legends, such as "DER++"; None for that of its file.
        small: settings with which the contract tests make it for their tiny networks.
        backbone: as `adapt` left it, with its `head` (on vision) and `width`.
        model: ready for evaluation; never given a task id.
        image_size: height and width of the network's input in pixels; None on language.
    """

    version = 1
    offline = False
    stages = 1
    made_inside: tuple[type, ...] = ()
    reads = 0
    skips: Mapping[str, str] = {}
    presets: Mapping[str, Mapping[str, Any]] = {}
    title: str | None = None
    small: Mapping[str, Any] = {}

    @dataclass(frozen=True)
    class Config:
        """The method's own settings. Checks its values; a bad one raises ValueError.

        A name may not be that of an inherited setting, which it would replace; `new_default` gives
        that another default.
        """

        def check(self, adapted_matrices: int) -> None:
            """Raise ValueError if the settings do not fit that many adapted matrices."""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        _check_names(cls)

    def __init__(self, backbone: nn.Module, config: Any, setting: Setting):
        from baselines.common.loop import Loop  # avalanche takes seconds to import

        self.config = config
        self.setting = setting
        self.image_size = getattr(backbone, "image_size", None)
        if setting.head_init:
            start_head(backbone.head, setting.head_init, setting.seed)
        self.backbone = backbone
        self.model = self.adapt(backbone)
        self.model.to(setting.device)
        self._learnt = {n for n, p in self.model.named_parameters() if p.requires_grad}
        asks = type(self).after_step is not Method.after_step
        self.loop = Loop(method=self, keeps_parts=asks)

    @classmethod
    def passes(cls, config: Any, task: int, n: int, epochs: int, batch_size: int) -> tuple:
        """Forward and backward passes of one sample that learning takes, for estimates of time.

        Args:
            config: the method's own settings.
            task: how many tasks were learnt before.
            n: training samples of the task.
            epochs, batch_size: of the training.
        """
        trained = cls.stages * epochs * n
        return trained + cls.reads * n, trained

    @classmethod
    def needs(cls, config: Any, needs: Needs) -> Needs:
        """What the method trains, keeps and passes through a language model, for estimates of
        memory: `needs` with that put right."""
        return needs

    @classmethod
    def skip(cls, modality: str) -> str | None:
        """Why the method cannot run on that modality; None if it can."""
        return cls.skips.get(modality)

    def adapt(self, backbone: nn.Module) -> nn.Module:
        """Freeze and extend the backbone; what requires a gradient afterwards is trained.

        Whatever a task is to train requires one here, even if `begin` takes it away for a while:
        what does not is taken for frozen, and is no part of the state.
        """
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

    def batch_loss(self, x: Tensor, y: Tensor, logits: Tensor, positions: Tensor) -> Tensor | float:
        """A term added to the loss that is a mean over the samples of a batch.

        Of a batch that is split (`Setting.micro_batch_size`) it is asked for each part, so that a
        term with a pass of its own (replay, distillation) holds no more than a part's activations.
        Such a pass goes through `self.loop.model`, which has the precision of training.

        Args:
            x, y, logits: of the batch or the part, see `common.task`.
            positions: (B,) where the samples lie in the task's training set.
        """
        return 0.0

    def penalty(self, loss: Tensor) -> Tensor | float:
        """A term added to the loss of the current step, which it may look at; once a step."""
        return 0.0

    def after_step(self, x: Tensor, y: Tensor, logits: Tensor, positions: Tensor) -> None:
        """Called after the optimiser's step with what `batch_loss` was given, logits detached."""

    def criterion(self, logits: Tensor, y: Tensor) -> Tensor:
        """The run's loss, with its mask and its mean, for terms on other samples."""
        return self.loop._criterion(logits, y)

    def optimizer(self, parameters: list) -> torch.optim.Optimizer:
        """The optimiser of a task's trained parameters."""
        return torch.optim.Adam(parameters, lr=self.setting.learning_rate)

    def begin(self, task: Task) -> None:
        """Called before a task's optimiser is made."""

    def end(self, task: Task) -> None:
        """Called when a task is learnt."""

    def ready_to_test(self) -> None:
        """Make what tests need and steps do not keep current (prototypes, merged weights).

        Called after `end`, and before tests in the middle of a task, the first of which come before
        `begin`. Draws nothing at random and changes nothing that training goes on from.
        """

    def adapter(self) -> LowRank | None:
        """What is tested after `ready_to_test`, as changes of the backbone beside its classifier.

        None where that is not all there is to it; what is kept of such a method is its state.
        """
        return None

    def batches(
        self, task: Task, size: int | None = None, positions: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """A task's training samples as (x, y, positions) on the run's device, not augmented.

        Args:
            task: whose.
            size: samples at a time, by default the run's batch size.
            positions: (n,) which and in what order; by default all as they lie.
        """
        positions = torch.arange(len(task.train)) if positions is None else positions
        for part in positions.split(size or self.setting.batch_size):
            yield tuple(t.to(self.setting.device) for t in (*task.train.batch(part), part))

    def features(self, x: Tensor) -> Tensor:
        """x -> (B, width), by the model as it is: its parameters, and its mode.

        On vision what the classifier `backbone.head` reads, on language the last hidden state of
        the prompt's last token.
        """
        vision = self.setting.modality == "vision"
        module = self.backbone.head if vision else self.backbone.network.base_model
        passes = []
        hook = module.register_forward_hook(lambda _, *pass_: passes.append(pass_))
        try:
            self.model(x)
        finally:
            hook.remove()
        inputs, output = passes[-1]
        if vision:
            return inputs[0]
        hidden = output.last_hidden_state
        last = hidden.shape[1] - 1 - (x[:, 1] == 2).sum(dim=1)  # prompts may stand before x
        return hidden[torch.arange(len(x), device=x.device), last]

    def learn(self, task: Task, report: Callable[[Tensor, int], None] | None = None) -> dict:
        """Learn one task.

        Args:
            task: the task.
            report: called after each step with its loss and number of samples.

        Returns:
            steps, samples, last_loss, train_seconds (optimisation steps only) and
            consolidate_seconds (everything else), both without compile_seconds, which is there
            where the setting asks to compile.
        """
        return self.loop.learn(task, report)

    def state_dict(self) -> dict:
        """What learning changed, nothing frozen; tensors, numbers, strings, lists and dicts."""
        own = self.model.named_parameters()
        parameters = {n: p.detach() for n, p in own if p.requires_grad or n in self._learnt}
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


class TaskParts(Method):
    """A method of which each task trains parts of its own; those of earlier tasks are frozen.

    `model.parts(task)` lists the parameters of a task's parts, and `model.task` is the task learnt
    last, -1 before the first. A task starts with a fresh optimiser whatever the run's
    `optimizer_reset` says.
    """

    def _select(self, task: int) -> None:
        self.model.task = task
        for i in range(self.setting.n_tasks):
            for parameter in self.model.parts(i):
                parameter.requires_grad_(i == task)
                parameter.grad = None  # frozen parts keep none

    def begin(self, task: Task) -> None:
        self._select(task.index)
        self.loop.optimizer = None  # its moments are the finished task's

    def state_dict(self) -> dict:
        return super().state_dict() | {"task": self.model.task}

    def load_state_dict(self, state: Mapping) -> None:
        if state["task"] >= 0:
            self._select(state["task"])
        super().load_state_dict(state)


def new_default(value: Any) -> Any:
    """Another default for a setting that a `Config` inherits: `rank: int = new_default(10)`."""
    return dataclasses.field(default=value, metadata={"inherited": True})


def train_head_only(backbone: nn.Module) -> None:
    """Freeze a backbone but for its classifier."""
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name.startswith("head."))


def rate_groups(parameters: list, rate: float, apart: Iterable, apart_rate: float) -> list[dict]:
    """Groups for an optimiser in which the parameters `apart` have a learning rate of their own."""
    ids = {id(p) for p in apart}
    return [
        {"params": [p for p in parameters if id(p) not in ids], "lr": rate},
        {"params": [p for p in parameters if id(p) in ids], "lr": apart_rate},
    ]


def _numel(state: Any) -> int:
    if isinstance(state, Tensor):
        return state.numel()
    if isinstance(state, Mapping):
        return sum(_numel(value) for value in state.values())
    if isinstance(state, list | tuple):
        return sum(_numel(value) for value in state)
    return 0
