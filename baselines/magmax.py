"""MagMax: the tasks' weight changes are merged, entry by entry the largest of them.

Marczak et al., "MagMax: Leveraging Model Merging for Seamless Continual Learning" (ECCV 2024). One
model is fine-tuned from task to task. The task vector of task t is how far the weights have come,
tau_t = theta_t - theta_0, and what is tested after task t is

    theta_0 + scale * merge(tau_1, ..., tau_t),

while the next task goes on from theta_t. `merge` takes of each entry

    magmax  the value of the largest magnitude,
    mean    the average (Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023),
    ties    the average of those with the elected sign, that of the sum, after each task has kept
            but the `density` of its largest entries (Yadav et al., "TIES-Merging", NeurIPS 2023).

Here theta are the adapted projections, and tau_t = alpha / r B_t A_t. Task vectors are kept as
factors, r (in + out) numbers for each matrix and task: less than the one vector of a running
maximum, in * out, for up to 48 tasks of a ViT-B and 256 of a Llama-7B at rank 8.

Departures from the paper:
1. an adapter on the projections `targets` is trained; the paper trains and merges all weights of
   CLIP's image encoder;
2. on vision the classifier is trained and stays as the last task left it; the paper's is frozen,
   made of the classes' names;
3. the run's Adam at a constant rate; the paper has AdamW at 1e-5 with warm-up and cosine;
4. `ties` trims each matrix by itself, not all weights together.

Checked against an independent reference over three tasks (`tests/references`). The authors' code
(magmax 4f49f18) on the task vectors of three tasks, vision and language: merged vectors are equal
bit for bit (magmax), to 3e-8 (mean), and equal if `ties` keeps one entry more of each matrix, as
that code does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.common import checks
from baselines.common.base import LowRank, Needs
from baselines.common.lora import LoraMethod, LoraSettings, adapted_matrices
from baselines.common.task import Task

SCALES = {"magmax": 0.5, "mean": 1.0, "ties": 0.55}  # of each merge, as in the authors' code


def merged(vectors: Tensor, merge: str, density: float = 1.0) -> Tensor:
    """Task vectors of one matrix (t, out, in) -> their merge (out, in)."""
    if merge == "mean":
        return vectors.mean(dim=0)
    if merge == "magmax":
        return vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))[0]
    size = vectors.abs()
    n_kept = max(1, round(density * size[0].numel()))
    smallest = size.flatten(1).topk(n_kept).values[:, -1, None, None]
    vectors = vectors * (size >= smallest)
    agrees = (vectors.sign() == vectors.sum(dim=0).sign()) & (vectors != 0)
    return (vectors * agrees).sum(dim=0) / agrees.sum(dim=0).clamp_min(1)


class Merging(nn.Module):
    """A frozen projection that is trained with its adapter and tested with the merged vectors.

    Attributes:
        adapted: PEFT's layer.
        merged: (out, in) what a test adds to the weight.
    """

    def __init__(self, adapted: nn.Module):
        super().__init__()
        self.adapted = adapted
        base = adapted.base_layer
        shape = base.out_features, base.in_features  # a quantised weight has another
        zeros = torch.zeros(shape, dtype=torch.float32, device=base.weight.device)
        self.register_buffer("merged", zeros, persistent=False)

    def factors(self) -> list[Tensor]:
        """B (out, r) and A (r, in), whose product is the present task vector."""
        layer = self.adapted
        B, A = layer.lora_B["default"].weight, layer.lora_A["default"].weight
        return [B.detach() * layer.scaling["default"], A.detach().clone()]

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.adapted(x)
        y = self.adapted.base_layer(x)
        return (y + F.linear(x.to(self.merged.dtype), self.merged)).to(y.dtype)


class MagMax(LoraMethod):
    """An adapter that is trained sequentially, and tested merged with what it was before."""

    title = "MagMax"

    @dataclass(frozen=True)
    class Config(LoraSettings):
        """Settings of the merge.

        Attributes:
            merge: "magmax", "mean" or "ties".
            scale: of the merged vector; None for the authors', see `SCALES`.
            density: share of a task vector's entries that "ties" keeps.
        """

        merge: str = "magmax"
        scale: float | None = None
        density: float = 0.2

        def __post_init__(self):
            super().__post_init__()
            checks.one_of(self, merge=SCALES)
            checks.positive(self, "scale", "density")
            checks.shares(self, "density")

    @classmethod
    def needs(cls, config, needs: Needs) -> Needs:
        """The factors of earlier tasks and the merged matrices; in a merge all tasks' of one."""
        needs = super().needs(config, needs)
        matrices = adapted_matrices(needs.backbone, config).values()
        sizes = [matrix.weight.numel() for matrix in matrices]
        return dataclasses.replace(
            needs,
            kept_bytes=4 * ((needs.n_tasks - 1) * needs.trained + sum(sizes)),
            made_bytes=4 * 3 * needs.n_tasks * max(sizes),
        )

    def adapt(self, backbone: nn.Module) -> nn.Module:
        from peft.tuners.lora import LoraLayer

        model = super().adapt(backbone)
        adapted = {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer)}
        self._merging = [Merging(module) for module in adapted.values()]
        for name, module in zip(adapted, self._merging, strict=True):
            model.set_submodule(name, module)
        self._finished: list[list[list[Tensor]]] = []  # of each task and projection B and A
        return model

    def begin(self, task: Task) -> None:
        if task.index > 0:
            self._finished.append([module.factors() for module in self._merging])

    @torch.no_grad()
    def ready_to_test(self) -> None:
        config = self.config
        scale = SCALES[config.merge] if config.scale is None else config.scale
        for i, module in enumerate(self._merging):
            factors = [task[i] for task in self._finished] + [module.factors()]
            vectors = torch.stack([B @ A for B, A in factors])
            module.merged.copy_(scale * merged(vectors, config.merge, config.density))

    def adapter(self) -> LowRank:
        """The merged matrices, whose rank nothing limits."""
        modules = {n: m for n, m in self.model.named_modules() if isinstance(m, Merging)}
        return LowRank(
            {n: (torch.eye(m.merged.shape[1]).to(m.merged), m.merged) for n, m in modules.items()}
        )

    def state_dict(self) -> dict:
        return super().state_dict() | {"finished": self._finished}

    def load_state_dict(self, state: Mapping) -> None:
        super().load_state_dict(state)
        device = self.setting.device
        self._finished = [
            [[factor.to(device) for factor in pair] for pair in task] for task in state["finished"]
        ]
        self.ready_to_test()
