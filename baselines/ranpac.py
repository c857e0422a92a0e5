"""RanPAC: a closed-form classifier on features of the frozen backbone, without a gradient step.

McDonnell et al., "RanPAC: Random Projections and Pre-trained Models for Continual Learning"
(NeurIPS 2023). f is the class token's feature; h = relu(f R) with a fixed R of standard normal
entries. Sums over all images so far give the ridge regression on one-hot labels,

    G = sum h h',   Q = sum h onehot(y)',   W = (G + ridge I)^-1 Q,   logits = h' W,

the same for every order of tasks. The ridge is one of 1e-8, 1e-7, ..., 1e8: the one whose fit to
four fifths of the current task's images has the least squared error on the other fifth.
`head: mean` is the nearest class mean instead, without projection: logits = cos(f, mean of the
class). Both are the reference that methods which train should beat.

Departures:
1. no first-session adaptation: the paper first trains an adapter on the first task;
2. G and Q are summed, and the system solved, in 64-bit floats; a ridge too small for a Cholesky
   decomposition is raised tenfold until there is one.
Images are as they are stored, without augmentation, as in the paper. The run's epochs, learning
rate, mask and precision have no effect: each image is seen once.

Checked against, in the suite `peers`: PILOT 5240714, ours with 2,000 projections 39.3 and theirs
39.4; nearest class means (`head: mean`) 33.1 and 33.1, equal on every task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.common import checks
from baselines.common.base import Method
from baselines.common.prototypes import class_sums
from baselines.common.task import Task

RIDGES = tuple(10.0**exponent for exponent in range(-8, 9))
HEADS = ("ridge", "mean")


class ClosedForm(nn.Module):
    """A frozen backbone with a classifier that is not trained but computed.

    Attributes:
        projection: R (width, M), None for none.
        weight: (M or width, C).
    """

    def __init__(self, backbone: nn.Module, projection: Tensor | None, cosine: bool):
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.cosine = cosine
        self.register_buffer("projection", projection)
        n_features = backbone.width if projection is None else projection.shape[1]
        self.register_buffer("weight", torch.zeros(n_features, backbone.head.out_features))

    def features(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> h (B, M), or the class token's feature (B, width)."""
        h = self.backbone.encode(self.backbone.embed(x))[:, 0]
        return h if self.projection is None else F.relu(h @ self.projection)

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(x)
        return (F.normalize(h, dim=1) if self.cosine else h) @ self.weight


def best_ridge(h: Tensor, y: Tensor, n_fit: int) -> float:
    """The ridge whose fit to the first `n_fit` rows has the least squared error on the others.

    h (n, M) features, y (n, C) one-hot. All ridges come from one eigendecomposition, of h h' or of
    h' h, whichever is smaller.
    """
    fit, rest = h[:n_fit], h[n_fit:]
    if n_fit < h.shape[1]:
        values, vectors = torch.linalg.eigh(fit @ fit.T)
        left, right = rest @ (fit.T @ vectors), vectors.T @ y[:n_fit]
    else:
        values, vectors = torch.linalg.eigh(fit.T @ fit)
        left, right = rest @ vectors, vectors.T @ (fit.T @ y[:n_fit])
    values = values.clamp_min(0)
    errors = [(left @ (right / (values + r)[:, None]) - y[n_fit:]).square().sum() for r in RIDGES]
    return RIDGES[int(torch.stack(errors).argmin())]


def solve(gram: Tensor, correlation: Tensor, ridge: float) -> Tensor:
    """W (M, C) from G (M, M) and Q (M, C); ValueError if G is not finite."""
    if not gram.isfinite().all():
        raise ValueError(
            "the sum of RanPAC's features is not finite: check the backbone's weights and precision"
        )
    while True:
        damped = gram.clone()
        damped.diagonal().add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            return torch.cholesky_solve(correlation, factor)
        ridge *= 10


class RanPAC(Method):
    """Ridge regression on random projections of frozen features, or the nearest class mean."""

    stages = 0
    reads = 1
    skips = {"language": "RanPAC classifies images by their features and cannot generate text"}
    small = {"projections": 40}

    @dataclass(frozen=True)
    class Config(Method.Config):
        """Settings of the classifier.

        Attributes:
            head: "ridge", or "mean" for the nearest class mean, which the others do not concern.
            projections: M, 0 for ridge regression on f itself. G holds M^2 64-bit numbers and each
                task's solution takes M^3 / 3 operations: 800 MB and 10 seconds of a core at 10,000.
            ridge: None to choose it on the current task.
        """

        head: str = "ridge"
        projections: int = 10_000
        ridge: float | None = None

        def __post_init__(self):
            checks.one_of(self, head=HEADS)
            checks.not_negative(self, "projections")
            checks.positive(self, "ridge")

    def adapt(self, backbone: nn.Module) -> nn.Module:
        mean, n_projections = self.config.head == "mean", self.config.projections
        projection = None
        if not mean and n_projections:
            generator = torch.Generator().manual_seed(self.setting.seed)
            projection = torch.randn(backbone.width, n_projections, generator=generator)
        model = ClosedForm(backbone, projection, cosine=mean)
        n_features, n_classes = model.weight.shape
        options = {"dtype": torch.float64, "device": self.setting.device}
        self._correlation = torch.zeros(n_features, n_classes, **options)
        self._gram = torch.zeros(0 if mean else n_features, n_features, **options)
        self._ridges: list[float] = []
        return model

    def features(self, x: Tensor) -> Tensor:
        return self.backbone.encode(self.backbone.embed(x))[:, 0]

    @torch.no_grad()
    def learn(self, task: Task, report: Callable[[Tensor, int], None] | None = None) -> dict:
        start = time.perf_counter()
        self.model.eval()
        shuffled = self.batches(task, positions=torch.randperm(len(task.train)))
        parts = [(self.model.features(x).double(), y) for x, y, _ in shuffled]
        h, y = (torch.cat(part) for part in zip(*parts, strict=True))
        self._correlation += class_sums(h, y, self._correlation.shape[1])
        if self.config.head == "mean":  # a class's sum and its mean have one direction
            weight = F.normalize(self._correlation, dim=0)
        else:
            self._gram += h.T @ h
            one_hot = F.one_hot(y, self._correlation.shape[1]).double()
            ridge = self.config.ridge or best_ridge(h, one_hot, max(1, len(h) * 4 // 5))
            self._ridges.append(ridge)
            weight = solve(self._gram, self._correlation, ridge)
        self.model.weight.copy_(weight)
        if self.model.weight.is_cuda:
            torch.cuda.synchronize()
        return {
            "steps": 0,
            "samples": len(h),
            "last_loss": None,
            "train_seconds": 0.0,
            "consolidate_seconds": time.perf_counter() - start,
        }

    def state_dict(self) -> dict:
        return super().state_dict() | {
            "gram": self._gram,
            "correlation": self._correlation,
            "weight": self.model.weight,
            "ridges": self._ridges,
        }

    def load_state_dict(self, state: Mapping) -> None:
        super().load_state_dict(state)
        self.model.weight.copy_(state["weight"])
        self._gram.copy_(state["gram"])
        self._correlation.copy_(state["correlation"])
        self._ridges = list(state["ridges"])

    def diagnostics(self) -> dict:
        """The ridge of each task; none for class means."""
        return {"ridges": self._ridges}
