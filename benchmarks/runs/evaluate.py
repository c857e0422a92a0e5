"""Scores of a model on a task, task identity unknown."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.common.devices import TEST_BATCH_SIZE
from benchmarks.scoring.scores import score as score_texts
from benchmarks.streams.common.tasks import Samples, TaskData


@torch.no_grad()
def score(
    model,
    task: TaskData,
    n_seen: int,
    device: str,
    tokenizer=None,
    inferred: list[Tensor] | None = None,
    batch_size: int = TEST_BATCH_SIZE,
) -> float:
    """The mean score of the test items, in [0, 1].

    Vision: the share that the best of the `n_seen` classes that arrived so far is right for.
    Language: what the task's metric says of generated answers. `inferred`, if given, collects the
    tasks (B,) that the model says it inferred for each batch.
    """
    model.eval()
    if task.metric == "accuracy":
        right = 0
        for start in range(0, len(task.gold), batch_size):
            positions = torch.arange(start, min(start + batch_size, len(task.gold)))
            x, y = Samples(task.test_x, task.gold).batch(positions)
            right += (model(x.to(device))[:, :n_seen].argmax(dim=1).cpu() == y).sum().item()
            if inferred is not None:
                inferred.append(model.inferred.cpu())
        return right / len(task.gold)
    limit = task.max_new_tokens
    outputs = generate(model, task.test_x, limit, device, tokenizer, inferred, batch_size)
    return score_texts(task.metric, outputs, task.gold, task.prompts)


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
