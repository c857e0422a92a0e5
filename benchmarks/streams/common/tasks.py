"""From prepared streams to tasks: limits, order and tensors, the same for every method."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from baselines.common.text import pad_left
from benchmarks import streams
from benchmarks.common.digests import seed_for
from benchmarks.common.errors import DataError, one_sentence
from benchmarks.common.files import read_json
from benchmarks.scoring.text_metrics import answer_tokens
from benchmarks.streams.common.base import LanguageOptions, Options, VisionOptions
from benchmarks.streams.common.encoding import encode

RESOURCES = Path("resources")


class Samples(Dataset):
    """In-memory samples; images are kept as bytes and become floats batch by batch.

    Training images lie in random order: a plugin that reads them one after the other, as
    Avalanche's own EWC does, must not see one class at a time.
    """

    def __init__(self, x: Tensor, y: Tensor, starts: Tensor | None = None):
        self.x, self.y = x, y
        # (n,) on the CPU, where each text begins behind its padding: asking a GPU would wait for it
        self._starts = starts if starts is not None or y.dim() == 1 else _starts(x)

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device | str) -> Samples:
        """The same in another memory, which positions on the CPU still index."""
        return Samples(self.x.to(device), self.y.to(device), self._starts)

    def batch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Several samples at once as `common.base` defines x and y, no padding in vain."""
        x, y = self._at(positions.to(self.x.device, non_blocking=True))
        if self._starts is None:
            return x, y
        start = int(self._starts[positions].min())
        return x[:, :, start:], y[:, start:]

    def _at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        x = self.x[positions]
        if x.dtype == torch.uint8:
            x = x.float() / 255
        if x.dim() == 3 and x.is_floating_point():  # grey images (B, H, W)
            x = x.unsqueeze(1).expand(-1, 3, -1, -1)
        return x, self.y[positions]

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor, int]:
        """One sample, all padding kept, and a task label, always 0, that Avalanche expects."""
        x, y = self._at(torch.tensor([position]))
        return x[0], y[0], 0


def _starts(x: Tensor) -> Tensor:
    """Texts (n, 2, L) -> (n,) the padding before each."""
    return (x[:, 1] > 0).byte().argmax(dim=1)


@dataclass(frozen=True)
class TaskData:
    """A task as the runner holds it: training samples, test inputs and their gold answers.

    Attributes:
        test_x: images (n, ...) uint8, or prompts (n, 2, L) padded on the left.
        gold: (n,) class indices, or the n answers as text.
        metric: "accuracy" (class-incremental), or on language a name of `text_metrics.METRICS`.
        items: (n,) the place of each test item among all of the prepared stream (among its training
            part if that is tested), in which nothing depends on a seed, an order or a limit.
        labels: on vision what the prepared stream has for its classes, in the order of `gold`.
        examples, prompts: on language the training items (prompt, answer) and the test prompts as
            text, whole.
        max_new_tokens: of an answer, on language.
        stop: the text before which an answer ends, on language; None for none.
    """

    name: str
    group: str
    metric: str
    train: Samples
    test_x: Tensor
    gold: Tensor | list[str]
    items: Sequence[int]
    labels: Sequence[int] = ()
    examples: Sequence[tuple[str, str]] = ()
    prompts: Sequence[str] = ()
    max_new_tokens: int = 0
    stop: str | None = None

    @property
    def options(self) -> set[str]:
        """The answers of a task of choice, whose items have the same few again and again."""
        answers = {answer for _, answer in self.examples}
        return answers if len(self.examples) >= 4 * len(answers) else set()


