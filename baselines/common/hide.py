"""What the methods of hierarchical decomposition share: two stages, statistics, alignment.

Wang et al., "Hierarchical Decomposition of Prompt-Based Continual Learning" (HiDe-Prompt, NeurIPS
2023), and Wang et al., "HiDe-PET" (arXiv 2407.05229), split class-incremental learning into
task-identity inference (a first model's best class names the task), within-task prediction
(parameters of each task) and task-adaptive prediction (a classifier aligned on pseudo-features of
all classes seen). Each task is learnt in two stages:

    0  the first model, on uninstructed features; at inference it chooses the task of each image;
    1  the task's own parameters, and one classifier on the features instructed by them.

At the end of each stage Gaussians that stand for the features of the task's classes are stored
(`ClassStatistics`), and from the second task on the stage's classifier is trained on draws from
those of all classes seen (`align`), so that no image is kept. Stage 1 adds a contrastive term,

    contrast * mean_i -log softmax(Z Z' / 0.8)_ii,   Z = [stored means of earlier classes; batch],

which falls towards 0 as features grow; the record has its last value for each task.
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
from baselines.common.task import Setting, Task

STATISTICS = ("multi-centroid", "covariance", "variance")
TEMPERATURE = 0.8
VARIANCE_FLOOR = 1e-4  # added to each variance before drawing
READ_SIZE = 128  # samples of a forward pass that reads features


@dataclass(frozen=True)
class HiDeSettings(Method.Config):
    """Settings of what the two stages share; the defaults are the released ones.

    Attributes:
        statistics: of a class's features: "multi-centroid" is mean and variances of each of
            `centroids` k-means clusters, "covariance" one mean and covariance, "variance" one mean
            and variances.
        centroids: clusters of a class, fewer where it has less than two samples for each.
        alignment_rate: learning rate of the alignment, SGD with momentum 0.9, cosine to 0.
        alignment_epochs: of the alignment.
        alignment_samples: drawn of each Gaussian in an epoch, and the batch size.
        alignment_full: use all that an epoch draws; as released, it stops after as many batches as
            there are old classes, with ten centroids after less than a tenth.
        contrast: weight of the contrastive term.
        momentum: m, the weight of the earlier tasks' mean in a task's parameters.
    """

    statistics: str = "multi-centroid"
    centroids: int = 10
    alignment_rate: float = 0.005
    alignment_epochs: int = 30
    alignment_samples: int = 120
    alignment_full: bool = False
    contrast: float = 0.01
    momentum: float = 0.1

    def __post_init__(self):
        checks.one_of(self, statistics=STATISTICS)
        checks.at_least_1(self, "centroids", "alignment_samples")
        checks.not_negative(self, "alignment_rate", "alignment_epochs", "contrast")
        checks.shares(self, "momentum")


class ClassStatistics:
    """Gaussians that stand for the features of the classes seen, width d.

    Args:
        kind: see `HiDeSettings.statistics`.
        centroids: clusters of a class, at most.
        seed: of k-means.

    Attributes:
        labels: (K,) the class of each Gaussian.
        means: (K, d).
        factors: what standard normal draws are multiplied with: standard deviations (K, d), or
            lower triangles (K, d, d) of "covariance".
    """

    def __init__(self, kind: str, centroids: int, seed: int, device: torch.device | str):
        self.kind = kind
        self.centroids = centroids
        self.seed = seed
        self._device = device
        self.labels = torch.empty(0, dtype=torch.long, device=device)
        self.means = self.factors = torch.empty(0, device=device)

    def add(self, features: Tensor, y: Tensor) -> None:
        """Describe the classes that features (n, d) with labels (n,) belong to."""
        for label in y.unique():
            parts = [self._describe(part) for part in self._parts(features[y == label])]
            means, factors = (torch.stack(values) for values in zip(*parts, strict=True))
            first = len(self.labels) == 0
            self.labels = torch.cat([self.labels, label.repeat(len(means))])
            self.means = means if first else torch.cat([self.means, means])
            self.factors = factors if first else torch.cat([self.factors, factors])

    def _parts(self, x: Tensor) -> list[Tensor]:
        """The clusters of one class (n, d); those without any spread count as outliers."""
        n_clusters = min(self.centroids, len(x) // 2)
        if self.kind != "multi-centroid" or n_clusters < 2:
            return [x]
        from sklearn.cluster import KMeans  # seconds to import

        kmeans = KMeans(n_clusters, n_init=1, random_state=self.seed)
        cluster = torch.from_numpy(kmeans.fit_predict(x.cpu().numpy())).to(x.device)
        parts = [x[cluster == c] for c in range(n_clusters)]
        return [part for part in parts if (part != part[:1]).any()] or [x]

    def _describe(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (d,) and factor of samples (n, d)."""
        mean, correction = x.mean(dim=0), int(self.kind != "multi-centroid" and len(x) > 1)
        if self.kind == "covariance":  # in double precision, as it has less samples than entries
            covariance = torch.cov(x.double().T, correction=correction)
            covariance.diagonal().add_(VARIANCE_FLOOR)
            return mean, torch.linalg.cholesky(covariance).to(x.dtype)
        return mean, (x.var(dim=0, correction=correction) + VARIANCE_FLOOR).sqrt()

    def draw(self, chosen: Tensor) -> Tensor:
        """One pseudo-feature of each chosen Gaussian: positions (n,) -> (n, d)."""
        noise = torch.randn(len(chosen), self.means.shape[1], device=self.means.device)
        if self.factors.dim() == 2:
            return self.means[chosen] + self.factors[chosen] * noise
        for k in chosen.unique():
            rows = chosen == k
            noise[rows] = noise[rows] @ self.factors[k].T
        return self.means[chosen] + noise

    def state_dict(self) -> dict:
        return {"labels": self.labels, "means": self.means, "factors": self.factors}

    def load_state_dict(self, state: Mapping) -> None:
        self.labels, self.means, self.factors = (
            state[name].to(self._device) for name in ("labels", "means", "factors")
        )


