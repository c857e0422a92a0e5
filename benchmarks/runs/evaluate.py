"""Outputs of a model on a task, task identity unknown, and their scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from analysis.records.predictions import Cell
from benchmarks.common.devices import TEST_BATCH_SIZE
from benchmarks.scoring import text_metrics
from benchmarks.streams.common.tasks import Samples, TaskData


def answer(
    model,
    task: TaskData,
    n_seen: int,
    device: str,
    tokenizer=None,
    batch_size: int = TEST_BATCH_SIZE,
) -> Cell:
    """What the model answers to each test item, and its score.

    Vision: the best of the `n_seen` classes that arrived so far, and whether it is right.
    Language: a text, which ends before the task's stop, scored by the task's metric. Of a model
    that says which tasks (B,) it inferred for a batch, these are kept, too.
    """
    model.eval()
    inferred = [] if hasattr(model, "inferred") else None
    if task.metric == "accuracy":
        outputs = classify(model, task.test_x, n_seen, device, inferred, batch_size)
        scores = [float(a == b) for a, b in zip(outputs, task.gold.tolist(), strict=True)]
    else:
        how = task.max_new_tokens, device, tokenizer, inferred, batch_size, task.stop
        outputs = generate(model, task.test_x, *how)
        scores = text_metrics.scores(task.metric, outputs, task.gold, task.prompts)
    return Cell(outputs, scores, inferred and torch.cat(inferred).tolist())


def legal_share(outputs: list[str], task: TaskData) -> float | None:
    """The share of outputs that the task's metric takes for one of its options, right or wrong.

    None if it has none.
    """
    taken = [
        text_metrics.scores(task.metric, outputs, [option] * len(outputs), task.prompts)
        for option in task.options
    ]
    return sum(max(of) == 1 for of in zip(*taken, strict=True)) / len(outputs) if taken else None


@torch.no_grad()
def classify(
    model,
    images: Tensor,
    n_seen: int,
    device: str,
    inferred: list[Tensor] | None = None,
    batch_size: int = TEST_BATCH_SIZE,
) -> list[int]:
    """The class of each image (n, ...), among the first `n_seen`."""
    samples, classes = Samples(images, torch.empty(len(images))), []
    for positions in torch.arange(len(images)).split(batch_size):
        x, _ = samples.batch(positions)
        classes += model(x.to(device))[:, :n_seen].argmax(dim=1).tolist()
        if inferred is not None:
            inferred.append(model.inferred.cpu())
    return classes


@contextmanager
def _ends_at(stop: str | None, model: nn.Module, tokenizer) -> Iterator[None]:
    """No row of new ids goes on behind the text `stop`."""
    if stop is None:
        yield
        return
    from benchmarks.backbones.language import LanguageModel  # transformers takes seconds to import

    most = len(stop.encode()) + 1  # ids, each of a byte or more, that it may lie in

    def ended(new: Tensor) -> Tensor:
        rows = new[:, -most:].tolist()
        return torch.tensor([stop in tokenizer.decode(ids) for ids in rows], device=new.device)

    network = next(module for module in model.modules() if isinstance(module, LanguageModel))
    network.ended = ended
    try:
        yield
    finally:
        network.ended = None


@torch.no_grad()
def generate(
    model,
    prompts: Tensor,
    max_new_tokens: int,
    device: str,
    tokenizer,
    inferred: list[Tensor] | None = None,
    batch_size: int = TEST_BATCH_SIZE,
    stop: str | None = None,
) -> list[str]:
    """Answers to prompts (n, 2, L), in batches of similar length if there are several.

    `inferred`, if given, collects the tasks that the model says it inferred. An answer ends before
    the text `stop`.
    """
    order = torch.arange(len(prompts))
    if len(prompts) > batch_size:
        order = (prompts[:, 1] > 0).sum(dim=1).argsort(stable=True)
    answers, tasks = [""] * len(prompts), torch.zeros(len(prompts), dtype=torch.long)
    for positions in order.split(batch_size):
        batch = prompts[positions]
        start = int((batch[:, 1] > 0).any(dim=0).nonzero()[0])
        with _ends_at(stop, model, tokenizer):
            new = model.generate(batch[:, :, start:].to(device), max_new_tokens).tolist()
        if inferred is not None:
            tasks[positions] = model.inferred.cpu()
        for position, ids in zip(positions.tolist(), new, strict=True):
            ids = ids[: ids.index(tokenizer.end)] if tokenizer.end in ids else ids
            text = tokenizer.decode(ids)
            answers[position] = text.partition(stop)[0] if stop else text
    if inferred is not None:
        inferred.append(tasks)
    return answers


class TestCurve:
    """The score on the task being learnt against the training samples seen (Figure 1).

    Tests before the first step and then `n_tests` times, evenly spaced; in `seconds` that are
    none of training. It changes nothing: no test draws random numbers.
    """

    def __init__(self, model, score: Callable[[], float], n_steps: int, n_tests: int):
        self.points: list[dict] = []
        self.seconds = 0.0
        self._model, self._score = model, score
        self._n_steps, self._n_tests = n_steps, n_tests
        self._steps = self._samples = 0
        if self._n_tests:
            self._test()
            self.seconds = 0.0  # that one was before the clock of training started

    def after_step(self, n_samples: int) -> None:
        """Count a step, and test if one of the tests is due."""
        self._steps, self._samples = self._steps + 1, self._samples + n_samples
        done = self._steps * self._n_tests
        if done % self._n_steps < self._n_tests:  # another of the equal parts is complete
            self._test()

    def _test(self) -> None:
        start = time.perf_counter()
        training = self._model.training
        self.points.append({"samples": self._samples, "score": self._score()})
        self._model.train(training)
        self.seconds += time.perf_counter() - start
