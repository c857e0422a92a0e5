"""Causal language models of transformers as methods see them: embed, predict, generate.

No code from outside runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedConfig,
)

from baselines.common.lora import block_of
from benchmarks.common.errors import DataError, one_sentence

# Of a parameter: 4 bits, and for each 64 an 8-bit scale, for 256 of which there is a float.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
Ended = Callable[[Tensor], Tensor]
# What changes the logits behind the last layer, where `LanguageModel` has nothing but the layer.
_LOGIT_OPTIONS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
# Entries of config.json that name code or files, or what a pass returns, none of the network.
_ASIDE = {
    *("auto_map", "attn_implementation", "experts_implementation", "kernel_config"),
    *("fusion_config", "distributed_config", "transformers_weights", "name_or_path"),
    *("return_dict", "output_attentions", "output_hidden_states"),
}


class LanguageModel(nn.Module):
    """A causal language model of transformers behind tensors; see `baselines.common.base` for x.

    Positions count unmasked tokens, so that left padding never changes a result.

    Args:
        network: of any architecture. What it says of generation, penalties, beams or suppressed
            tokens, is dropped.
        ends: ids that end an answer, the first of them written for all; the network's own if empty.

    Attributes:
        decoding: "greedy", or "released": drawn at temperature 0.1 from the 50 likeliest tokens, as
            the code released with TreeLoRA does; the draws are the same in every test and for every
            prompt, whatever is tested beside it.
        context: tokens that it has positions for, None if it does not say.
        ended: says of new ids so far (B, n) which rows need no more (B,), beside `ends`; None for
            nothing else.
    """

    derived = ("lm_head.weight",)  # tied to the embedding

    def __init__(self, network: nn.Module, ends: Sequence[int] = ()):
        super().__init__()
        network.generation_config = GenerationConfig()  # `generate` fills what it is not told
        self.network = network
        own = network.config.eos_token_id
        self.ends = list(ends) or (own if isinstance(own, list) else [own])
        self.width = network.config.hidden_size
        self.vocabulary = network.config.vocab_size
        self.context = getattr(network.config, "max_position_embeddings", None)
        self.decoding = "greedy"
        self.ended: Ended | None = None

    @property
    def is_loaded_in_4bit(self) -> bool:
        """What PEFT asks, to choose its layers."""
        return getattr(self.network, "is_loaded_in_4bit", False)

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

        `ended`, if given, does what the attribute does, beside it.
        """
        return self.generate_from(self.embed(x[:, 0]), x[:, 1], max_new_tokens, ended)

    def generate_from(
        self, embedded: Tensor, mask: Tensor, max_new_tokens: int, ended: Ended | None = None
    ) -> Tensor:
        """The same from embeddings (B, L, width) and their mask (B, L)."""
        how = GenerationConfig(
            max_new_tokens=max_new_tokens, eos_token_id=self.ends, pad_token_id=self.ends[0]
        )
        stops = [each for each in (ended, self.ended) if each]
        new = self.network.generate(
            inputs_embeds=embedded,
            attention_mask=(mask > 0).long(),
            generation_config=how,
            stopping_criteria=[lambda ids, scores, ended=ended: ended(ids) for ended in stops],
            logits_processor=[_Draw()] if self.decoding == "released" else [],
        )
        ends = torch.isin(new, torch.tensor(self.ends, device=new.device))
        return new.masked_fill(ends, self.ends[0])


def nf4() -> BitsAndBytesConfig:
    """As QLoRA quantises (Dettmers et al. 2023, arXiv 2305.14314): 4-bit NormalFloat, its scales in
    8 bits, products in bfloat16. What is no matrix of a block stays in bfloat16."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def weight_bytes(network: nn.Module, weights: str | None) -> int:
    """What a network's parameters take as weights of that option, of None float32."""
    every = sum(p.numel() for p in network.parameters())
    if weights != "nf4":
        return every * (2 if weights else 4)
    inside = sum(
        module.weight.numel()
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and block_of(name) is not None
    )
    return round(inside * NF4_BYTES) + 2 * (every - inside)


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


def build(architecture: dict, weights: str = "float32") -> nn.Module:
    """A network of that config.json with random weights, on the default device.

    Args:
        architecture: entries of the config.json.
        weights: their precision.

    Raises:
        DataError: no network can be made of it, or none that can be adapted here.
    """
    config = configuration(architecture)
    kind = config.model_type
    with one_sentence(
        f"no causal language model of the type {kind!r} can be made of its config.json",
        "choose another model, no code from outside is run",
    ):
        network = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, weights), trust_remote_code=False
        )
    for option in _LOGIT_OPTIONS:
        value = getattr(config, option, None)
        if value not in (None, 1, 1.0):
            raise DataError(
                f"a model of the type {kind!r} changes its logits by {option} ({value}), which is "
                "not supported: choose another model"
            )
    return network


def configuration(architecture: dict) -> PreTrainedConfig:
    """What transformers makes of a config.json, without what names code or files."""
    kind = architecture.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise DataError(
            f"a model of the type {kind!r} needs code that transformers has not, and none from "
            "outside is run: choose another model"
        )
    aside = _ASIDE | {"model_type", *(key for key in architecture if key.startswith("_"))}
    options = {key: value for key, value in architecture.items() if key not in aside}
    with one_sentence(
        f"config.json of a model of the type {kind!r} is damaged", "copy the model anew"
    ):
        return AutoConfig.for_model(kind, **options)
