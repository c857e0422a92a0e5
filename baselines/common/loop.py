"""The one training loop: Avalanche's supervised template over in-memory tensors."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import Dataset

# Avalanche warns at import about optional packages that are not used here. Half of its import goes
# to packages of two of its metrics, which nothing here needs: empty modules stand in meanwhile.
logging.getLogger("avalanche").setLevel(logging.ERROR)
UNUSED = {"torchmetrics", "torchmetrics.functional", "wandb"} - sys.modules.keys()
for name in UNUSED:
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__getattr__ = lambda _: None

from avalanche.core import SupervisedPlugin  # noqa: E402
from avalanche.training.templates import SupervisedTemplate  # noqa: E402

for name in UNUSED:
    del sys.modules[name]

from baselines.common import compiler  # noqa: E402
from baselines.common.augment import CropFlip  # noqa: E402
from baselines.common.inside import Reader, Writer  # noqa: E402
from baselines.common.task import ClassificationLoss, Setting, Task, TokenLoss  # noqa: E402


class NonFiniteLoss(RuntimeError):
    """The loss became infinite or not a number."""


def _call(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)


class TrainableView(nn.Module):
    """A model in training precision that lists only its trainable parameters.

    Avalanche's EWC and GEM copy or concatenate all of `named_parameters()`, at every step; behind
    this view that is the adapter and not the frozen backbone.
    """

    def __init__(self, model: nn.Module, setting: Setting):
        super().__init__()
        self.model = model
        self._device = torch.device(setting.device).type
        self._mixed = setting.precision == "bfloat16"
        self._call = torch.compile(_call, backend=compiler.BACKEND) if setting.compile else _call
        self._structure = None
        self.refresh()

    def refresh(self) -> None:
        """List anew, after a change of what is trained."""
        parameters = list(super().named_parameters())
        self._trainable = [(n, p) for n, p in parameters if p.requires_grad]
        structure = [(n, p.shape, p.requires_grad) for n, p in parameters]
        if self._call is not _call and structure != self._structure:
            compiler.reset()  # the limit on recompilations is for one network, not for the run
        self._structure = structure

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(self._device, torch.bfloat16, enabled=self._mixed):
            return self._call(self.model, x)

    def named_parameters(self, *args, **kwargs):
        return iter(self._trainable)


class _Around(nn.Module):
    """Calls a function in which `functional_call` may replace the parameters of `module`."""

    def __init__(self, module: nn.Module, function: Callable):
        super().__init__()
        self.module, self.function = module, function

    def forward(self, *args):
        return self.function(*args)


class Batches:
    """Shuffled mini-batches of a dataset that can be indexed with a tensor of positions.

    Attributes:
        order: of the samples in this epoch.
        given: batches of this epoch so far; of a new epoch 0.
    """

    def __init__(self, dataset: Dataset, batch_size: int, generator: torch.Generator):
        self.dataset = dataset
        self.batch_size = batch_size
        self.generator = generator
        self.order: Tensor | None = None
        self.given = 0

    def __len__(self) -> int:
        return math.ceil(len(self.dataset) / self.batch_size)

    def __iter__(self):
        if self.given == 0:
            self.order = torch.randperm(len(self.dataset), generator=self.generator)
        for chosen in self.order.split(self.batch_size)[self.given :]:
            self.given += 1
            x, y = self.dataset.batch(chosen)
            # Avalanche wants a task label, the last; there is none
            yield [x, y, chosen, torch.zeros_like(chosen)]
        self.given = 0


class _NoMetrics(SupervisedPlugin):
    """Stands where Avalanche's evaluation would: evaluation is ours, and not part of TIME."""

    def get_last_metrics(self) -> dict:
        return {}


class _Stopwatch:
    """Seconds since it was made, without those of torch.compile."""

    def __init__(self):
        self.start()

    def start(self, seconds: float = 0.0) -> None:
        self._start = time.perf_counter() - compiler.seconds() - seconds

    @property
    def seconds(self) -> float:
        return time.perf_counter() - compiler.seconds() - self._start