def load_stream(spec: dict, seed: int, tokenizer=None) -> tuple[list[TaskData], Tensor]:
    """The tasks of a stream in the order of this seed.

    Args:
        spec: the record's `spec["stream"]`.
        seed: decides the order if `spec["order"]` is "seed"; split and limits never depend on it.
        tokenizer: for language.

    Returns:
        The tasks, and the task of each class (C,), empty on language.

    Raises:
        DataError: the prepared data is missing, corrupt or other than what the spec names.
    """
    folder = RESOURCES / "streams" / streams.place(spec)
    manifest = read_json(folder / "manifest.json")
    if manifest["fingerprint"] != spec["digest"]:
        raise DataError(
            f"the data in {folder} is not what this run asks for (digest "
            f"{manifest['fingerprint'][:12]}, asked {spec['digest'][:12]}): delete the folder and "
            f"run again"
        )
    options = streams.of(spec).options
    task_of_class = torch.empty(0, dtype=torch.long)
    if manifest["modality"] == "vision":
        tasks, task_of_class = _vision(options, seed, manifest, folder)
    else:
        tasks = _language(options, seed, folder, tokenizer)
    if len(tasks) != options.n_tasks:
        raise DataError(
            f"{options.name} has {len(tasks)} tasks, not {options.n_tasks}: ask for less"
        )
    return tasks, task_of_class


def _shares(options: Options) -> tuple[slice, str, slice]:
    """What is learnt of a training part, and the part and its share that are tested."""
    if options.holdout is None:
        return slice(None), "test", slice(None)
    return slice(-options.holdout), "train", slice(-options.holdout, None)


def _require(name: str, limit: int | None, n: int, owner: str) -> None:
    if limit is not None and n < limit:
        raise DataError(f"{name} asks for {limit} items, but {owner} has {n}: lower it")
    if n == 0:
        part = name.partition("_")[0]
        raise DataError(f"{owner} has no {part} items beside those held out: lower holdout")


def _reading(file: Path) -> AbstractContextManager:
    return one_sentence(f"{file} cannot be read", f"delete {file.parent} and run again")


# ---------------------------------------------------------------------------- images


def _vision(
    options: VisionOptions, seed: int, manifest: dict, folder: Path
) -> tuple[list[TaskData], Tensor]:
    data, n_tasks = _arrays(folder), options.n_tasks
    own = manifest.get("tasks", [])
    if own and options.first_task_classes is None:
        sizes = [len(task["classes"]) for task in own]
        labels = _parts(range(sum(sizes)), sizes)
        chosen = options.arranged([task["name"] for task in own], seed)[:n_tasks]
        groups = [labels[t] for t in chosen]
        names = [(own[t]["name"], own[t]["group"]) for t in chosen]
    else:
        classes = manifest.get("classes") or [c for task in own for c in task["classes"]]
        chosen = options.arranged(classes, seed)
        groups = _parts(chosen, options.split(len(chosen), n_tasks))
        names = [(f"task{t + 1}", "") for t in range(n_tasks)]
    learnt, tested, held_out = _shares(options)
    tasks, first = [], 0
    for (name, group), labels in zip(names, groups, strict=True):
        *train, _ = _select(data, "train", labels, options.train_per_class, first, learnt)
        shuffled = torch.from_numpy(
            np.random.default_rng(seed_for(seed, "samples", first)).permutation(len(train[1]))
        )
        test = _select(data, tested, labels, options.test_per_class, first, held_out)
        samples = Samples(*(part[shuffled] for part in train))
        tasks.append(TaskData(name, group, "accuracy", samples, *test, labels))
        first += len(labels)
    sizes = torch.tensor([len(labels) for labels in groups])
    return tasks, torch.arange(len(tasks)).repeat_interleave(sizes)


def _parts(labels: Sequence[int], sizes: Sequence[int]) -> list[Sequence[int]]:
    """The labels shared out in their order."""
    return [labels[end - n : end] for n, end in zip(sizes, accumulate(sizes), strict=True)]


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    """Images and labels of both parts; images in a .npy of their own are left on the disk."""
    file = folder / "data.npz"
    with _reading(file), np.load(file, allow_pickle=False) as arrays:
        data = {name: arrays[name] for name in arrays.files}
    for part in ("train", "test"):
        images = f"{part}_images"
        own = file if images in data else folder / f"{images}.npy"
        with _reading(own):
            if images not in data:
                data[images] = np.load(own, mmap_mode="r", allow_pickle=False)
            if len(data[f"{part}_labels"]) != len(data[images]):
                raise ValueError("it has not one label for each image")
    return data


