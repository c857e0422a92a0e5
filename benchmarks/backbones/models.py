"""The two kinds of backbone as methods see them: embed, encode, classify or generate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.common.base import start_head

Ended = Callable[[Tensor], Tensor]


class _SplitQKV(nn.Module):
    """timm's fused attention input as three linear maps, so that LoRA can adapt each alone."""

    def __init__(self, fused: nn.Linear):
        super().__init__()
        width = fused.in_features
        for i, name in enumerate(("q_proj", "k_proj", "v_proj")):
            part = nn.Linear(width, width, bias=fused.bias is not None)
            rows = slice(i * width, (i + 1) * width)
            part.weight.data = fused.weight.data[rows].clone()
            if fused.bias is not None:
                part.bias.data = fused.bias.data[rows].clone()
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], dim=-1)


class VisionModel(nn.Module):
    """A timm vision transformer with a linear classifier on the class token.

    Inputs (B, 3, H, W) in [0, 1] of any size are resized (bicubic) and normalised inside.
    """

    derived: tuple[str, ...] = ()

    def __init__(
        self,
        network: nn.Module,
        n_classes: int,
        mean: float | tuple[float, ...],
        std: float | tuple[float, ...],
    ):
        super().__init__()
        self.network = network
        self.width = network.embed_dim
        self.image_size = network.patch_embed.img_size
        for name, value in (("_mean", mean), ("_std", std)):
            if isinstance(value, tuple):  # one for each channel
                value = torch.tensor(value)[:, None, None]
                self.register_buffer(name, value, persistent=False)
            else:
                setattr(self, name, value)
        self.head = start_head(nn.Linear(self.width, n_classes))

    def fitted(self, state: dict) -> dict:
        """A checkpoint with its position embedding resampled to this input size."""
        from timm.models.vision_transformer import checkpoint_filter_fn

        return checkpoint_filter_fn(state, self.network)

    def split_qkv(self) -> VisionModel:
        """Separate the query, key and value projections; the function does not change."""
        for block in self.network.blocks:
            block.attn.qkv = _SplitQKV(block.attn.qkv)
        return self

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> class token and patches with positions (B, 1 + patches, width)."""
        if x.shape[-2:] != torch.Size(self.image_size):
            x = F.interpolate(x, self.image_size, mode="bicubic", antialias=False).clamp(0, 1)
        network = self.network
        tokens = network.patch_embed((x - self._mean) / self._std)
        return network.norm_pre(network._pos_embed(tokens))

    def at_class_token(self, tokens: Tensor) -> Tensor:
        """Tokens (B, n, width) with the position embedding of the class token, if it has one."""
        network = self.network
        if not network.no_embed_class and network.pos_embed is not None:
            tokens = tokens + network.pos_embed[:, :1]
        return network.norm_pre(tokens)

    def encode(self, tokens: Tensor) -> Tensor:
        """Tokens (B, n, width) through all blocks and the final norm; the same shape."""
        return self.network.norm(self.network.blocks(tokens))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> logits (B, C)."""
        return self.head(self.encode(self.embed(x))[:, 0])


class LanguageModel(nn.Module):
    """A causal language model of transformers behind tensors; see `baselines.common.base` for x.

    Positions count unmasked tokens, so that left padding never changes a result.

    Args:
        network: of any architecture with q_proj, k_proj and v_proj in its attention. What it says
            of generation, penalties, beams or suppressed tokens, is dropped.
        ends: ids that end an answer, the first of them written for all; the network's own if empty.

    Attributes:
        decoding: "greedy", or "released": drawn at temperature 0.1 from the 50 likeliest tokens, as
            the code released with TreeLoRA does; the draws are the same in every test and for every
            prompt, whatever is tested beside it.
        context: tokens that it has positions for, None if it does not say.
    """

    derived = ("lm_head.weight",)  # tied to the embedding

    def __init__(self, network: nn.Module, ends: Sequence[int] = ()):
        super().__init__()
        from transformers import GenerationConfig

        network.generation_config = GenerationConfig()  # `generate` fills what it is not told
        self.network = network
        own = network.config.eos_token_id
        self.ends = list(ends) or (own if isinstance(own, list) else [own])
        self.width = network.config.hidden_size
        self.vocabulary = network.config.vocab_size
        self.context = getattr(network.config, "max_position_embeddings", None)
        self.decoding = "greedy"

    def fitted(self, state: dict) -> dict:
        return state

    def split_qkv(self) -> LanguageModel:
        """Query, key and value are separate already."""
        return self

    def save_memory(self) -> None:
        """Keep only the input of each block in training, and compute its inside anew backwards."""
        self.network.activation_checkpointing_enable({"use_reentrant": False})

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (..., L) -> embeddings (..., L, width)."""
        return self.network.get_input_embeddings()(ids)

    def hidden(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Embeddings (B, L, width) and mask (B, L) -> last hidden states (B, L, width)."""
        attended = (mask > 0).long()
        positions = (attended.cumsum(dim=1) - 1).clamp_min(0)
        return self.network.base_model(
            inputs_embeds=embedded,
            attention_mask=attended,
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state

    def answer_logits(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Hidden states (B, L, width) and mask (B, L) -> logits (B, A, V) of the last A tokens.

        A is the length of the longest answer: no other position is asked for, and the vocabulary
        makes logits the largest tensor of a step.
        """
        longest = int((mask == 2).sum(dim=1).max())
        return self.network.get_output_embeddings()(hidden[:, -longest - 1 : -1])

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 2, L) -> logits (B, A, V) that predict the last A tokens, A the longest answer."""
        return self.answer_logits(self.hidden(self.embed(x[:, 0]), x[:, 1]), x[:, 1])

    def generate(self, x: Tensor, max_new_tokens: int, ended: Ended | None = None) -> Tensor:
        """Continuation of prompts x (B, 2, L): new token ids (B, <= max_new_tokens).

        `ended`, if given, says of new ids so far (B, n) which rows need no more (B,).
        """
        return self.generate_from(self.embed(x[:, 0]), x[:, 1], max_new_tokens, ended)

    def generate_from(
        self, embedded: Tensor, mask: Tensor, max_new_tokens: int, ended: Ended | None = None
    ) -> Tensor:
        """The same from embeddings (B, L, width) and their mask (B, L)."""
        from transformers import GenerationConfig

        how = GenerationConfig(
            max_new_tokens=max_new_tokens, eos_token_id=self.ends, pad_token_id=self.ends[0]
        )
        new = self.network.generate(
            inputs_embeds=embedded,
            attention_mask=(mask > 0).long(),
            generation_config=how,
            stopping_criteria=[lambda ids, scores: ended(ids)] if ended else [],
            logits_processor=[_Draw()] if self.decoding == "released" else [],
        )
        ends = torch.isin(new, torch.tensor(self.ends, device=new.device))
        return new.masked_fill(ends, self.ends[0])


class _Draw:
    """Draws at temperature 0.1 from the 50 likeliest tokens, and leaves the drawn one alone.

    By the Gumbel-max trick, with the same noise for the ranks of all rows.
    """

    def __init__(self):
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) of the next token -> 0 for the drawn one, -inf for the others."""
        likeliest = scores.topk(min(50, scores.shape[1]))
        noise = -torch.empty(50).exponential_(generator=self._generator).log()
        noise = noise[: likeliest.values.shape[1]].to(scores.device)
        rank = (likeliest.values / 0.1 + noise).argmax(dim=1, keepdim=True)
        drawn = likeliest.indices.gather(1, rank)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)
