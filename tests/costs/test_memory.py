"""The estimate of memory against the tensors that are there, for every method on text."""

import dataclasses
import re
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

import baselines
from baselines.common.task import Task
from benchmarks import backbones
from benchmarks.common.errors import DataError
from benchmarks.costs import memory
from benchmarks.streams.common.tasks import Samples
from tests import tiny
from tests.held import check_needs, needs_of

pytestmark = pytest.mark.slow

METHODS = [name for name, modality in tiny.pairs() if modality == "language"]
VARIANTS = {"ewc-full": {"trained": "all"}, "treelora-gradient": {"signature": "gradient"}}


@pytest.mark.parametrize("label", VARIANTS)
def test_what_a_method_says_it_keeps_is_what_it_has(label):
    """The methods themselves are asked in their contract."""
    check_needs(label.partition("-")[0], VARIANTS[label])


class Peak(TorchDispatchMode):
    """Bytes of all tensors made inside, wherever they are made: at present, and at most."""

    def __init__(self):
        super().__init__()
        self.present = self.most = 0
        self._known = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._count, made)
        return made

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._known:
            return
        self._known[storage._cdata] = storage.nbytes()
        self.present += storage.nbytes()
        self.most = max(self.most, self.present)
        weakref.finalize(storage, self._forget, storage._cdata)

    def _forget(self, address: int) -> None:
        self.present -= self._known.pop(address)


PROMPT, ANSWER, WORDS = 56, 8, 500
WIDER = dataclasses.replace(
    tiny.LANGUAGE,
    name="wider-llama",
    architecture=tiny.LANGUAGE.architecture
    | {"vocab_size": WORDS, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3},
)


def texts(task: int) -> Samples:
    """Eight samples as long as they may be."""
    generator = torch.Generator().manual_seed(task)
    ids = torch.randint(3, WORDS, (8, PROMPT + ANSWER), generator=generator)
    roles = torch.tensor([1] * PROMPT + [2] * ANSWER).expand_as(ids)
    return Samples(torch.stack([ids, roles], dim=1), ids.masked_fill(roles == 1, -100))


@pytest.mark.parametrize(
    ("name", "config", "weights", "train"),
    [
        ("seqlora", {}, None, {}),
        ("seqlora", {}, None, {"checkpointing": True}),
        ("seqlora", {}, None, {"precision": "bfloat16"}),
        ("seqlora", {}, "bfloat16", {"precision": "bfloat16"}),
        ("seqlora", {}, "bfloat16", {"micro_batch_size": 2}),
        ("ewc", {"trained": "all"}, None, {}),
        ("ewc", {"trained": "all"}, "bfloat16", {"precision": "bfloat16"}),
        ("gem", {"memory_per_task": 8}, None, {}),
        ("derpp", {"buffer": 8}, None, {}),
        ("l2p", {"pool_size": 4, "prompt_length": 2, "top_k": 2}, None, {}),
        ("fix", {}, None, {}),
    ],
)
def test_no_moment_of_a_run_takes_more_than_the_estimate(name, config, weights, train, monkeypatch):
    """Learning two tasks, and answers to a test batch after each."""
    monkeypatch.setattr(backbones, "find", {WIDER.name: WIDER}.get)
    cls = baselines.load(name, "language")
    shared = {name: value for name, value in train.items() if name != "checkpointing"}
    with Peak() as peak:
        network = WIDER.build().split_qkv()
        network.ends = [WORDS]  # no answer ends early
        network = network.to(getattr(torch, weights or "float32"))
        if train.get("checkpointing"):
            network.save_memory()
        method = cls(network, cls.Config(**config), tiny.setting("language", **shared))
        for t in range(2):
            data = texts(t)
            tiny.learn(method, Task(t, f"task{t}", data, 1, tiny.examples(data)))
            method.model.eval()
            with torch.no_grad():
                method.model.generate(data.x[:, :, :PROMPT], ANSWER)
    stream = {"max_prompt_tokens": PROMPT, "max_answer_tokens": ANSWER, "n_tasks": 2}
    sizes = {"precision": "float32", "checkpointing": False, "test_batch_size": 8}
    stream |= {"max_new_tokens": ANSWER}
    found = memory.estimate(spec_of(WIDER.name, name, config, weights, stream, **sizes | train))
    assert peak.most < found.total < 1.6 * peak.most


def test_lora_on_images_takes_no_more_than_the_estimate(monkeypatch):
    wide = dataclasses.replace(
        tiny.VISION, architecture=tiny.VISION.architecture | {"embed_dim": 96, "depth": 3}
    )
    monkeypatch.setattr(backbones, "find", {wide.name: wide}.get)
    cls = baselines.load("seqlora", "vision")
    with Peak() as peak:
        method = cls(
            wide.build(tiny.N_TASKS * tiny.PER_TASK).split_qkv(),
            cls.Config(),
            tiny.setting("vision", batch_size=12),
        )
        tiny.learn(method, tiny.tasks("vision")[0])
    spec = {
        "backbone": {"name": wide.name, "image_size": None},
        "train": {"batch_size": 12, "micro_batch_size": None},
    }
    assert peak.most < memory.of_images(spec) < 2 * peak.most


