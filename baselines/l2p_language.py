"""L2P for causal language models: prompts from a pool stand before the embedded text.

Wang et al., "Learning to Prompt for Continual Learning" (CVPR 2022), which is about images; see
`baselines.l2p` for the pool, its keys and the loss.

Departures, beyond those there:
1. the query is the frozen model's last hidden state averaged over the prompt's tokens; the authors'
   is the class token of an image;
2. prompts start as embeddings of random tokens; keys start from U(-1, 1).

Checked against an independent reference over three tasks (`tests/references`); no public code was
run beside it.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from baselines.common.base import Needs
from baselines.common.prompts import PoolMethod, PoolSettings, PromptPool, QueryCache, prompt_mean


class _Prompted(nn.Module):
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
            query = self.queries(lambda: self._query(embedded, x[:, 1]))
        prompts, self.mismatch = self.pool(query)
        # Positions count unmasked tokens only, so padding between prompts and text has no effect.
        mask = torch.cat([x.new_ones(prompts.shape[:2]), x[:, 1]], dim=1)
        return torch.cat([prompts.to(embedded.dtype), embedded], dim=1), mask

    def forward(self, x: Tensor) -> Tensor:
        embedded, mask = self._prompted(x)
        return self.backbone.answer_logits(self.backbone.hidden(embedded, mask), mask)

    def generate(self, x: Tensor, max_new_tokens: int) -> Tensor:
        return self.backbone.generate_from(*self._prompted(x), max_new_tokens)


class L2PLanguage(PoolMethod):
    """Learning to prompt, on text."""

    Config = PoolSettings
    skips = {"vision": "baselines/l2p.py is for vision"}

    @classmethod
    def needs(cls, config, needs: Needs) -> Needs:
        trained = config.pool_size * (config.prompt_length + 1) * needs.backbone.width
        prompt_tokens = needs.prompt_tokens + config.top_k * config.prompt_length
        return dataclasses.replace(needs, trained=trained, prompt_tokens=prompt_tokens)

    def adapt(self, backbone: nn.Module) -> nn.Module:
        config = self.config
        with torch.no_grad():
            ids = torch.randint(backbone.vocabulary, (config.pool_size, config.prompt_length))
            # weights in 4 bits lie on the GPU from the start
            prompts = backbone.embed(ids.to(next(backbone.parameters()).device)).float()
        return _Prompted(backbone, self.queries, PromptPool(prompts, config.top_k))
