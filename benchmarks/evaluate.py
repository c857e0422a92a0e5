"""Scores of a model on a task, task identity unknown."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.data import Samples, TaskData, special_ids

BATCH_SIZE = 128


@torch.no_grad()
def score(
    model,
    task: TaskData,
    n_seen: int,
    device: str,
    tokenizer=None,
    inferred: list[Tensor] | None = None,
) -> float:
    """The fraction of test items answered correctly.

    Vision: the best of the `n_seen` classes that arrived so far. Language: greedy generation, the
    whole answer must match after stripping white space. `inferred`, if given, collects the tasks
    (B,) that the model says it inferred for each batch of images.
    """
    model.eval()
    if task.metric == "accuracy":
        right = 0
        for start in range(0, len(task.gold), BATCH_SIZE):
            positions = torch.arange(start, min(start + BATCH_SIZE, len(task.gold)))
            x, y = Samples(task.test_x, task.gold).batch(positions)
            right += (model(x.to(device))[:, :n_seen].argmax(dim=1).cpu() == y).sum().item()
            if inferred is not None:
                inferred.append(model.inferred.cpu())
        return right / len(task.gold)
    answers = generate(model, task.test_x, _longest(task.gold, tokenizer), device, tokenizer)
    return sum(a == g for a, g in zip(answers, task.gold, strict=True)) / len(task.gold)


def generate(model, prompts: Tensor, max_new_tokens: int, device: str, tokenizer) -> list[str]:
    """Greedy answers to prompts (n, 2, L), in batches, stripped."""
    _, _, end = special_ids(tokenizer)
    answers = []
    for batch in prompts.split(BATCH_SIZE):
        for ids in model.generate(batch.to(device), max_new_tokens).tolist():
            ids = ids[: ids.index(end)] if end in ids else ids
            answers.append(tokenizer.decode(ids).strip())
    return answers


def _longest(gold: list[str], tokenizer) -> int:
    """Tokens of the longest gold answer and its end: more cannot match."""
    return max(len(tokenizer.encode(answer).ids) for answer in gold) + 1
