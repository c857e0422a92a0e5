"""InfLoRA: each task's branch reads only directions that earlier tasks do not use.

Liang and Li, "InfLoRA: Interference-Free Low-Rank Adaptation for Continual Learning" (CVPR 2024).
Keys and values of a block read the same input x and become (W + sum_{s<=t} B_s A_s) x. With C the
mean of x x' over the tokens of task t and N an orthonormal basis of the directions outside the
gradient memory, A_t is set before training, frozen and shared by keys and values:

    A_t = U_r' / sqrt(3),   U_r the r leading left singular vectors of N N' C,

so that A_t x = 0 for x in the memory and A_t A_t' = I / 3, the row norm that LoRA's usual
initialisation has. Only B_t, from 0, and the classifier are trained. Afterwards the memory takes in
directions of the new C until the share of its energy (squared singular values of C) that it holds
reaches lamb + (lame - lamb) t / T, task t of T counted from 0 (DualGPM: of the memory and its
complement the smaller is stored).

The paper trains with Adam at 5e-4 and a cosine schedule, 20 epochs and lamb 0.95 on CIFAR-100, 50
epochs and lamb 0.98 on ImageNet-R, lame 1.

Departures:
1. one classifier with the run's mask: with `mask: current` a task trains its own rows only, and at
   test all rows compete, which is what the paper's heads, one per task and concatenated, do;
2. C is summed in two passes over the task's images as they are stored, without augmentation, in
   32-bit floats whatever the precision of training; the paper's see augmented images;
3. earlier branches are added up in the weights, as the paper says; the authors' code sums outputs;
4. if fewer than r directions are free, the other rows of A_t are 0; in the authors' code they fall
   into the memory;
5. a task starts with a fresh optimiser whatever the run's `optimizer_reset` says;
6. the run's rate is constant, its batch and clipping are the run's: the authors' rate falls along a
   quarter of a cosine to 1.6 % of its start, in batches of 128 and without clipping. `inflora-own`
   in the suite `paper` has their rate, batch, epochs, clipping and start of the classifier.

Checked against, in the suite `peers` with one seed: InfLoRA e08b00e, the authors', ours 37.4 and
theirs with our start of the classifier 41.6; with theirs (`head_init: linear`) 34.8 and 27.9. The
dimensions of its memory are equal, and logits agree after three tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.common.base import LowRank, Method, new_default, train_head_only
from baselines.common.lora import BranchSettings
from baselines.common.task import Task


class GradientMemory:
    """The input directions, of `width`, that finished tasks use (DualGPM).

    Attributes:
        basis: (width, k) float64, orthonormal: of the memory, or of its complement.
        retain: whether it is the complement that is stored, as the memory is more than half.
    """

    def __init__(self, basis: Tensor, retain: bool = False):
        self.basis = basis
        self.retain = retain

    @property
    def dimension(self) -> int:
        """Directions in the memory."""
        width, stored = self.basis.shape
        return width - stored if self.retain else stored

    def free(self) -> Tensor:
        """(width, width - dimension): an orthonormal basis of the complement, N."""
        if self.retain:
            return self.basis
        return torch.linalg.qr(self.basis, mode="complete").Q[:, self.dimension :]

    def leading(self, moment: Tensor) -> tuple[Tensor, Tensor]:
        """Squared singular values, descending, and left singular vectors (columns) of N N' C.

        From the smaller N' C, so that the vectors are orthogonal to the memory by construction.
        """
        free = self.free()
        projected = free.T @ moment
        energy, vectors = torch.linalg.eigh(projected @ projected.T)
        return energy.flip(0).clamp_min(0), free @ vectors.flip(1)

    def design(self, moment: Tensor, rank: int) -> Tensor:
        """A_t (rank, width) for a task with the moment C (width, width)."""
        rows = self.leading(moment)[1][:, :rank].T / math.sqrt(3)
        return F.pad(rows, (0, 0, 0, rank - len(rows)))

    def grow(self, moment: Tensor, threshold: float) -> None:
        """Take in directions until the memory holds that share of the moment's energy."""
        energy, vectors = self.leading(moment)
        total = moment.square().sum()
        held = 1 - (energy.sum() - energy.cumsum(0)) / total  # with the i-th direction taken in
        if self.dimension == 0:  # the first task stops short of the threshold, as in GPM
            n_new = max(int((held < threshold).sum()), 1)
        else:
            n_new = int((held - energy / total < threshold).sum())
        width = len(moment)
        self.retain = 2 * (self.dimension + n_new) > width
        new, free = vectors[:, :n_new], vectors[:, n_new:]
        self.basis = free if self.retain else torch.cat([self.basis, new], dim=1)