def statistics_of(settings: HiDeSettings, setting: Setting) -> ClassStatistics:
    """Those of a run, empty."""
    return ClassStatistics(settings.statistics, settings.centroids, setting.seed, setting.device)


def classes_of(task_of_class: Tensor, task: int) -> tuple[int, int]:
    """How many classes there are before a task, and with it."""
    return tuple((task_of_class < task + i).sum().item() for i in (0, 1))


@torch.no_grad()
def read(method: Method, task: Task, features: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Features (n, width) and labels (n,) of a task's samples."""
    parts = [(features(x), y) for x, y, _ in method.batches(task, READ_SIZE)]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def align(
    classifier: nn.Module,
    statistics: ClassStatistics,
    n_seen: int,
    n_old: int,
    settings: HiDeSettings,
) -> None:
    """Train a classifier on pseudo-features of the first `n_seen` classes, `n_old` of them old."""
    optimizer = torch.optim.SGD(classifier.parameters(), settings.alignment_rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, max(1, settings.alignment_epochs)
    )
    size = settings.alignment_samples
    n_gaussians = len(statistics.labels)
    n_used = size * (n_gaussians if settings.alignment_full else n_old)
    for _ in range(settings.alignment_epochs):
        # Only what is used of the epoch's shuffled draws is drawn.
        chosen = torch.randperm(size * n_gaussians)[:n_used] % n_gaussians
        chosen = chosen.to(statistics.labels.device)
        x, y = statistics.draw(chosen), statistics.labels[chosen]
        for batch, target in zip(x.split(size), y.split(size), strict=True):
            optimizer.zero_grad()
            F.cross_entropy(classifier(batch)[:, :n_seen], target).backward()
            optimizer.step()
        schedule.step()
    optimizer.zero_grad()


@dataclass(frozen=True)
class AlignedSettings(Method.Config):
    """The decomposition's third part alone, for a method of one model.

    Attributes:
        align: store statistics of each task's classes when it is learnt, and align the classifier
            on draws from those of all classes seen, as HiDe does with its released settings. On
            vision only.
    """

    align: bool = False


class Aligned:
    """Mixed into a method with one classifier: `AlignedSettings.align`.

    Statistics of earlier classes stay as they were, while the features that they describe go on to
    change.
    """

    def __init__(self, backbone: nn.Module, config: AlignedSettings, setting: Setting):
        super().__init__(backbone, config, setting)
        self._statistics = statistics_of(HiDeSettings(), setting) if config.align else None

    @classmethod
    def passes(cls, config, task: int, n: int, epochs: int, batch_size: int) -> tuple:
        forward, backward = super().passes(config, task, n, epochs, batch_size)
        return forward + (n if config.align else 0), backward

    def end(self, task: Task) -> None:
        super().end(task)
        if self._statistics is None:
            return
        self.model.eval()
        self._statistics.add(*read(self, task, self.features))
        if task.index > 0:
            n_old, n_seen = classes_of(self.setting.task_of_class, task.index)
            align(self.backbone.head, self._statistics, n_seen, n_old, HiDeSettings())

    def state_dict(self) -> dict:
        state = super().state_dict()
        own = self._statistics
        return state if own is None else state | {"statistics": own.state_dict()}

    def load_state_dict(self, state: Mapping) -> None:
        super().load_state_dict(state)
        if self._statistics is not None:
            self._statistics.load_state_dict(state["statistics"])


def contrast(features: Tensor, means: Tensor) -> Tensor:
    """The contrastive term of batch features (B, d) among stored means (K, d), a scalar."""
    z = torch.cat([means, features]) if len(means) else features
    return F.cross_entropy(z @ z.T / TEMPERATURE, torch.arange(len(z), device=z.device))


class TwoPass(nn.Module):
    """A network that infers the task of each image, and then classifies it with that task's part.

    A subclass defines `uninstructed` and `instructed`.

    Args:
        backbone: a `backbones.vision.VisionModel`; its head is the classifier of stage 1.
        identity: from uninstructed features (B, width) to logits (B, C), the classifier of stage 0.
        task_of_class: (C,).

    Attributes:
        stage: the one that is trained.
        task: the latest task; at inference classes of later ones are out of the question.
        features: (B, width) instructed features of the last forward pass in training.
        inferred: (B,) tasks inferred in the last forward pass in evaluation.
    """

    def __init__(self, backbone: nn.Module, identity: nn.Module, task_of_class: Tensor):
        super().__init__()
        self.backbone = backbone
        self.identity = identity
        self.register_buffer("task_of_class", task_of_class, persistent=False)
        self.stage = self.task = 0
        self.features = self.inferred = None

    @property
    def classifier(self) -> nn.Module:
        """The stage's own."""
        return self.backbone.head if self.stage else self.identity

    def uninstructed(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> features (B, width) that no task's parameters touch."""
        raise NotImplementedError

    def instructed(self, x: Tensor, tasks: Tensor | None = None) -> Tensor:
        """Images -> features (B, width) with the parameters of tasks (B,); None for the latest."""
        raise NotImplementedError

    def infer(self, features: Tensor) -> Tensor:
        """Uninstructed features (B, width) -> the task of the best class seen so far (B,)."""
        unseen = self.task_of_class > self.task
        best = self.identity(features).masked_fill(unseen, -torch.inf).argmax(dim=1)
        return self.task_of_class[best]

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            self.inferred = self.infer(self.uninstructed(x))
            return self.backbone.head(self.instructed(x, self.inferred))
        if self.stage == 0:
            return self.identity(self.uninstructed(x))
        self.features = self.instructed(x)
        return self.backbone.head(self.features)


class HiDe(Method):
    """The two stages; a subclass says in `adapt` all that is learnt and in `select` what when.

    Each stage of each task starts with a fresh optimiser whatever the run's `optimizer_reset` says,
    as stages train different parameters.
    """

    stages = 2
    reads = 2  # features at the end of each stage
    skips = {"language": "the decomposition needs classes, each of one task, and text has none"}

    def __init__(self, backbone: nn.Module, config: HiDeSettings, setting: Setting):
        super().__init__(backbone, config, setting)
        self._statistics = [statistics_of(config, setting) for _ in range(self.stages)]
        self._contrast = torch.zeros(())
        self._contrasts: list[float] = []
        self._routed: list[float] = []

    def select(self) -> None:
        """Let what the model's stage and task train require a gradient, and nothing else."""
        self.model.identity.requires_grad_(self.model.stage == 0)
        self.model.backbone.head.requires_grad_(self.model.stage == 1)

    def continue_previous(self) -> None:
        """Start the parameters of the model's task from those of the task before."""
        raise NotImplementedError

    def mix(self) -> None:
        """Mix the trained parameters of the model's task with the earlier tasks' mean."""
        raise NotImplementedError

    def stage_task(self, task: Task) -> Task:
        """The task as the model's stage sees it."""
        return task

    def alignment(self) -> HiDeSettings:
        """The settings of the alignment that ends the model's stage."""
        return self.config

    def learn(self, task: Task, report: Callable[[Tensor, int], None] | None = None) -> dict:
        start = time.perf_counter()
        reports = []
        self.model.task = task.index
        if task.index > 0:
            self.continue_previous()
        for stage in range(self.stages):
            self.model.stage = stage
            reports.append(self.loop.learn(self.stage_task(task), report))
        whole = joined(reports)
        counted = whole["train_seconds"] + whole.get("compile_seconds", 0.0)
        return whole | {"consolidate_seconds": time.perf_counter() - start - counted}

    def begin(self, task: Task) -> None:
        self.select()
        self.loop.optimizer = None

    def batch_loss(self, x, y, logits, positions) -> Tensor | float:
        if self.model.stage == 0 or self.config.contrast == 0:
            return 0.0
        term = contrast(self.model.features.float(), self._statistics[1].means)
        self._contrast = term.detach()
        return self.config.contrast * term

    def end(self, task: Task) -> None:
        model = self.model
        self.loop.optimizer = None
        if model.stage == 1:
            if task.index > 0:
                self.mix()
            self._contrasts.append(self._contrast.item())
        read = model.instructed if model.stage else model.uninstructed
        features, y = self.read(task, read)
        self._statistics[model.stage].add(features, y)
        if task.index > 0:
            n_old, n_seen = classes_of(model.task_of_class, task.index)
            statistics = self._statistics[model.stage]
            align(model.classifier, statistics, n_seen, n_old, self.alignment())
        if model.stage == 0:
            self._routed.append((model.infer(features) == task.index).float().mean().item())

    def read(self, task: Task, features: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Features (n, width) and labels (n,) of a task's samples, as evaluation would see them."""
        self.model.eval()
        return read(self, task, features)

    def state_dict(self) -> dict:
        return super().state_dict() | {
            "task": self.model.task,
            "statistics": [statistics.state_dict() for statistics in self._statistics],
            "contrasts": self._contrasts,
            "routed": self._routed,
        }

    def load_state_dict(self, state: Mapping) -> None:
        super().load_state_dict(state)
        self.model.task, self.model.stage = state["task"], self.stages - 1
        self.select()
        for statistics, kept in zip(self._statistics, state["statistics"], strict=True):
            statistics.load_state_dict(kept)
        self._contrasts, self._routed = list(state["contrasts"]), list(state["routed"])

    def diagnostics(self) -> dict:
        """Per task: the contrastive term at the last step, and the share of the task's training
        images whose task was inferred rightly when its first stage was over."""
        return {"contrast": self._contrasts, "train_task_accuracy": self._routed}


def joined(reports: list[dict]) -> dict:
    """One report of `Method.learn` for several stages that followed each other."""
    whole = dict(reports[0])
    for report in reports[1:]:
        sums = {name: whole[name] + value for name, value in report.items() if name != "last_loss"}
        whole = sums | {"last_loss": report["last_loss"]}
    return whole
