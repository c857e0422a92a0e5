"""Low-rank branches of several tasks side by side, mixed with weights of each row of a batch.

An adapted projection W of a causal language model becomes

    y = W h + alpha / r * sum_i a[b, i] B_i A_i dropout(h)

for row b and the tasks i in use. The weights a are constant over a text: set once, they hold for
all tokens and for all steps of a generation. A_i starts as in LoRA, from U(-1/sqrt(d), 1/sqrt(d))
with d the inputs of W, and B_i from zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.common.base import Needs, TaskParts
from baselines.common.lora import LoraSettings, adapted_matrices, adapter_sizes


class Mixture:
    """What all adapted projections of a network read in a forward pass.

    Attributes:
        tasks: whose branches are in use.
        weights: (B, n) of each row for those n tasks; None for 1 throughout.
    """

    def __init__(self):
        self.off()

    def use(self, tasks: Sequence[int], weights: Tensor | None = None) -> None:
        """Mix the branches of these tasks from now on."""
        self.tasks, self.weights = tuple(tasks), weights

    def off(self) -> None:
        """Leave the frozen network alone from now on."""
        self.use(())


class MixedLinear(nn.Module):
    """A frozen linear map with the branches of all tasks of a stream.

    Branches are in float32 whatever the map's precision; the output has the map's.
    """

    def __init__(self, base: nn.Linear, n_tasks: int, settings: LoraSettings, mixture: Mixture):
        super().__init__()
        self.base = base
        self.mixture = mixture
        self.rank = settings.rank
        self.scale = settings.alpha / settings.rank
        self.dropout = nn.Dropout(settings.dropout)
        options = {"dtype": torch.float32, "device": base.weight.device}
        bound = base.in_features**-0.5
        self.lora_A = nn.ParameterList(
            torch.empty(self.rank, base.in_features, **options).uniform_(-bound, bound)
            for _ in range(n_tasks)
        )
        self.lora_B = nn.ParameterList(
            torch.zeros(base.out_features, self.rank, **options) for _ in range(n_tasks)
        )

    def forward(self, h: Tensor) -> Tensor:
        """h (B, L, in) -> (B, L, out)."""
        y, tasks, weights = self.base(h), self.mixture.tasks, self.mixture.weights
        if not tasks:
            return y
        a = torch.cat([self.lora_A[i] for i in tasks])  # (n * r, in)
        b = torch.cat([self.lora_B[i] for i in tasks], dim=1)  # (out, n * r)
        low = F.linear(self.dropout(h.to(a.dtype)), a)
        if weights is not None:
            parts = low.unflatten(2, (len(tasks), self.rank))
            low = (parts * weights.to(low.dtype)[:, None, :, None]).flatten(2)
        return (y + F.linear(low, b) * self.scale).to(y.dtype)


def add_branches(backbone: nn.Module, settings: LoraSettings, n_tasks: int) -> Mixture:
    """Freeze the backbone and give its matrices branches, all of them trainable and none in use.

    Which of them the settings say, see `lora.adapted_matrices`.
    """
    backbone.requires_grad_(False)
    mixture = Mixture()
    for name, base in adapted_matrices(backbone, settings).items():
        backbone.set_submodule(name, MixedLinear(base, n_tasks, settings, mixture))
    return mixture


class MixedModel(nn.Module):
    """A causal language model whose rows mix the branches of the tasks learnt so far.

    A subclass defines `weigh`.

    Args:
        backbone: a `benchmarks.backbones.language.LanguageModel`.
        settings: of the branches.
        n_tasks: length of the stream.

    Attributes:
        task: the task learnt last, -1 before the first; branches of later ones are out of use.
        inferred: (B,) the task of the largest weight of each row, of the last pass in evaluation.
    """

    def __init__(self, backbone: nn.Module, settings: LoraSettings, n_tasks: int):
        super().__init__()
        self.backbone = backbone
        self.mixture = add_branches(backbone, settings, n_tasks)
        self._mixed = [module for module in backbone.modules() if isinstance(module, MixedLinear)]
        self.task = -1
        self.inferred = None

    def factors(self, task: int) -> list[nn.Parameter]:
        """A and B of a task in all adapted projections."""
        return [part[task] for module in self._mixed for part in (module.lora_A, module.lora_B)]

    def parts(self, task: int) -> list[nn.Parameter]:
        """All parameters that only that task trains."""
        return self.factors(task)

    def weigh(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Embeddings (B, L, width) and mask (B, L) -> weights (B, task + 1) of the tasks learnt.

        Only the prompt may count, so that an answer in training changes nothing.
        """
        raise NotImplementedError

    def mix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Choose the mixture of x (B, 2, L); its embeddings (B, L, width) and mask (B, L)."""
        embedded, mask = self.backbone.embed(x[:, 0]), x[:, 1]
        self.mixture.off()
        inferred = x.new_zeros(len(x))
        if self.task >= 0:
            weights = self.weigh(embedded, mask)
            self.mixture.use(range(self.task + 1), weights)
            inferred = weights.argmax(dim=1)
        if not self.training:
            self.inferred = inferred
        return embedded, mask

    def forward(self, x: Tensor) -> Tensor:
        embedded, mask = self.mix(x)
        return self.backbone.answer_logits(self.backbone.hidden(embedded, mask), mask)

    def generate(self, x: Tensor, max_new_tokens: int) -> Tensor:
        return self.backbone.generate_from(*self.mix(x), max_new_tokens)


class MixtureMethod(TaskParts):
    """A method whose model is a `MixedModel`."""

    Config = LoraSettings
    skips = {"vision": "tasks are told apart by the tokens of a prompt, and images have none"}

    @classmethod
    def needs(cls, config, needs: Needs) -> Needs:
        """The branches of all tasks."""
        trained = sum(adapter_sizes(needs.backbone, config))
        kept_bytes = 4 * (needs.n_tasks - 1) * trained
        return dataclasses.replace(needs, trained=trained, kept_bytes=kept_bytes)