def _select(data: dict, part: str, labels: list[int], limit: int | None, first: int, share: slice):
    """The first `limit` images of a share of each class, labels from `first` on; their places."""
    images, targets, places = [], [], []
    for i, label in enumerate(labels):
        positions = np.flatnonzero(data[f"{part}_labels"] == label)[share]
        _require(f"{part}_per_class", limit, len(positions), f"class {label}")
        positions = positions[:limit]
        images.append(data[f"{part}_images"][positions])
        targets.append(np.full(len(positions), first + i))
        places += positions.tolist()
    x = torch.from_numpy(np.concatenate(images))
    if x.dim() == 4:
        x = x.permute(0, 3, 1, 2).contiguous()
    return x, torch.from_numpy(np.concatenate(targets)).long(), places


# ---------------------------------------------------------------------------- texts


def _language(options: LanguageOptions, seed: int, folder: Path, tokenizer) -> list[TaskData]:
    file = folder / "data.json"
    with _reading(file):
        tasks = json.loads(file.read_text(encoding="utf-8"))
    order = options.arranged([task["name"] for task in tasks], seed)[: options.n_tasks]
    _, tested, held_out = _shares(options)
    sizes = [len(task[tested]) for task in tasks]
    places = [part[held_out] for part in _parts(range(sum(sizes)), sizes)]
    return [_text_task(tasks[t], places[t], options, tokenizer) for t in order]


def _text_task(task: dict, places: Sequence[int], options: LanguageOptions, tokenizer) -> TaskData:
    """A task of data.json as token ids, limited as asked."""
    learnt, tested, held_out = _shares(options)
    shares = {"train": task["train"][learnt], "test": task[tested][held_out]}
    if options.holdout and not getattr(options, "keep_leaks", None):
        asked = {item["prompt"] for item in shares["test"]}
        shares["train"] = [item for item in shares["train"] if item["prompt"] not in asked]
    items = {}
    for part, given in shares.items():
        limit = getattr(options, f"{part}_per_task")
        _require(f"{part}_per_task", limit, len(given), task["name"])
        items[part] = [(item["prompt"], item["answer"]) for item in given[:limit]]
    prompts, gold = ([item[i] for item in items["test"]] for i in (0, 1))
    train = [encode(tokenizer, *item, **options.reading) for item in items["train"]]
    test = [encode(tokenizer, prompt, None, **options.reading) for prompt in prompts]
    for part, encoded in (("training", train), ("test", test)):
        for i, (ids, n_answer) in enumerate(encoded):
            if len(ids) == n_answer:
                raise DataError(
                    f"{part} item {i + 1} of {task['name']} has no token before its answer: its "
                    "prompt is empty, and this model's texts begin without a token: remove it"
                )
    answers = [*gold, *(answer for _, answer in items["train"])]
    longest = max(len(tokenizer.continuation(answer)) for answer in answers) + 1  # its end
    new = options.max_new_tokens or longest
    if enough := answer_tokens(task["metric"], longest):
        new = min(new, enough)
    return TaskData(
        task["name"],
        task["group"],
        task["metric"],
        Samples(*pad_left(train)),
        pad_left(test)[0],
        gold,
        places[: len(gold)],
        examples=items["train"],
        prompts=prompts,
        max_new_tokens=new,
        stop=task.get("stop"),
    )


# ---------------------------------------------------------------------------- unions


def union(parts: list[Samples], repeats: list[int]) -> Samples:
    """All samples together, those of part i `repeats[i]` times."""
    length = max(p.y.shape[-1] for p in parts) if parts[0].y.dim() == 2 else None
    x, y = [], []
    for part, times in zip(parts, repeats, strict=True):
        px, py = part.x, part.y
        if length is not None:
            missing = length - py.shape[1]
            px = torch.nn.functional.pad(px, (missing, 0))
            py = torch.nn.functional.pad(py, (missing, 0), value=-100)
        x += [px] * times
        y += [py] * times
    return Samples(torch.cat(x), torch.cat(y))


def union_epochs(epochs: list[int]) -> tuple[int, list[int]]:
    """Epochs over the union, and each task's repeats, that show each sample as often as asked."""
    common = math.gcd(*epochs)
    return common, [e // common for e in epochs]