TERMS = ("the loss itself", "batch_loss()", "penalty()", "a gradient or a plugin's term")


class Loop(SupervisedTemplate):
    """Avalanche's strategy for one `Method`: its plugins, its terms, timing and progress.

    Attributes:
        passing: (B,) where the samples that pass through the network lie in the task's training
            set; None in a pass of the method's own.
        resume: what `snapshot` returned, and what was given to it: the next `learn` goes on there.
    """

    passing: Tensor | None = None
    resume: tuple[dict, object] | None = None

    def __init__(self, *, method, keeps_parts: bool):
        setting = method.setting
        self.method = method
        self.setting = setting
        criterion = (
            TokenLoss(setting.loss_mean)
            if setting.modality == "language"
            else ClassificationLoss(setting.mask, setting.task_of_class)
        )
        super().__init__(
            model=TrainableView(method.model, setting),
            optimizer=None,
            criterion=criterion,
            train_mb_size=setting.batch_size,
            device=setting.device,
            plugins=method.plugins(),
            evaluator=_NoMetrics(),
        )
        self._crop = None
        self._keeps_parts = keeps_parts
        self._reports: list[dict] = []  # of the stages of the task that is being learnt
        self._task = -1
        if setting.compile:
            compiler.check(setting.device)

    @property
    def mb_positions(self) -> torch.Tensor:
        """Where the samples of the mini-batch lie in the task's training set, (B,)."""
        return self.mbatch[2]

    # What Avalanche's template asks for, on our terms

    def train_dataset_adaptation(self, **kwargs):
        self.adapted_dataset = self.experience.dataset

    def make_train_dataloader(self, **kwargs):
        generator = torch.Generator().manual_seed(torch.initial_seed())
        self.dataloader = Batches(self._placed(), self.train_mb_size, generator)
        if self.setting.augment:
            own = torch.Generator().manual_seed(torch.initial_seed() + 1)  # the order stays
            self._crop = CropFlip(self.method.image_size, own)

    def _placed(self) -> Dataset:
        """The task's samples, on the GPU if they take a twentieth of what is free there at most."""
        data = self.adapted_dataset
        if self.device.type != "cuda" or data.y.is_cuda:
            return data
        free_bytes, _ = torch.cuda.mem_get_info()
        return data.to(self.device) if data.x.nbytes + data.y.nbytes < free_bytes / 20 else data

    def check_model_and_optimizer(self, **kwargs):
        old, trained = self.optimizer, dict(self.model.named_parameters())
        if old is None or self.setting.optimizer_reset:
            self._optimize(trained)
        elif set(map(id, trained.values())) != set(map(id, self._optimized.values())):
            self._optimize(trained)
            for parameter in trained.values():
                if parameter in old.state:
                    self.optimizer.state[parameter] = old.state[parameter]

    def _optimize(self, parameters: dict[str, nn.Parameter]) -> None:
        """Make an optimiser of these parameters."""
        self._optimized = parameters
        self.optimizer = self.method.optimizer(list(parameters.values()))

    def _unpack_minibatch(self):
        self.mbatch = [part.to(self.device, non_blocking=True) for part in self.mbatch]
        self.mbatch[0] = self.augment(self.mbatch[0])

    def forward(self):
        self._parts = []  # that pass through the network, for `after_step`
        size = self.setting.micro_batch_size
        if size is None or len(self.mb_y) <= size:
            self._learnt = None
            return self._pass(self.mb_x, self.mb_positions)
        self._learnt = self._learn_parts(size)
        return None  # no plugin finds the output of one part and takes it for the batch's

    def _pass(self, x: Tensor, positions: Tensor) -> Tensor:
        self.passing = positions
        output = self.model(x)
        self.passing = None
        return output

    def criterion(self):
        if self._learnt is None:
            part = self.mb_x, self.mb_y, self.mb_output, self.mb_positions
            loss, term = self._criterion(self.mb_output, self.mb_y), self._batch_loss(*part)
            carrier = 0.0
        else:
            loss, term, carrier = self._learnt
        penalty = self.method.penalty(loss)
        self._terms.append([loss, term, penalty])
        return loss + (term + carrier) + penalty

    def _batch_loss(self, x: Tensor, y: Tensor, logits: Tensor, positions: Tensor):
        if self._keeps_parts:
            self._parts.append((x, y, logits.detach(), positions))
        return self.method.batch_loss(x, y, logits, positions)

    def _learn_parts(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """The batch's loss, its other terms, and a zero that has the gradient of both.

        Forward and backward passes go part by part and are differentiated by twins of the
        parameters that share their memory. The step's one backward pass then goes through the zero,
        so that hooks of plugins and parameters meet it as that of a batch which was not split.
        """
        twins = {n: nn.Parameter(p.detach()) for n, p in self.model.named_parameters()}
        inside = {f"module.{n}": twin for n, twin in twins.items()}
        learn = _Around(self.model, self._learn_part)
        loss, terms = 0.0, 0.0
        parts = (part.split(size) for part in (self.mb_x, self.mb_y, self.mb_positions))
        for part in zip(*parts, strict=True):
            own, term = functional_call(learn, inside, part, tie_weights=False)
            loss, terms = loss + own, terms + term
        gradients = [(p, twins[n].grad) for n, p in self.model.named_parameters()]
        products = sum((p * g).sum() for p, g in gradients if g is not None)
        return loss, terms, products - products.detach()

    def _learn_part(self, x: Tensor, y: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and term of a part, as they count in the batch's, after their backward pass."""
        n_terms = self._criterion.n_terms
        output = self._pass(x, positions)
        loss = self._criterion(output, y) * (n_terms(y) / n_terms(self.mb_y))
        term = self._batch_loss(x, y, output, positions) * (len(y) / len(self.mb_y))
        (loss + term).backward()
        return loss.detach(), torch.as_tensor(term).detach()

    def optimizer_step(self):
        if self.setting.clip_norm is not None:  # after the plugins' changes of the gradient
            nn.utils.clip_grad_norm_(self.model.parameters(), self.setting.clip_norm)
        self.optimizer.step()

    def training_epoch(self, **kwargs):
        if self.resume:
            self._put_back(*self.resume)
        self._synchronise()
        self._epoch_clock = _Stopwatch()
        super().training_epoch(**kwargs)
        self._synchronise()
        self.train_seconds += self._epoch_clock.seconds
        self._last_loss = self._check_loss()

    def _after_update(self, **kwargs):
        super()._after_update(**kwargs)
        for part in self._parts:
            self.method.after_step(*part)

    def _after_training_iteration(self, **kwargs):
        super()._after_training_iteration(**kwargs)
        terms = (*self._terms[-1], self.loss)
        self._terms[-1] = [t.detach() if isinstance(t, Tensor) else t for t in terms]
        self.steps += 1
        self.samples += len(self.mb_y)
        if self.steps % self._check_every == 0:
            self._check_loss()
        if self._report is not None:
            self._report(self.loss, len(self.mb_y))

    # What the methods ask for

    def augment(self, x: Tensor) -> Tensor:
        """Images as the loop's batches are augmented, for those that a method passes itself."""
        return self._crop(x) if self._crop else x

    def learn(self, task: Task, report=None) -> dict:
        """Train on one task; see `Method.learn`."""
        if task.index != self._task:
            self._task, self._reports = task.index, []
        if self.resume and len(self._reports) < len(self.resume[0]["reports"]):
            self._reports.append(self.resume[0]["reports"][len(self._reports)])
            return self._reports[-1]
        self._clock, before = _Stopwatch(), compiler.seconds()
        self.train_seconds, self.steps, self.samples = 0.0, 0, 0
        steps = math.ceil(len(task.train) / self.train_mb_size) * task.epochs
        self._check_every = max(1, steps // 20)  # not at each step, as that waits for a GPU
        self._report = report
        self.train_epochs = task.epochs - (self.resume[0]["epochs"] if self.resume else 0)
        self._criterion.task = task.index
        self.method.begin(task)
        self.model.refresh()
        experience = SimpleNamespace(
            dataset=task.train,
            current_experience=task.index,
            origin_stream=SimpleNamespace(name="train"),
        )
        self._last_loss, self._terms = None, []
        self.train(experience, eval_streams=[])
        self.method.end(task)
        self.method.ready_to_test()
        self._synchronise()
        work = {
            "steps": self.steps,
            "samples": self.samples,
            "last_loss": self._last_loss,
            "train_seconds": self.train_seconds,
            "consolidate_seconds": self._clock.seconds - self.train_seconds,
        }
        if self.setting.compile:
            work["compile_seconds"] = compiler.seconds() - before
        self._reports.append(work)
        return work

    def snapshot(self, beside: object) -> dict:
        """Where the task stands after a step, the method and all, as values to save.

        Args:
            beside: what else is to be as it is now, see `common.inside`.
        """
        self._synchronise()
        own = self.method.model.named_parameters()
        trained = [p for name, p in own if name in self.method._learnt]
        return {
            "objects": Writer(self, trained=trained, made=self._made)(self._objects(beside)),
            "reports": list(self._reports),
            "epochs": self.clock.train_exp_epochs,
            "steps": self.steps,
            "samples": self.samples,
            "train_seconds": self.train_seconds + self._epoch_clock.seconds,
            "seconds": self._clock.seconds,
            "loss": self.loss.detach(),
            "terms": [[float(term) for term in step] for step in self._terms],
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
        }

    @property
    def _made(self) -> dict[str, type]:
        return {made.__name__: made for made in self.method.made_inside}

    def _objects(self, beside: object) -> dict:
        return {
            "method": self.method,
            "plugins": self.plugins,
            "optimizer": self.optimizer,
            "batches": self.dataloader,
            "crop": self._crop,
            "beside": beside,
        }

    def _put_back(self, saved: dict, beside: object) -> None:
        """Go on from a snapshot; the method has begun the task."""
        self.resume = None
        Reader(self.model, self._made)(self._objects(beside), saved["objects"])
        self.steps, self.samples = saved["steps"], saved["samples"]
        self.train_seconds = saved["train_seconds"]
        self._clock.start(saved["seconds"])
        self.loss, self._terms = saved["loss"], saved["terms"]
        torch.set_rng_state(saved["random"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(saved["random_cuda"])

    def state_dict(self) -> dict:
        """The number of finished tasks and, if it lives on, the optimiser's state."""
        keep = self.optimizer is not None and not self.setting.optimizer_reset
        return {
            "finished_tasks": self.clock.train_exp_counter,
            "optimizer": self.optimizer.state_dict() if keep else None,
            "optimized": list(self._optimized) if keep else [],
        }

    def load_state_dict(self, state: dict) -> None:
        self.clock.train_exp_counter = state["finished_tasks"]
        self.model.refresh()
        if state["optimizer"] is not None:
            parameters = dict(nn.Module.named_parameters(self.model))  # also those frozen now
            self._optimize({n: parameters[n] for n in state["optimized"]})
            self.optimizer.load_state_dict(state["optimizer"])

    def _check_loss(self) -> float:
        """The last step's loss; which term of which step was not finite first, if it is not."""
        loss = self.loss.item()
        if not math.isfinite(loss):
            values = torch.tensor([[float(term) for term in step] for step in self._terms])
            step, term = (~values.isfinite()).nonzero()[0].tolist()
            raise NonFiniteLoss(
                f"the loss became {loss}, first in {TERMS[term]} at step "
                f"{self.steps - len(values) + step + 1} of the task: "
                f"lower learning_rate (now {self.setting.learning_rate}) or set clip_norm"
            )
        self._terms.clear()
        return loss

    def _synchronise(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
