"""The estimate of memory against the tensors that are there, for every method on text."""

import dataclasses
import gc

import pytest
import torch
from torch import nn

import baselines
from baselines.common.base import Needs
from benchmarks import backbones
from benchmarks.common.errors import DataError
from benchmarks.costs import memory
from tests import tiny

pytestmark = pytest.mark.slow

METHODS = [name for name, modality in tiny.pairs() if modality == "language"]
VARIANTS = {"ewc-full": {"trained": "all"}, "treelora-gradient": {"signature": "gradient"}}
CONFIGS = {"ogd": {"directions": 12}}


@pytest.fixture(scope="module")
def few_objects():
    """What lives by now is out of the collector's sight: it would look at a million objects."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def storages() -> dict[int, int]:
    """Address and bytes of all tensors' memory."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    tensors += [t.grad for t in tensors if isinstance(t, nn.Parameter) and t.grad is not None]
    found = (tensor.untyped_storage() for tensor in tensors)
    return {storage.data_ptr(): storage.nbytes() for storage in found if storage.nbytes()}


def needs_of(name: str, config: dict, **changes) -> Needs:
    cls = baselines.load(name, "language")
    asked = Needs(
        backbone=tiny.network("language"),
        n_tasks=tiny.N_TASKS,
        prompt_tokens=7,
        answer_tokens=2,
        samples=4,
    )
    return cls.needs(cls.Config(**config), dataclasses.replace(asked, **changes))


@pytest.mark.parametrize("label", [*METHODS, *VARIANTS])
def test_what_a_method_needs_covers_what_it_has_and_not_much_more(label, few_objects):
    name, config = label.partition("-")[0], VARIANTS.get(label, {})
    tasks = tiny.tasks("language")
    network = sum(p.nbytes for p in tiny.network("language").parameters())
    before = storages()
    method = tiny.method(name, "language", **(CONFIGS.get(name, {}) | config))
    for task in tasks:
        tiny.learn(method, task)
    have = sum(size for address, size in storages().items() if address not in before)
    needs = needs_of(name, {**method.small, **CONFIGS.get(name, {}), **config})
    if label == "ewc-full":
        assert needs.trained * 4 == network
        network = 0
    kept = network + 16 * needs.trained + needs.kept_bytes
    assert have < 1.05 * (kept + needs.made_bytes)  # the last batch is there as well
    assert kept < 1.3 * have
    trained = sum(p.numel() for p in method.model.parameters() if p.requires_grad)
    assert needs.trained == trained


@pytest.mark.parametrize("label", [*METHODS, *VARIANTS])
def test_what_is_kept_never_shrinks_with_the_tasks(label):
    """It grows where something is kept of each; EWC of the whole network does not."""
    name, config = label.partition("-")[0], VARIANTS.get(label, {})
    few, many = (needs_of(name, config, n_tasks=n).kept_bytes for n in (3, 30))
    assert few <= many
    assert few < many or label not in ("gem", "olora", "treelora")
    assert few == many or label not in ("ewc", "ewc-full", "seqlora")


def spec_of(
    backbone: str, name: str, config: dict | None = None, weights="bfloat16", stream=None, **train
) -> dict:
    """A run in the setting of the paper's suite."""
    cls = baselines.load(name, "language")
    settings = dataclasses.asdict(cls.Config(**(config or {})))
    shared = {"batch_size": 4, "micro_batch_size": None, "precision": "bfloat16"}
    return {
        "backbone": {"name": backbone, "weights": weights},
        "stream": {"max_prompt_tokens": 1024, "max_new_tokens": 512, "n_tasks": 8} | (stream or {}),
        "train": shared | {"checkpointing": True, "test_batch_size": 16} | train,
        "method": {"name": name, "config": settings},
    }


def needed(*arguments, **changes) -> float:
    """GiB of a run."""
    return memory.needed_bytes(spec_of(*arguments, **changes)) / memory.GIB


def n_parameters(backbone: str) -> int:
    return sum(p.numel() for p in backbones.find(backbone).build(device="meta").parameters())


def test_fix_fills_the_context_of_each_prompt_that_is_tested():
    """Keys and values of 16 texts of 4,096 tokens beside 24 GiB of weights."""
    cache = 16 * 4096 * 40 * 2 * 5120 * 2 / memory.GIB
    weights = 13_015_864_320 * 2 / memory.GIB
    assert weights + cache < needed("llama-2-13b-chat", "fix") < 1.02 * (weights + cache)
    half = needed("llama-2-13b-chat", "fix", test_batch_size=8)
    assert half - weights == pytest.approx(cache / 2, rel=0.02)


def test_ewc_of_all_weights_holds_seven_copies_of_them():
    """Value, gradient, two moments, S, m and one in a step; activations come on top."""
    n = n_parameters("gemma-2b-it")
    small = {"batch_size": 1, "test_batch_size": 1}
    found = needed("gemma-2b-it", "ewc", {"trained": "all"}, **small)
    assert 28 * n / memory.GIB < found < 28 * n / memory.GIB + 8


def test_gem_passes_a_whole_memory_at_once():
    small, large = (
        needed("llama-3.2-1b-instruct", "gem", {"memory_per_task": n}, test_batch_size=1)
        for n in (4, 32)
    )
    assert large > 2 * small
    assert small == pytest.approx(needed("llama-3.2-1b-instruct", "seqlora"), rel=0.1)


def test_micro_batches_take_less_but_for_a_second_gradient():
    whole, parts = (
        needed("gemma-2b-it", "ewc", {"trained": "all"}, batch_size=n, micro_batch_size=m)
        for n, m in ((4, None), (16, 4))
    )
    n = n_parameters("gemma-2b-it")
    assert parts - whole == pytest.approx(4 * n / memory.GIB)


def test_a_run_that_does_not_fit_is_refused_with_what_would_help(monkeypatch):
    changes = {"weights": None, "precision": "float32", "checkpointing": False}
    monkeypatch.setattr(memory, "available_bytes", lambda device: 20 * memory.GIB)
    with pytest.raises(DataError) as refused:
        memory.check(spec_of("llama-2-7b-chat", "seqlora", **changes), "cuda")
    for remedy in ("weights: bfloat16", "checkpointing: true", "micro_batch_size: 1"):
        assert remedy in str(refused.value)
    fits = spec_of("smollm2-135m-instruct", "seqlora", **changes, test_batch_size=8)
    assert "GiB are needed and 20.0 GiB are free" in memory.check(fits, "cuda")


def test_the_estimate_counts_what_is_there():
    """Weights and what Adam keeps, against the tensors of a real network."""
    one = {"batch_size": 1, "test_batch_size": 1, "precision": "float32", "checkpointing": False}
    stream = {"max_prompt_tokens": 1, "max_answer_tokens": 1, "max_new_tokens": 1}
    spec = spec_of("smollm2-135m-instruct", "seqlora", {"rank": 8}, None, stream, **one)
    least = 4 * n_parameters("smollm2-135m-instruct") + 16 * 8 * 30 * (2 * 576 + 576 + 192)
    assert least < memory.needed_bytes(spec) < 1.05 * least
