"""DualPrompt for causal language models: prefixes shared by all tasks, and prefixes per task.

Wang et al., "DualPrompt: Complementary Prompting for Rehearsal-free Continual Learning" (ECCV
2022), which is about images; `baselines.dualprompt` is that. The language model is frozen. Blocks
1..`shared_layers` take the general prefix, the next `task_layers` the expert prefix of a task with
one key for all its blocks. A prefix (P_K, P_V) stands in front of a block's keys and values:

    Attention(Q, [P_K; K], [P_V; V]),

so that every token of the text sees it, in training and in each step of a generation; the text's
own positions stay as they are. Task t trains the general prefix, its own and its key with

    loss + pull * mean_b (1 - cos(q(x_b), key_t)),

q being the frozen model's last hidden state averaged over the prompt's tokens. At test a row takes
the task whose key has the largest cosine with its q, among those learnt so far; before the first
there is no expert prefix.

Prefixes start as the keys and values that the frozen model computes for random tokens, which is
what its attention is used to; from the second task on a prefix starts as its predecessor's.

Departures:
1. the query: the authors' is the class token of an image;
2. the start of the prefixes; the authors draw them from U(0, 0.01); keys start from U(-1, 1);
3. a task starts with a fresh optimiser whatever the run's `optimizer_reset` says.

TreeLoRA's authors ran something else under this name: prompt tokens in the input, of the current
task as told, with no key, and generation without any prompt. That is not offered. As the paper's
blocks are those of a ViT, a suite may choose others for deep language models.

Checked against an independent reference over three tasks (`tests/references`); no public code was
run beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.common.base import Needs
from baselines.common.prompts import QueryCache, prompt_mean
from baselines.dualprompt import DualPrompt

ATTENTION = "prefixed"


def attend(
    attention: Callable,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    **options,
) -> tuple:
    """What `attention` gives with `module.prefix` in front of keys and values, if it has one.

    Args:
        attention: transformers' scaled dot-product attention.
        module: of the block; its `prefix` is (keys, values), each (B, key heads, length, size).
        query: (B, heads, n, size).
        key, value: (B, key heads, m, size), those cached included.
        mask: (B, 1, n, m), true where a query may look; None if that is wherever is no future.
        options: of that attention.
    """
    prefix = getattr(module, "prefix", None)
    if prefix is not None:
        n, m, length = query.shape[2], key.shape[2], prefix[0].shape[2]
        if mask is None:
            mask = torch.ones(n, m, dtype=torch.bool, device=key.device).tril(m - n)[None, None]
        mask = F.pad(mask, (length, 0), value=True)
        key, value = (
            torch.cat([part.to(own.dtype), own], dim=2)
            for part, own in zip(prefix, (key, value), strict=True)
        )
    return attention(module, query, key, value, mask, **options)


class Prefixes:
    """Puts prefixes into the attention of a causal language model of transformers.

    Raises:
        ValueError: its attention is not transformers' scaled dot-product attention.
    """

    def __init__(self, backbone: nn.Module):
        from transformers import AttentionInterface, AttentionMaskInterface  # seconds to import
        from transformers.integrations.sdpa_attention import sdpa_attention_forward
        from transformers.masking_utils import sdpa_mask

        found = backbone.network.config._attn_implementation
        if found != "sdpa":
            raise ValueError(
                "prefixes need scaled dot-product attention (sdpa), but the attention of "
                f"{type(backbone.network).__name__} is {found}: choose another backbone"
            )
        AttentionInterface.register(ATTENTION, partial(attend, sdpa_attention_forward))
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        backbone.network.set_attn_implementation(ATTENTION)
        self._attentions = [module for module in backbone.modules() if hasattr(module, "q_proj")]

    def use(self, layers: Mapping[int, Tensor]) -> None:
        """From now on, index of a block -> (keys and values, B, key heads, length, size)."""
        for i, attention in enumerate(self._attentions):
            attention.prefix = layers[i].unbind(0) if i in layers else None


@torch.no_grad()
def random_prefix(backbone: nn.Module, layers: range, length: int) -> Tensor:
    """Keys and values of `length` random tokens: (2, layers, key heads, length, size)."""
    if not layers or not length:
        config = backbone.network.config
        size = getattr(config, "head_dim", None) or backbone.width // config.num_attention_heads
        return torch.empty(2, len(layers), config.num_key_value_heads, length, size)
    ids = torch.randint(backbone.vocabulary, (1, length))
    embedded = backbone.embed(ids.to(next(backbone.parameters()).device))
    training = backbone.training
    backbone.eval()  # checkpointing in training leaves no cache
    cache = backbone.network.base_model(inputs_embeds=embedded, use_cache=True).past_key_values
    backbone.train(training)
    kept = [torch.cat([cache.layers[i].keys, cache.layers[i].values]) for i in layers]
    return torch.stack(kept, dim=1).float()


class _DualPrompted(nn.Module):
    """Prefixes lie as (keys and values, blocks, key heads, length, size)."""

    def __init__(self, backbone: nn.Module, queries: QueryCache, config: DualPrompt.Config, n: int):
        super().__init__()
        self.backbone = backbone
        self.queries = queries
        shared = range(config.shared_layers)
        own = range(config.shared_layers, config.shared_layers + config.task_layers)
        self.shared = nn.Parameter(random_prefix(backbone, shared, config.shared_length))
        self.prompts = nn.ParameterList(
            random_prefix(backbone, own, config.task_length) for _ in range(n)
        )
        self.keys = nn.ParameterList(torch.empty(backbone.width).uniform_(-1, 1) for _ in range(n))
        self.prefixes = Prefixes(backbone)
        self.task = -1
        self.inferred = None

    def parts(self, task: int) -> list[nn.Parameter]:
        return [self.prompts[task], self.keys[task]]

    def match(self, query: Tensor) -> Tensor:
        """query (B, width) -> the task of each row (B,), among those learnt so far."""
        keys = torch.stack(list(self.keys[: self.task + 1]))
        return (F.normalize(query, dim=1) @ F.normalize(keys, dim=1).T).argmax(dim=1)

    def _prefixed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Choose the prefixes of x (B, 2, L); its embeddings (B, L, width) and mask (B, L)."""
        n, mask = len(x), x[:, 1]
        self.prefixes.use({})
        with torch.no_grad():
            embedded = self.backbone.embed(x[:, 0])
            query = self.queries(lambda: prompt_mean(self.backbone.hidden(embedded, mask), mask))
        layers = list(self.shared[:, :, None].expand(-1, -1, n, -1, -1, -1).unbind(1))
        if self.training:
            self.mismatch = 1 - F.cosine_similarity(query, self.keys[self.task], dim=-1)
            own = self.prompts[self.task][:, :, None].expand(-1, -1, n, -1, -1, -1)
            layers += own.unbind(1)
        elif self.task >= 0:
            self.inferred = self.match(query)
            prompts = torch.stack(list(self.prompts[: self.task + 1]), dim=2)
            layers += prompts[:, :, self.inferred].unbind(1)
        else:
            self.inferred = x.new_zeros(n)
        self.prefixes.use({i: layer for i, layer in enumerate(layers) if layer.shape[3]})
        return embedded, mask

    def forward(self, x: Tensor) -> Tensor:
        embedded, mask = self._prefixed(x)
        return self.backbone.answer_logits(self.backbone.hidden(embedded, mask), mask)

    def generate(self, x: Tensor, max_new_tokens: int) -> Tensor:
        return self.backbone.generate_from(*self._prefixed(x), max_new_tokens)


class DualPromptLanguage(DualPrompt):
    """General prefixes and matched expert prefixes."""

    skips = {"vision": "baselines/dualprompt.py is for vision"}

    @classmethod
    def needs(cls, config, needs: Needs) -> Needs:
        """The prefixes and keys of all tasks."""
        attention = next(module for module in needs.backbone.modules() if hasattr(module, "q_proj"))
        key_and_value = 2 * attention.k_proj.out_features
        shared = config.shared_layers * config.shared_length * key_and_value
        own = config.task_layers * config.task_length * key_and_value + needs.backbone.width
        kept_bytes = 4 * (needs.n_tasks - 1) * own
        return dataclasses.replace(needs, trained=shared + own, kept_bytes=kept_bytes)

    def adapt(self, backbone: nn.Module) -> nn.Module:
        return _DualPrompted(backbone, self.queries, self.config, self.setting.n_tasks)