@pytest.mark.parametrize("label", [*METHODS, *VARIANTS])
def test_what_is_kept_never_shrinks_with_the_tasks(label):
    """It grows where something is kept of each; EWC of the whole network does not."""
    name, config = label.partition("-")[0], VARIANTS.get(label, {})
    few, many = (
        needs_of(baselines.load(name, "language"), config, n_tasks=n).kept_bytes for n in (3, 30)
    )
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
    return memory.estimate(spec_of(*arguments, **changes)).total / memory.GIB


def n_parameters(backbone: str) -> int:
    return sum(p.numel() for p in backbones.find(backbone).build(device="meta").parameters())


def test_fix_fills_the_context_of_each_prompt_that_is_tested():
    """Keys and values of 16 texts of 4,096 tokens beside 24 GiB of weights."""
    cache = 16 * 4096 * 40 * 2 * 5120 * 2 / memory.GIB
    weights = 13_015_864_320 * 2 / memory.GIB
    assert weights + cache < needed("llama-2-13b-chat", "fix") < 1.03 * (weights + cache)
    half = needed("llama-2-13b-chat", "fix", test_batch_size=8)
    assert half - weights == pytest.approx(cache / 2, rel=0.05)


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


@pytest.mark.parametrize(
    ("arguments", "changes", "gib", "asked"),
    [
        (("llama-2-13b-chat", "fix"), {}, 48, {"test_batch_size": 4}),
        (("gemma-2b-it", "gem", {"memory_per_task": 64}), {}, 30, {"memory_per_task": 8}),
        (
            ("llama-2-7b-chat", "seqlora"),
            {"weights": None, "precision": "float32", "checkpointing": False},
            20,
            {"weights": "bfloat16", "checkpointing": True, "test_batch_size": 8},
        ),
    ],
)
def test_a_run_that_does_not_fit_is_refused_with_what_would_do(
    arguments, changes, gib, asked, monkeypatch
):
    monkeypatch.setattr(memory, "available_bytes", lambda device: gib * memory.GIB)
    with pytest.raises(DataError) as refused:
        memory.check(spec_of(*arguments, **changes), "cuda")
    words = ", ".join(f"{name}: {str(value).lower()}" for name, value in asked.items())
    assert f"the device has {gib}.0 GiB: set {words}, which takes" in str(refused.value)
    arguments = (*arguments[:2], {n: v for n, v in asked.items() if n == "memory_per_task"})
    told = {n: v for n, v in asked.items() if n != "memory_per_task"}
    assert needed(*arguments, **changes | told) <= gib
    assert "a device" not in memory.check(spec_of(*arguments, **changes | told), "cuda")


def test_what_fits_nowhere_is_told_how_large_a_device_must_be():
    full = spec_of("gemma-2b-it", "ewc", {"trained": "all"}, checkpointing=False)
    n = n_parameters("gemma-2b-it")
    found = re.search(
        r"take one with (\d+) GiB and set checkpointing: true", memory.refuse(full, memory.GIB)
    )
    assert 28 * n / memory.GIB < int(found[1]) < 28 * n / memory.GIB + 15


def test_the_estimate_counts_what_is_there():
    """Weights and what Adam keeps, against the tensors of a real network."""
    one = {"batch_size": 1, "test_batch_size": 1, "precision": "float32", "checkpointing": False}
    stream = {"max_prompt_tokens": 1, "max_answer_tokens": 1, "max_new_tokens": 1}
    spec = spec_of("smollm2-135m-instruct", "seqlora", {"rank": 8}, None, stream, **one)
    least = 4 * n_parameters("smollm2-135m-instruct") + 16 * 8 * 30 * (2 * 576 + 576 + 192)
    assert least < memory.estimate(spec).total < 1.05 * least


def test_the_limit_of_a_job_counts(tmp_path, monkeypatch):
    """Of its own control group and of those around it, on a machine with more memory."""
    inner = tmp_path / "job/step"
    inner.mkdir(parents=True)
    for group, limit in ((inner, "max"), (inner.parent, f"{5 * 2**20}")):
        (group / "memory.max").write_text(limit)
        (group / "memory.current").write_text(f"{2 * 2**20}")
    listing = tmp_path / "cgroup"
    listing.write_text("1:name=systemd:/other\n0::/job/step\n")
    assert list(memory.left_to_groups(tmp_path, listing)) == [3 * 2**20]
    monkeypatch.setattr(memory, "left_to_groups", lambda: [1000])
    assert memory.available_bytes("cpu") == 1000
