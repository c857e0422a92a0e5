"""Operations of a network's passes, counted as they are dispatched on the meta device.

A multiply-add is two operations. Matrix products, convolutions and attention count, attention in
full although it is causal, and logits of every token; elementwise work does not. Nothing is
computed, so a network needs no weights.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from baselines.common.lora import LoraSettings, add_lora
from benchmarks import backbones
from benchmarks.backbones import Backbone


class Passes(NamedTuple):
    """Operations of a forward and of a backward pass."""

    forward: int
    backward: int

    def minus(self, other: Passes) -> Passes:
        return Passes(self.forward - other.forward, self.backward - other.backward)


def network(backbone: Backbone, image_size: int | None = None, device: str = "meta") -> nn.Module:
    """What is counted of a backbone: a `VisionModel`, or transformers' own with eager attention."""
    model = backbone.build(0, image_size, device=device).split_qkv()
    if backbone.modality == "vision":
        return model
    model.network.config._attn_implementation = "eager"
    return model.network


def run(model: nn.Module, modality: str, tokens: int, prompts: int = 0) -> Tensor:
    """One sequence through a model, behind trained prompt tokens if there are any.

    Args:
        model: a `network`, perhaps with LoRA.
        tokens: of a text; those of an image are the model's own.

    Returns:
        Logits (1, tokens, V), or on vision the last tokens (1, prompts + tokens, width).
    """
    on = {"device": next(model.parameters()).device}
    if modality == "vision":
        embedded = model.embed(torch.zeros(1, 3, *model.image_size, **on))
    else:
        embedded = model.get_input_embeddings()(torch.zeros(1, tokens, dtype=torch.long, **on))
    if prompts:
        added = torch.zeros(1, prompts, embedded.shape[2], requires_grad=True, **on)
        embedded = torch.cat([added, embedded], dim=1)
    if modality == "vision":
        return model.encode(embedded)
    # The mask is given, as transformers cannot derive one from values on the meta device.
    mask = torch.zeros(1, 1, tokens + prompts, tokens + prompts, **on)
    return model(
        inputs_embeds=embedded, attention_mask=mask, use_cache=False, logits_to_keep=tokens
    ).logits


def passes(model: nn.Module, modality: str, tokens: int, prompts: int = 0) -> Passes:
    """The operations of `run` and of the gradients of what requires one."""
    with FlopCounterMode(display=False) as counter:
        out = run(model, modality, tokens, prompts)
        forward = counter.get_total_flops()
        out.sum().backward()
    return Passes(forward, counter.get_total_flops() - forward)


@functools.cache
def lora_passes(name: str, image_size: int | None, tokens: int) -> tuple[Passes, int]:
    """Of one sample through a backbone with LoRA; and the backbone's parameters, LoRA's too."""
    backbone = backbones.find(name)
    with torch.device("meta"):
        model = add_lora(network(backbone, image_size), LoraSettings())
    n_parameters = sum(p.numel() for p in model.parameters())
    return passes(model, backbone.modality, tokens), n_parameters
