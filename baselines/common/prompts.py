"""What the prompt methods share: a frozen backbone, its query features and their cache.

A query q(x) is a feature of the untouched frozen backbone, which selects or weights the prompts of
the second, prompted pass. For a training sample it is the same in every epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.common import checks
from baselines.common.base import Method, TaskParts, train_head_only
from baselines.common.task import Setting


@dataclass(frozen=True)
class PromptSettings(Method.Config):
    """Settings of all prompt methods.

    Attributes:
        cache_queries: keep the queries of a task's first epoch for its later ones. TIME then has
            one pass of the frozen backbone less per step from the second epoch on. Off by default:
            in float32 on a CPU it changed no bit at any batch size tried, but no library promises
            that a row of a matrix product rounds alike in another batch.
    """

    cache_queries: bool = False


class QueryCache:
    """Computes queries, and keeps those of training samples if it is one of the loop's plugins.

    Test samples are asked for after every task; within `repeated` they are kept too.
    """

    def __init__(self):
        self._tests: dict[Hashable, list[Tensor]] = {}
        self._repeats, self._read = None, 0  # queries of a test's batches, how many were read
        self._loop = None
        self._kept = None  # (samples of the task, width)
        self._complete = False

    def __call__(self, compute: Callable[[], Tensor]) -> Tensor:
        """The queries (B, width) of the samples that pass, by `compute` unless they are kept."""
        if self._repeats is not None:
            kept, self._read = self._repeats, self._read + 1
            if self._read > len(kept):
                kept.append(compute())
            return kept[self._read - 1]
        positions = self._loop and self._loop.passing
        if positions is None:
            return compute()
        if not self._complete:
            query = compute()
            if self._kept is None:
                self._kept = query.new_empty(self._n_samples, query.shape[1])
            self._kept[positions] = query
        return self._kept[positions]

    @contextmanager
    def repeated(self, test: Hashable) -> Iterator[None]:
        """Within it the same batches pass in the same order whenever `test` is the same."""
        self._repeats, self._read = self._tests.setdefault(test, []), 0
        try:
            yield
        finally:
            self._repeats = None

    # Called by the loop

    def before_training_exp(self, loop, **kwargs) -> None:
        self._loop, self._n_samples = loop, len(loop.experience.dataset)

    def before_training_epoch(self, loop, **kwargs) -> None:
        self._complete = loop.clock.train_exp_epochs > 0

    def after_training_exp(self, loop, **kwargs) -> None:
        self._kept = None


def prompt_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Hidden states (B, L, width) and mask (B, L) -> mean over the prompt's tokens (B, width)."""
    asked = (mask == 1).unsqueeze(2)
    return (hidden.float() * asked).sum(dim=1) / asked.sum(dim=1)


class PromptedVision(nn.Module):
    """A frozen vision backbone; a subclass adds prompts and its `forward`."""

    def __init__(self, backbone: nn.Module, queries: QueryCache):
        super().__init__()
        self.backbone = backbone
        self.queries = queries

    @torch.no_grad()
    def embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 3, H, W) -> tokens (B, n, width) and queries (B, width), the class token's."""
        tokens = self.backbone.embed(x)
        return tokens, self.queries(lambda: self.backbone.encode(tokens)[:, 0])


class PromptMethod(Method):
    """A method that trains prompts in front of a frozen backbone and, on vision, the classifier."""

    Config = PromptSettings

    def __init__(self, backbone: nn.Module, config: Any, setting: Setting):
        if config.cache_queries and getattr(setting, "augment", None):
            raise ValueError(
                "cache_queries needs the same pixels in every epoch, but augment is "
                f"{setting.augment!r}: leave one of the two out"
            )
        self.queries = QueryCache()
        train_head_only(backbone)
        super().__init__(backbone, config, setting)

    @classmethod
    def passes(cls, config, task: int, n: int, epochs: int, batch_size: int) -> tuple:
        """The loop's, and the query's forward pass before each of the prompted network."""
        forward, backward = super().passes(config, task, n, epochs, batch_size)
        return forward + n * (1 if config.cache_queries else epochs), backward

    def plugins(self) -> list:
        return [self.queries] if self.config.cache_queries else []

    def diagnostics(self) -> dict:
        """Whether TIME is that of cached queries."""
        return {"cached_queries": self.config.cache_queries}


class PromptPool(nn.Module):
    """Prompts (M, length, width) with keys (M, width), drawn from U(*initial)."""

    def __init__(self, prompts: Tensor, top_k: int, initial: tuple[float, float] = (-1.0, 1.0)):
        super().__init__()
        self.prompts = nn.Parameter(prompts)
        keys = torch.empty(prompts.shape[0], prompts.shape[2])
        self.keys = nn.Parameter(keys.uniform_(*initial))
        self.top_k = top_k

    def forward(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """query (B, width) -> prompts (B, k * length, width), 1 - cosine of the chosen (B, k)."""
        cosine = F.normalize(query, dim=1) @ F.normalize(self.keys, dim=1).T
        best, chosen = cosine.topk(self.top_k, dim=1)
        return self.prompts[chosen].flatten(1, 2), 1 - best


@dataclass(frozen=True)
class PoolSettings(PromptSettings):
    """Settings of a pool, on vision and language alike.

    Attributes:
        pool_size: number of prompts, M.
        prompt_length: tokens of a prompt.
        top_k: prompts picked per sample.
        pull: weight of the term that draws chosen keys to the query.
    """

    pool_size: int = 30
    prompt_length: int = 5
    top_k: int = 5
    pull: float = 0.1

    def __post_init__(self):
        if not 1 <= self.top_k <= self.pool_size:
            raise ValueError(
                f"top_k must lie between 1 and pool_size, {self.pool_size}, but is {self.top_k}"
            )
        checks.at_least_1(self, "prompt_length")
        checks.not_negative(self, "pull")


class PoolMethod(PromptMethod):
    """Prompts from a pool; `model.mismatch` holds 1 - cosine of the chosen keys (B, k)."""

    small = {"pool_size": 4, "prompt_length": 2, "top_k": 2}

    def batch_loss(self, x, y, logits, positions) -> Tensor:
        return self.config.pull * self.model.mismatch.sum(dim=1).mean()


def check_blocks(name: str, wanted: int, adapted_matrices: int) -> None:
    """Raise ValueError if a backbone of that many adapted matrices has too few blocks."""
    available = adapted_matrices // 2  # a query and a value projection each
    if wanted > available:
        raise ValueError(
            f"{name} must be at most {available}, the backbone's blocks, but is {wanted}"
        )


class TaskPromptMethod(TaskParts, PromptMethod):
    """Prompts of which each task trains its own."""

    skips = {"language": "prefixes are there for vision transformers only"}