class KeysValues(nn.Module):
    """A block's attention input with branches on keys and values.

    Attributes:
        B: (2 width, rank) trained; rows of the keys, then of the values.
        A: (rank, width) frozen.
        past_B, past_A: the earlier branches side by side, (2 width, t rank) and (t rank, width).
        weight, bias: the backbone's with the earlier branches added, (2 width, width), (2 width,).
    """

    def __init__(self, qkv: nn.Module, rank: int):
        super().__init__()
        self.qkv = qkv
        width = qkv.q_proj.in_features
        self.B = nn.Parameter(torch.zeros(2 * width, rank))
        self.register_buffer("A", torch.zeros(rank, width))
        self.register_buffer("weight", None)
        bias = qkv.k_proj.bias
        self.register_buffer("bias", None if bias is None else torch.cat([bias, qkv.v_proj.bias]))
        self.set_past(torch.zeros(2 * width, 0), torch.zeros(0, width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> queries, keys and values (..., 3 width)."""
        branch = F.linear(F.linear(x, self.A), self.B)
        return torch.cat([self.qkv.q_proj(x), F.linear(x, self.weight, self.bias) + branch], dim=-1)

    @torch.no_grad()
    def set_past(self, past_B: Tensor, past_A: Tensor) -> None:
        """Set the earlier branches and add them to the weights."""
        weight = torch.cat([self.qkv.k_proj.weight, self.qkv.v_proj.weight])
        self.register_buffer("past_B", past_B.to(weight.device))
        self.register_buffer("past_A", past_A.to(weight.device))
        self.weight = weight + self.past_B @ self.past_A

    @torch.no_grad()
    def merge(self) -> None:
        """Count the current branch among the earlier ones and start from B = 0."""
        self.set_past(torch.cat([self.past_B, self.B], dim=1), torch.cat([self.past_A, self.A]))
        self.B.zero_()


class InfLoRA(Method):
    """Branches on keys and values, designed outside a gradient memory."""

    reads = 2  # to sum moments, before and after a task
    skips = {"language": "InfLoRA is defined for the attention of vision transformers only"}

    @dataclass(frozen=True)
    class Config(BranchSettings):
        """`lamb`, `lame`: share of energy the memory holds at the first task and towards the end.

        Branches have no scale of their own (alpha = rank).
        """

        rank: int = new_default(10)
        lamb: float = 0.95
        lame: float = 1.0

        def __post_init__(self):
            super().__post_init__()
            if not 0 < self.lamb <= self.lame <= 1:
                raise ValueError(
                    f"lamb and lame must satisfy 0 < lamb <= lame <= 1, "
                    f"but are {self.lamb} and {self.lame}"
                )

    def adapt(self, backbone: nn.Module) -> nn.Module:
        train_head_only(backbone)
        self._branches = []
        for block in backbone.network.blocks[: self.config.layers]:
            block.attn.qkv = KeysValues(block.attn.qkv, self.config.rank)
            self._branches.append(block.attn.qkv)
        empty = torch.zeros(backbone.width, 0, dtype=torch.float64, device=self.setting.device)
        self._memories = [GradientMemory(empty) for _ in self._branches]
        self._dimensions: list[list[int]] = []
        return backbone

    @torch.no_grad()
    def _moments(self, task: Task) -> list[Tensor]:
        """Sum of x x' over the task's tokens for each adapted block, (width, width) float64.

        The sum does for the mean: nothing depends on the scale of C.
        """
        moments, hooks = [], []
        for branch, memory in zip(self._branches, self._memories, strict=True):
            moment = memory.basis.new_zeros(len(memory.basis), len(memory.basis))

            def add(module, inputs, moment=moment):
                x = inputs[0].flatten(0, 1)
                moment.add_(x.T @ x)

            hooks.append(branch.register_forward_pre_hook(add))
            moments.append(moment)
        self.model.eval()
        for x, _, _ in self.batches(task):
            self.model(x)
        for hook in hooks:
            hook.remove()
        return moments

    def begin(self, task: Task) -> None:
        self.loop.optimizer = None  # its moments are the finished branch's
        for branch, memory, moment in zip(
            self._branches, self._memories, self._moments(task), strict=True
        ):
            branch.A.copy_(memory.design(moment, self.config.rank))

    def end(self, task: Task) -> None:
        lamb, lame = self.config.lamb, self.config.lame
        threshold = lamb + (lame - lamb) * task.index / self.setting.n_tasks
        for branch, memory, moment in zip(
            self._branches, self._memories, self._moments(task), strict=True
        ):
            memory.grow(moment, threshold)
            branch.merge()
        self._dimensions.append([memory.dimension for memory in self._memories])

    def adapter(self) -> LowRank:
        """The branches of all finished tasks side by side."""
        factors = {}
        for name, module in self.model.named_modules():
            if isinstance(module, KeysValues):
                keys, values = module.past_B.chunk(2)
                factors[f"{name}.k_proj"] = module.past_A, keys
                factors[f"{name}.v_proj"] = module.past_A, values
        return LowRank(factors)

    def state_dict(self) -> dict:
        return super().state_dict() | {
            "branches": [[branch.past_B, branch.past_A] for branch in self._branches],
            "memories": [[memory.basis, memory.retain] for memory in self._memories],
            "dimensions": self._dimensions,
        }

    def load_state_dict(self, state: Mapping) -> None:
        super().load_state_dict(state)
        for branch, past in zip(self._branches, state["branches"], strict=True):
            branch.set_past(*past)
        device = self.setting.device
        self._memories = [
            GradientMemory(basis.to(device), retain) for basis, retain in state["memories"]
        ]
        self._dimensions = [list(row) for row in state["dimensions"]]

    def diagnostics(self) -> dict:
        """The memory's dimension after each task in each adapted block."""
        return {"memory_dimensions": self._dimensions}
