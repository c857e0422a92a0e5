"""What a method holds in memory on a language model, against what it says of that (`needs`)."""

import dataclasses
import gc

import torch
from torch import nn

from baselines.common.base import Needs
from tests import tiny

ENOUGH = {"ogd": {"directions": 12}}  # for what is kept to be no trifle


def needs_of(cls: type, config: dict, **changes) -> Needs:
    asked = Needs(
        backbone=tiny.network("language"),
        n_tasks=tiny.N_TASKS,
        prompt_tokens=7,
        answer_tokens=2,
        samples=4,
    )
    return cls.needs(cls.Config(**config), dataclasses.replace(asked, **changes))


def check_needs(place, config: dict | None = None) -> None:
    """AssertionError where a method trains or, after three tasks, holds what it does not say."""
    gc.collect()
    gc.freeze()  # else the collector would look at a million objects each time
    tasks = tiny.tasks("language", epochs=1)
    network = sum(p.nbytes for p in tiny.network("language").parameters())
    everything = sum(p.numel() for p in tiny.network("language").parameters())
    before = _storages()
    config = ENOUGH.get(place, {}) | (config or {})
    method = tiny.method(place, "language", **config)
    for task in tasks:
        tiny.learn(method, task)
    have = sum(size for address, size in _storages().items() if address not in before)
    needs = needs_of(type(method), {**method.small, **config})
    trained = sum(p.numel() for p in method.model.parameters() if p.requires_grad)
    assert needs.trained == trained, f"needs() says that it trains {needs.trained} parameters"
    kept = (0 if trained == everything else network) + 16 * trained + needs.kept_bytes
    said = f"needs() says that it keeps {needs.kept_bytes} bytes, which makes {kept} in all"
    assert have < 1.05 * kept, f"{said}, but there are {have}"  # the last batch is among these
    assert kept < 1.3 * have, f"{said}, but there are only {have}"


def _storages() -> dict[int, int]:
    """Address and bytes of all tensors' memory."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    tensors += [t.grad for t in tensors if isinstance(t, nn.Parameter) and t.grad is not None]
    found = (tensor.untyped_storage() for tensor in tensors)
    return {storage.data_ptr(): storage.nbytes() for storage in found if storage.nbytes()}
