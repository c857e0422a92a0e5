"""From prepared streams to tasks: limits, order and tensors, the same for every method."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from baselines.common.text import pad_left, trim_left
from benchmarks import streams
from benchmarks.common.files import DataError, one_sentence, read_json, seed_for
from benchmarks.scoring.scores import answer_tokens
from benchmarks.streams.common.encoding import encode

RESOURCES = Path("resources")


class Samples(Dataset):
    """In-memory samples; images are kept as bytes and become floats batch by batch.

    Training images lie in random order: a plugin that reads them one after the other, as
    Avalanche's own EWC does, must not see one class at a time.
    """

    def __init__(self, x: Tensor, y: Tensor):
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Several samples at once as `common.base` defines x and y, no padding in vain."""
        x, y = self._at(positions)
        return trim_left(x, y) if y.dim() == 2 else (x, y)  # of text

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


@dataclass(frozen=True)
class TaskData:
    """A task as the runner holds it: training samples, test inputs and their gold answers.

    Attributes:
        test_x: images (n, ...) uint8, or prompts (n, 2, L) padded on the left.
        gold: (n,) class indices, or the n answers as text.
        metric: "accuracy" (class-incremental), or on language a name of `scores.METRICS`.
        examples, prompts: on language the training items (prompt, answer) and the test prompts as
            text, whole.
        max_new_tokens: of an answer, on language.
    """

    name: str
    group: str
    metric: str
    train: Samples
    test_x: Tensor
    gold: Tensor | list[str]
    examples: Sequence[tuple[str, str]] = ()
    prompts: Sequence[str] = ()
    max_new_tokens: int = 0


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
    if manifest["modality"] == "vision":
        return _vision(spec, seed, manifest, folder)
    return _language(spec, seed, folder, tokenizer), torch.empty(0, dtype=torch.long)


def _order(n: int, spec: dict, seed: int) -> list[int]:
    if spec["order"] == "fixed":
        return list(range(n))
    return np.random.default_rng(seed_for(seed, "order")).permutation(n).tolist()


def _vision(spec: dict, seed: int, manifest: dict, folder: Path) -> tuple[list[TaskData], Tensor]:
    data = _arrays(folder)
    n_tasks = spec["n_tasks"]
    if "tasks" in manifest:
        per_task = len(manifest["tasks"][0]["classes"])
        chosen = _order(len(manifest["tasks"]), spec, seed)[:n_tasks]
        groups = [list(range(t * per_task, (t + 1) * per_task)) for t in chosen]
        names = [(manifest["tasks"][t]["name"], manifest["tasks"][t]["group"]) for t in chosen]
    else:
        classes = _order(len(manifest["classes"]), spec, seed)
        size = len(classes) // n_tasks
        groups = [classes[t * size : (t + 1) * size] for t in range(n_tasks)]
        names = [(f"task{t + 1}", "") for t in range(n_tasks)]
    tasks, first = [], 0
    for (name, group), labels in zip(names, groups, strict=True):
        train = _select(data, "train", labels, spec["train_per_class"], first)
        shuffled = torch.from_numpy(
            np.random.default_rng(seed_for(seed, "samples", first)).permutation(len(train[1]))
        )
        test_x, test_y = _select(data, "test", labels, spec["test_per_class"], first)
        samples = Samples(*(part[shuffled] for part in train))
        tasks.append(TaskData(name, group, "accuracy", samples, test_x, test_y))
        first += len(labels)
    sizes = torch.tensor([len(labels) for labels in groups])
    return tasks, torch.arange(n_tasks).repeat_interleave(sizes)


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    """Images and labels of both parts; images in a .npy of their own are left on the disk."""
    file = folder / "data.npz"
    with one_sentence(lambda why: f"{file} cannot be read ({why}): delete {folder} and run again"):
        with np.load(file, allow_pickle=False) as arrays:
            data = {name: arrays[name] for name in arrays.files}
        for part in ("train", "test"):
            if f"{part}_images" not in data:
                file = folder / f"{part}_images.npy"
                data[f"{part}_images"] = np.load(file, mmap_mode="r", allow_pickle=False)
            if len(data[f"{part}_labels"]) != len(data[f"{part}_images"]):
                raise ValueError("it has not one label for each image")
    return data


def _select(data: dict, part: str, labels: list[int], limit: int | None, first: int):
    """The first `limit` images of each label, classes renumbered from `first` on."""
    images, targets = [], []
    for i, label in enumerate(labels):
        positions = np.flatnonzero(data[f"{part}_labels"] == label)
        if limit is not None:
            if len(positions) < limit:
                raise DataError(
                    f"{part}_per_class asks for {limit} images, but class {label} has "
                    f"{len(positions)}: lower it"
                )
            positions = positions[:limit]
        images.append(data[f"{part}_images"][positions])
        targets.append(np.full(len(positions), first + i))
    x = torch.from_numpy(np.concatenate(images))
    if x.dim() == 4:
        x = x.permute(0, 3, 1, 2).contiguous()
    return x, torch.from_numpy(np.concatenate(targets)).long()


def _language(spec: dict, seed: int, folder: Path, tokenizer) -> list[TaskData]:
    file = folder / "data.json"
    with one_sentence(lambda why: f"{file} cannot be read ({why}): delete {folder} and run again"):
        raw = json.loads(file.read_text(encoding="utf-8"))
    how = streams.of(spec).options.reading
    tasks = []
    for t in _order(len(raw), spec, seed)[: spec["n_tasks"]]:
        task = raw[t]
        parts = {}
        for part in ("train", "test"):
            limit = spec[f"{part}_per_task"]
            if limit is not None and len(task[part]) < limit:
                raise DataError(
                    f"{part}_per_task asks for {limit} items, but {task['name']} has "
                    f"{len(task[part])}: lower it"
                )
            parts[part] = task[part][:limit]
        train = [encode(tokenizer, i["prompt"], i["answer"], **how) for i in parts["train"]]
        test = [encode(tokenizer, i["prompt"], None, **how) for i in parts["test"]]
        for i, (ids, n_answer) in enumerate(train):
            if len(ids) == n_answer:
                raise DataError(
                    f"item {i + 1} has no token before its answer: its prompt is empty, and this "
                    "tokenizer begins texts with none; give it a prompt or leave it out"
                )
        for (ids, _), item in zip(test, parts["test"], strict=True):
            if not ids:
                raise DataError(
                    f"the test prompt {item['prompt']!r:.60} of {task['name']} has no token, and "
                    "this model's texts begin without one: remove it"
                )
        gold = [i["answer"] for i in parts["test"]]
        longest = _longest([*gold, *(i["answer"] for i in parts["train"])], tokenizer)
        new = spec.get("max_new_tokens") or longest
        if enough := answer_tokens(task["metric"], longest):
            new = min(new, enough)
        tasks.append(
            TaskData(
                task["name"],
                task["group"],
                task["metric"],
                Samples(*pad_left(train)),
                pad_left(test)[0],
                gold,
                examples=[(i["prompt"], i["answer"]) for i in parts["train"]],
                prompts=[i["prompt"] for i in parts["test"]],
                max_new_tokens=new,
            )
        )
    return tasks


def _longest(answers: list[str], tokenizer) -> int:
    """Tokens of the longest answer and its end."""
    return max(len(tokenizer.continuation(answer)) for answer in answers) + 1


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
