"""HiDe-Prompt: hierarchical decomposition with prompts.

Wang, Xie, Zhang, Huang, Su, Zhu, "Hierarchical Decomposition of Prompt-Based Continual Learning"
(NeurIPS 2023); `common.hide` says what the decomposition is. Stage 0 trains a classifier on the
frozen backbone's feature f,

    g(f) = LayerNorm(f + W_2 GELU(W_1 f)),   logits = W g(f) + b,

W_1 doubling the width; the alignment trains all of it too. Stage 1 trains the task's prompts E_t,
`prompt_length` keys and values in the attention of the first blocks (`common.prefix`), started
from the previous task's, and a second classifier. The prompts that act in training, and are stored
afterwards, are

    (1 - m) E_t + m mean_{i<t} E_i.

At inference the first model's best class names the task j of each image, and E_j gives the logits:
two forward passes.

Released settings: on CIFAR-100 length 5, `contrast` 0.1, m 0.01 (0.1 with iBOT-21K); on ImageNet-R
length 20, 0.5 and 0.01; on CUB length 20, 0.01, 0.01 and `head_rate` 1.

Departures:
1. the run says which logits compete in the loss; the authors let the task's own classes compete
   (`mask: current`);
2. a constant learning rate, and the run's epochs in both stages; the authors' stage 0 has 20
   whatever stage 1 has, and stage 1 a rate that falls by steps after 30 epochs or along a cosine;
3. stage 0 learns at the run's rate times `identity_rate`, 1 by default. The authors' has a rate of
   its own, 0.0005 x 24 / 256 = 4.7e-5, a 60th of their prompts', for the hundreds of steps of a
   task there; in 100 steps it would move a weight by 0.0047. The suite `paper`
   has that rate;
4. `head_rate` is the authors', 0.1, which gives their second classifier 0.00028 (the prompts have
   0.03 x 24 / 256) over the 540 steps of a task of CIFAR-100: up to 0.15 for each weight. In 30
   steps at 0.004 it is 0.012, less than the 0.02 that weights are drawn with: there the alignment
   does the learning, from the second task on, and the first task has none. A short run may set
   `head_rate: 1`, which gave one seed with 30 steps a task 65 % on the first task when it was
   learnt instead of 28 %, and on all in the end 40.2 % instead of 38.0 %;
5. k-means starts once, from k-means++; a class has at most half as many centroids as samples;
6. the released training passes each batch through the first model without using the result, and
   its prompts lose the sample they belong to where they are reshaped; here neither is so;
7. W_1 and W_2 start as PyTorch's linear layers do; the authors' from a normal distribution of 0.02,
   without biases, which lies nearer to f at small widths;
8. the task is that of the best class, as in the released engine. The paper has an output layer over
   tasks;
9. the contrast has the means of clusters of several images, the authors' of single ones too.

Checked against an independent reference over three tasks (`tests/references`); no public code was
run beside it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from baselines.common import checks
from baselines.common.base import new_default, rate_groups, train_head_only
from baselines.common.hide import HiDe, HiDeSettings, TwoPass
from baselines.common.prefix import encode_with_prefixes
from baselines.common.task import Task


class _ResidualMLP(nn.Module):
    """g(f) of the module's docstring."""

    def __init__(self, width: int):
        super().__init__()
        self.widen = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.narrow(nn.functional.gelu(self.widen(x))))


class _Prompted(TwoPass):
    """Prompts of each task (layers, keys and values, length, width)."""

    def __init__(self, backbone: nn.Module, identity: nn.Module, task_of_class, prompts: Tensor):
        super().__init__(backbone, identity, task_of_class)
        self.prompts = nn.ParameterList(part.clone() for part in prompts)
        self.momentum = 0.0  # of the latest task's prompts while they are trained

    def acting(self, task: int) -> Tensor:
        """The prompts of a task as they act."""
        own = self.prompts[task]
        if task != self.task or self.momentum == 0:
            return own
        earlier = torch.stack(list(self.prompts[:task])).mean(dim=0).detach()
        return own.lerp(earlier, self.momentum)

    def uninstructed(self, x: Tensor) -> Tensor:
        if x.dim() == 2:  # features already
            return x
        with torch.no_grad():
            return self.backbone.encode(self.backbone.embed(x))[:, 0]

    def instructed(self, x: Tensor, tasks: Tensor | None = None) -> Tensor:
        if tasks is None:
            prompts = self.acting(self.task).expand(len(x), -1, -1, -1, -1)
        else:
            prompts = torch.stack([self.acting(task) for task in range(self.task + 1)])[tasks]
        prefixes = {i: part.unbind(dim=1) for i, part in enumerate(prompts.unbind(dim=1))}
        return encode_with_prefixes(self.backbone, self.backbone.embed(x), prefixes)[:, 0]


