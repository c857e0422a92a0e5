"""L2P: a pool of prompts, of which each input picks a few by matching keys.

Wang et al., "Learning to Prompt for Continual Learning" (CVPR 2022). The backbone is frozen. A
query q(x) from the frozen backbone picks the `top_k` keys of the largest cosine, per sample; their
prompts are prepended to the embedded input. The loss adds pull * sum_k (1 - cos(q, key)), averaged
over the batch, which moves the chosen keys towards the query.

Vision: q is the class token's feature; prompts stand before the class token without position
embedding; the classifier sees the mean of the prompts' outputs (`head_input: prompts`, the paper)
or the class token (`cls`, as in later suites). Language, beyond the paper: q is the frozen model's
last hidden state averaged over the prompt's tokens, and prompts start as embeddings of random
tokens.

Departures:
1. selection is per sample in training and test; the released code's vote of the whole batch leaks
   the task when a test batch holds one;
2. no frequency penalty on keys, as in the released code;
3. prompts and keys on vision start from U(-1, 1), as in the public PyTorch port.
The TreeLoRA paper's appendix A.3: a pool of 30 prompts of length 5; it does not give k.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.prompts import (
    PromptedVision,
    PromptMethod,
    PromptSettings,
    QueryCache,
    prompt_mean,
)


class PromptPool(nn.Module):
    """Prompts (M, length, width) with keys (M, width)."""

    def __init__(self, prompts: Tensor, top_k: int):
        super().__init__()
        self.prompts = nn.Parameter(prompts)
        self.keys = nn.Parameter(torch.empty(prompts.shape[0], prompts.shape[2]).uniform_(-1, 1))
        self.top_k = top_k

    def forward(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """query (B, width) -> prompts (B, k * length, width), 1 - cosine of the chosen (B, k)."""
        cosine = F.normalize(query, dim=1) @ F.normalize(self.keys, dim=1).T
        best, chosen = cosine.topk(self.top_k, dim=1)
        return self.prompts[chosen].flatten(1, 2), 1 - best


class _PromptedVision(PromptedVision):
    def __init__(self, backbone: nn.Module, queries: QueryCache, pool: PromptPool, head_input: str):
        super().__init__(backbone, queries)
        self.pool = pool
        self.head_input = head_input

    def forward(self, x: Tensor) -> Tensor:
        tokens, query = self.embed(x)
        prompts, self.mismatch = self.pool(query)
        encoded = self.backbone.encode(torch.cat([prompts, tokens], dim=1))
        n = prompts.shape[1]
        used = encoded[:, :n].mean(dim=1) if self.head_input == "prompts" else encoded[:, n]
        return self.backbone.head(used)


class _PromptedLanguage(nn.Module):
    def __init__(self, backbone: nn.Module, queries: QueryCache, pool: PromptPool):
        super().__init__()
        self.backbone = backbone
        self.queries = queries
        self.pool = pool

    def _query(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Embeddings (B, L, width) and their mask (B, L) -> mean over the prompt (B, width)."""
        return prompt_mean(self.backbone.hidden(embedded, mask), mask)

    def _prompted(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 2, L) -> embeddings (B, k * length + L, width) and their mask."""
        with torch.no_grad():
            embedded = self.backbone.embed(x[:, 0])
            query = self.queries(len(x), lambda: self._query(embedded, x[:, 1]))
        prompts, self.mismatch = self.pool(query)
        # Positions count unmasked tokens only, so padding between prompts and text has no effect.
        mask = torch.cat([x.new_ones(prompts.shape[:2]), x[:, 1]], dim=1)
        return torch.cat([prompts.to(embedded.dtype), embedded], dim=1), mask

    def forward(self, x: Tensor) -> Tensor:
        embedded, mask = self._prompted(x)
        return self.backbone.answer_logits(self.backbone.hidden(embedded, mask), mask)

    def generate(self, x: Tensor, max_new_tokens: int) -> Tensor:
        return self.backbone.generate_from(*self._prompted(x), max_new_tokens)


class L2P(PromptMethod):
    """Learning to prompt."""

    @dataclass(frozen=True)
    class Config(PromptSettings):
        """Settings of the pool.

        Attributes:
            pool_size: number of prompts, M.
            prompt_length: tokens of a prompt.
            top_k: prompts picked per sample.
            pull: weight of the term that draws chosen keys to the query.
            head_input: what the classifier sees on vision, "prompts" or "cls".
        """

        pool_size: int = 30
        prompt_length: int = 5
        top_k: int = 5
        pull: float = 0.1
        head_input: str = "prompts"

        def __post_init__(self):
            if not 1 <= self.top_k <= self.pool_size:
                raise ValueError(
                    f"top_k must lie between 1 and pool_size, {self.pool_size}, but is {self.top_k}"
                )
            if self.prompt_length < 1:
                raise ValueError(f"prompt_length must be at least 1, but is {self.prompt_length}")
            if self.pull < 0:
                raise ValueError(f"pull must not be negative, but is {self.pull}")
            if self.head_input not in ("prompts", "cls"):
                raise ValueError(f"head_input must be prompts or cls, not {self.head_input!r}")

    def adapt(self, backbone: nn.Module) -> nn.Module:
        config = self.config
        shape = (config.pool_size, config.prompt_length)
        if self.setting.modality == "vision":
            pool = PromptPool(torch.empty(*shape, backbone.width).uniform_(-1, 1), config.top_k)
            return _PromptedVision(backbone, self.queries, pool, config.head_input)
        with torch.no_grad():
            prompts = backbone.embed(torch.randint(backbone.vocabulary, shape)).float()
        return _PromptedLanguage(backbone, self.queries, PromptPool(prompts, config.top_k))

    def batch_penalty(self) -> Tensor:
        return self.config.pull * self.model.mismatch.sum(dim=1).mean()
