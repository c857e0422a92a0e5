"""Tiny networks, samples and methods for the tests; their sizes are chosen to differ."""

from __future__ import annotations

import functools
import pickle
import sys

import torch
from torch import nn

import baselines
from baselines.common.task import Setting, Task
from benchmarks import backbones
from benchmarks.backbones.tokenizer import Tokenizer
from benchmarks.streams.common.tasks import Samples

N_TASKS, PER_TASK = 3, 2  # classes per task
VISION = backbones.TimmFile(
    name="tiny-vit",
    file="tiny-vit",
    pretraining="of a test",
    architecture={
        "model_name": "vit_tiny_patch16_224",
        "img_size": 16,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 3,
    },
    normalisation="half",
)
LANGUAGE = backbones.Embedded(
    name="tiny-llama",
    modality="language",
    pretrain_stream="docs",
    recipe={},
    held_out=2,
    architecture={
        "model_type": "llama",
        "vocab_size": 40,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,  # so that q and v have different shapes
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    },
)
MODALITIES = ("vision", "language")
# One word for each id: "w7" is 7.
TOKENIZER = Tokenizer(
    lambda text: [int(word[1:]) for word in text.split() if word[1:].isdigit()],
    lambda ids: " ".join(f"w{i}" for i in ids if i > 2),
    *(1, 2),
)


def loaded(method: str | type, modality: str) -> type:
    """A method by what `baselines.load` finds it by; a class stands for itself."""
    return method if isinstance(method, type) else baselines.load(method, modality)


def working(method: str, modality: str) -> type | None:
    """A method; None if its file is broken, so that what is asked of the others goes on."""
    try:
        return baselines.load(method, modality)
    except ValueError:
        return None


def pairs(*methods: str) -> list[tuple[str, str]]:
    """All methods, or these, with the modalities that they run on.

    A broken one is among them: its own tests say why.
    """
    every = [(name, modality) for name in methods or baselines.names() for modality in MODALITIES]
    return [pair for pair in every if not (cls := working(*pair)) or cls.skip(pair[1]) is None]


def network(modality: str, seed: int = 0):
    """A random backbone, query and value projections ready to be adapted; draws go on after it."""
    packed, state = _network(modality, seed, torch.get_default_dtype())
    torch.set_rng_state(state)
    return pickle.loads(packed)  # in half the time of a copy


@functools.cache
def _network(modality: str, seed: int, dtype: torch.dtype) -> tuple[bytes, torch.Tensor]:
    torch.manual_seed(seed)
    vision = modality == "vision"
    made = VISION.build(N_TASKS * PER_TASK) if vision else LANGUAGE.build()
    return pickle.dumps(made.split_qkv()), torch.get_rng_state()


def ragged(monkeypatch) -> None:
    """Answers of different length, so that the mean over tokens is not the mean over parts."""
    whole = samples

    def longer(modality: str, task: int, n: int = 12) -> Samples:
        made = whole(modality, task, n)
        if modality == "language":
            some = torch.arange(n) % 3 == 0
            made.x[some, 1, -4:] = 2
            made.y[some, -4:] = made.x[some, 0, -4:]
        return made

    monkeypatch.setattr(sys.modules[__name__], "samples", longer)


def setting(modality: str, **changes) -> Setting:
    vision = modality == "vision"
    classes = torch.arange(N_TASKS).repeat_interleave(PER_TASK)
    values = {
        "modality": modality,
        "n_tasks": N_TASKS,
        "task_of_class": classes if vision else torch.empty(0, dtype=torch.long),
        "batch_size": 4,
        "learning_rate": 0.01,
        "mask": "current" if vision else None,
        "tokenizer": None if vision else TOKENIZER,
    }
    return Setting(**(values | changes))


def samples(modality: str, task: int, n: int = 12) -> Samples:
    """Samples with a pattern that can be learnt; text has rows of different length."""
    generator = torch.Generator().manual_seed(100 + task)
    if modality == "vision":
        y = torch.arange(n) % PER_TASK + PER_TASK * task
        x = torch.randint(0, 256, (n, 3, 16, 16), generator=generator, dtype=torch.uint8)
        x[:, 0, :8] = (y * 40).to(torch.uint8)[:, None, None]
        return Samples(x, y)
    length = 9
    x = torch.zeros(n, 2, length, dtype=torch.long)
    y = torch.full((n, length), -100)
    for i in range(n):
        start = i % 4
        x[i, 0, start:] = torch.randint(3, 40, (length - start,), generator=generator)
        x[i, 0, -3] = 3 + i % 2
        x[i, 0, -2:] = torch.tensor([10 + task + i % 2, 2])
        x[i, 1, start:-2] = 1
        x[i, 1, -2:] = 2
        y[i, -2:] = x[i, 0, -2:]
    return Samples(x, y)


def examples(data: Samples) -> list[tuple[str, str]]:
    """Prompt, up to the space before the answer, and answer of each text sample, as words."""
    parts = [[TOKENIZER.decode(ids[m == k].tolist()) for k in (1, 2)] for ids, m in data.x]
    return [(f"{prompt} ", answer) for prompt, answer in parts]


def tasks(modality: str, n: int = N_TASKS, epochs: int = 2, n_samples: int = 12) -> list[Task]:
    data = [samples(modality, t, n_samples) for t in range(n)]
    texts = [() if modality == "vision" else examples(each) for each in data]
    return [Task(t, f"task{t}", data[t], epochs, texts[t]) for t in range(n)]


def method(which, modality: str, seed: int = 0, shared: dict | None = None, **config):
    """A method, see `loaded`, on a tiny random backbone."""
    net = network(modality, seed)
    cls = loaded(which, modality)
    return cls(net, cls.Config(**cls.small | config), setting(modality, **(shared or {})))


def learn(instance, task: Task):
    """Learn a task from its own seed, as the runner does."""
    torch.manual_seed(1000 + task.index)
    return instance.learn(task)


def outputs(instance, modality: str) -> torch.Tensor:
    """The model's outputs on samples of every task."""
    instance.model.eval()
    with torch.no_grad():
        parts = [instance.model(samples(modality, t).batch(torch.arange(12))[0]) for t in range(3)]
    return torch.cat(parts)


class Adapters(nn.Module):
    """Matrices of LoRA factors under PEFT's names and nothing else; `fill` sets their entries."""

    def __init__(self, n_levels: int, width: int):
        super().__init__()
        self.matrices = nn.ModuleList(nn.Module() for _ in range(n_levels))
        for matrix in self.matrices:
            matrix.lora_A = nn.ModuleDict({"default": nn.Linear(width, 1, bias=False)})

    def fill(self, values: torch.Tensor) -> None:
        """values (L, width)."""
        with torch.no_grad():
            for parameter, row in zip(self.parameters(), values, strict=True):
                parameter.copy_(row[None])
                parameter.grad = None

    def gradient(self) -> torch.Tensor:
        """(L, width)."""
        return torch.cat([p.grad for p in self.parameters()])