class Features(Dataset):
    """Features (n, width) instead of a data set's images, with its labels (n,)."""

    def __init__(self, x: Tensor, y: Tensor):
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        positions = positions.to(self.y.device)
        return self.x[positions], self.y[positions]


class HiDePrompt(HiDe):
    """A classifier of frozen features infers the task, prompts of that task classify."""

    @dataclass(frozen=True)
    class Config(HiDeSettings):
        """Settings of the prompts and of the decomposition, see `common.hide.HiDeSettings`.

        Attributes:
            prompt_length: keys, and as many values, of a block.
            layers: how many blocks have prompts, from the first; all where there are fewer.
            head_rate: factor of the second classifier's learning rate; see departure 4.
            identity_rate: factor of the learning rate of stage 0; see departure 3.
            identity_alignment_rate, identity_alignment_samples: of stage 0's alignment, as released
                for batches of 24.
            cache_features: compute the frozen features of stage 0 once for each training image
                instead of once in each epoch, where images are not augmented and the precision is
                float32. The record has whether it was done.
        """

        contrast: float = new_default(0.1)
        prompt_length: int = 5
        layers: int = 5
        head_rate: float = 0.1
        identity_rate: float = 1.0
        identity_alignment_rate: float = 0.005 * 24 / 256
        identity_alignment_samples: int = 24
        cache_features: bool = True

        def __post_init__(self):
            super().__post_init__()
            checks.at_least_1(self, "prompt_length", "layers", "identity_alignment_samples")
            checks.not_negative(self, "head_rate", "identity_rate", "identity_alignment_rate")

    @classmethod
    def passes(cls, config, task: int, n: int, epochs: int, batch_size: int) -> tuple:
        """Stage 0 trains on features: one forward pass if they are kept, else one an epoch and one
        for the statistics."""
        first = 1 if config.cache_features else epochs + 1
        return (first + epochs + 1) * n, epochs * n

    def adapt(self, backbone: nn.Module) -> nn.Module:
        train_head_only(backbone)
        n_layers = min(self.config.layers, len(backbone.network.blocks))
        shape = (n_layers, 2, self.config.prompt_length, backbone.width)
        prompts = torch.empty(self.setting.n_tasks, *shape).uniform_(-1, 1)
        linear = self.new_head(backbone)
        identity = nn.Sequential(_ResidualMLP(backbone.width), linear)
        return _Prompted(backbone, identity, self.setting.task_of_class.clone(), prompts)

    def select(self) -> None:
        super().select()
        for task, prompts in enumerate(self.model.prompts):
            prompts.requires_grad_(self.model.stage == 1 and task == self.model.task)

    def optimizer(self, parameters: list) -> torch.optim.Optimizer:
        rate = self.setting.learning_rate
        if self.model.stage == 0:
            return torch.optim.Adam(parameters, lr=self.config.identity_rate * rate)
        head = self.model.backbone.head.parameters()
        return torch.optim.Adam(rate_groups(parameters, rate, head, self.config.head_rate * rate))

    def _caches(self) -> bool:
        augmented = getattr(self.setting, "augment", None)
        exact = self.setting.precision == "float32"
        return self.config.cache_features and exact and not augmented

    def stage_task(self, task: Task) -> Task:
        if self.model.stage == 1 or not self._caches():
            return task
        return dataclasses.replace(task, train=Features(*self.read(task, self.model.uninstructed)))

    def alignment(self) -> HiDeSettings:
        if self.model.stage == 1:
            return self.config
        return dataclasses.replace(
            self.config,
            alignment_rate=self.config.identity_alignment_rate,
            alignment_samples=self.config.identity_alignment_samples,
        )

    @torch.no_grad()
    def continue_previous(self) -> None:
        self.model.prompts[self.model.task].copy_(self.model.prompts[self.model.task - 1])
        self.model.momentum = self.config.momentum

    @torch.no_grad()
    def mix(self) -> None:
        task = self.model.task
        self.model.prompts[task].copy_(self.model.acting(task))
        self.model.momentum = 0.0

    def diagnostics(self) -> dict:
        """With whether stage 0 learnt from features that were computed once."""
        return super().diagnostics() | {"cached_features": self._caches()}
