"""Outputs of a model on a task, task identity unknown, and their scores."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.common.devices import TEST_BATCH_SIZE
from benchmarks.scoring import text_metrics
from benchmarks.streams.common.tasks import Samples, TaskData


@torch.no_grad()
def predict(
    model,
    task: TaskData,
    n_seen: int,
    device: str,
    tokenizer=None,
    inferred: list[Tensor] | None = None,
    batch_size: int = TEST_BATCH_SIZE,
) -> list[int] | list[str]:
    """What the model answers to each test item.

    Vision: the best of the `n_seen` classes that arrived so far. Language: a text. `inferred`, if
    given, collects the tasks (B,) that the model says it inferred for each batch.
    """
    model.eval()
    if task.metric != "accuracy":
        limit = task.max_new_tokens
        return generate(model, task.test_x, limit, device, tokenizer, inferred, batch_size)
    classes = []
    for start in range(0, len(task.gold), batch_size):
        positions = torch.arange(start, min(start + batch_size, len(task.gold)))
        x, _ = Samples(task.test_x, task.gold).batch(positions)
        classes += model(x.to(device))[:, :n_seen].argmax(dim=1).tolist()
        if inferred is not None:
            inferred.append(model.inferred.cpu())
    return classes


def scores(task: TaskData, outputs: list[int] | list[str]) -> list[float]:
    """The score of each test item, in [0, 1]: whether the class is right, or the task's metric."""
    if task.metric == "accuracy":
        return [float(output == y) for output, y in zip(outputs, task.gold.tolist(), strict=True)]
    return text_metrics.scores(task.metric, outputs, task.gold, task.prompts)


@torch.no_grad()
def generate(
    model,
    prompts: Tensor,
    max_new_tokens: int,
    device: str,
    tokenizer,
    inferred: list[Tensor] | None = None,
    batch_size: int = TEST_BATCH_SIZE,
) -> list[str]:
    """Answers to prompts (n, 2, L), in batches of similar length if there are several."""
    order = torch.arange(len(prompts))
    if len(prompts) > batch_size:
        order = (prompts[:, 1] > 0).sum(dim=1).argsort(stable=True)
    answers, tasks = [""] * len(prompts), torch.zeros(len(prompts), dtype=torch.long)
    for positions in order.split(batch_size):
        batch = prompts[positions]
        start = int((batch[:, 1] > 0).any(dim=0).nonzero()[0])
        new = model.generate(batch[:, :, start:].to(device), max_new_tokens).tolist()
        if inferred is not None:
            tasks[positions] = model.inferred.cpu()
        for position, ids in zip(positions.tolist(), new, strict=True):
            ids = ids[: ids.index(tokenizer.end)] if tokenizer.end in ids else ids
            answers[position] = tokenizer.decode(ids)
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
