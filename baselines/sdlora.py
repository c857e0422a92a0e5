"""SD-LoRA: earlier branches keep their directions, and their magnitudes are learnt anew.

Wu et al., "SD-LoRA: Scalable Decoupled Low-Rank Adaptation for Class Incremental Learning" (ICLR
2025). The query and value projections of all blocks get

    dW_t = a_t B_t A_t + sum_{i<t} a_i (B_i / ||B_i||) (A_i / ||A_i||)

with Frobenius norms. Task t trains A_t, B_t, the classifier and all magnitudes a_1..a_t, scalars
that all projections share; earlier directions are frozen. As in the authors' code every task starts
all magnitudes anew, and B_t A_t is divided by its norms only when the task has ended, so that the
function jumps there. `carry_magnitude` avoids that: the direction of a task is then that of all its
matrices together, divided by the root mean square of their ||B|| ||A||, which a_t takes over.

Directions stand side by side in one branch of rank t r, the magnitudes scaling the rows of A, so
that a step costs two products per projection whatever t.

Departures:
1. the optimiser is the run's, Adam, as for all methods that are compared; `preset: paper` is SGD
   with momentum 0.9 at 8e-3 (CIFAR-100; 0.01 on ImageNet-R) without clipping. The authors' code
   trains so in batches of 128 over 20 epochs on both, as does `sdlora-own` in the suite `paper`,
   at a constant rate (its milestones lie beyond the last epoch) and without weight decay;
2. the classifier's rows are there from the start, drawn as in all methods; with `mask: current` a
   task trains its own only;
3. without the paper's variants: neither ranks that shrink from task to task (RR) nor directions
   that are expressed by earlier ones and dropped (KD);
4. a task starts with a fresh optimiser whatever the run's `optimizer_reset` says.

Checked against an independent reference over three tasks (`tests/references`); no public code was
run beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.common import checks
from baselines.common.base import LowRank, Method, new_default, train_head_only
from baselines.common.lora import BranchSettings
from baselines.common.task import Task

OPTIMIZERS = ("adam", "sgd")


class Directions(nn.Module):
    """A frozen projection and the tasks' directions, each times its magnitude.

    Attributes:
        magnitudes: (T,) a, shared with the other projections.
        A, B: (rank, in) and (out, rank), trained.
        past_A, past_B: the earlier tasks' side by side, (t rank, in) and (out, t rank).
    """

    def __init__(self, projection: nn.Linear, rank: int, magnitudes: nn.Parameter):
        super().__init__()
        self.projection = projection
        self.magnitudes = magnitudes
        self.A = nn.Parameter(torch.empty(rank, projection.in_features))
        self.B = nn.Parameter(torch.empty(projection.out_features, rank))
        self.register_buffer("past_A", torch.empty(0, projection.in_features))
        self.register_buffer("past_B", torch.empty(projection.out_features, 0))
        self.renew()

    def factors(self) -> tuple[Tensor, Tensor]:
        """All directions side by side, with their magnitudes: (t rank, in) and (out, t rank)."""
        A, B = torch.cat([self.past_A, self.A]), torch.cat([self.past_B, self.B], dim=1)
        rank = len(self.A)
        scale = self.magnitudes[: len(A) // rank, None].expand(-1, rank).reshape(-1, 1)
        return A * scale, B

    def forward(self, x: Tensor) -> Tensor:
        A, B = self.factors()
        return self.projection(x) + F.linear(F.linear(x, A), B)

    def renew(self) -> None:
        """Start a direction: A as in LoRA, B = 0."""
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        nn.init.zeros_(self.B)

    def norms(self) -> Tensor:
        """||A|| and ||B||, never 0."""
        return torch.stack([self.A.norm(), self.B.norm()]).clamp_min(1e-12)

    def freeze(self, of_A: Tensor, of_B: Tensor) -> None:
        """Count A / of_A and B / of_B among the earlier directions."""
        self.past_A = torch.cat([self.past_A, self.A / of_A])
        self.past_B = torch.cat([self.past_B, self.B / of_B], dim=1)


class SDLoRA(Method):
    """Frozen directions with trained magnitudes, and a new direction for the current task."""

    presets = {"paper": {"optimizer": "sgd", "learning_rate": 0.008, "clip_norm": None}}
    skips = {"language": "SD-LoRA is defined for class-incremental learning on images only"}

    @dataclass(frozen=True)
    class Config(BranchSettings):
        """Settings of the branches, which have no alpha: their scale is the magnitude.

        Attributes:
            magnitude: where a starts, for each task and all directions.
            carry_magnitude: earlier magnitudes live on, and a finished task's takes over the norm.
            optimizer: "adam", the run's, or "sgd" with momentum 0.9.
        """

        rank: int = new_default(10)
        magnitude: float = 0.8
        carry_magnitude: bool = False
        optimizer: str = "adam"

        def __post_init__(self):
            super().__post_init__()
            checks.positive(self, "magnitude")
            checks.one_of(self, optimizer=OPTIMIZERS)

    def adapt(self, backbone: nn.Module) -> nn.Module:
        train_head_only(backbone)
        magnitude = torch.full((self.setting.n_tasks,), self.config.magnitude)
        self._magnitudes = backbone.magnitudes = nn.Parameter(magnitude)
        self._projections = []
        for block in backbone.network.blocks[: self.config.layers]:
            for name in ("q_proj", "v_proj"):
                projection = getattr(block.attn.qkv, name)
                directions = Directions(projection, self.config.rank, self._magnitudes)
                setattr(block.attn.qkv, name, directions)
                self._projections.append(directions)
        return backbone

    def optimizer(self, parameters: list) -> torch.optim.Optimizer:
        if self.config.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=self.setting.learning_rate, momentum=0.9)
        return super().optimizer(parameters)

    @torch.no_grad()
    def begin(self, task: Task) -> None:
        if task.index == 0:
            return
        norms = torch.stack([projection.norms() for projection in self._projections])
        if self.config.carry_magnitude:
            together = norms.prod(dim=1).square().mean().sqrt()
            norms[:, 1] = together / norms[:, 0]
            self._magnitudes[task.index - 1] *= together
        else:
            self._magnitudes.fill_(self.config.magnitude)
        for projection, (of_A, of_B) in zip(self._projections, norms, strict=True):
            projection.freeze(of_A, of_B)
            projection.renew()
        self.loop.optimizer = None  # its moments are the finished direction's

    @torch.no_grad()
    def adapter(self) -> LowRank:
        """The directions times their magnitudes."""
        modules = self.model.named_modules()
        return LowRank({n: m.factors() for n, m in modules if isinstance(m, Directions)})

    def state_dict(self) -> dict:
        past = [[projection.past_A, projection.past_B] for projection in self._projections]
        return super().state_dict() | {"directions": past}

    def load_state_dict(self, state: Mapping) -> None:
        super().load_state_dict(state)
        device = self.setting.device
        for projection, past in zip(self._projections, state["directions"], strict=True):
            projection.past_A, projection.past_B = (part.to(device) for part in past)

    def diagnostics(self) -> dict:
        """The magnitudes of the directions at the end of the stream."""
        return {"magnitudes": self._magnitudes.tolist()}
