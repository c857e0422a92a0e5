"""The floor of a task: the best score that outputs reach without a model.

A score means nothing below the floor, and on small models much of a benchmark's mean is the floor:
the most frequent label, the first words of the text to summarise, an empty output.

The rule is chosen on the training items, by the task's own metric; the test answers only score it.
Floors published elsewhere (about 30 on TRACE with 500 training items a task) chose among their
rules by a look at the test set, which makes them optimistic for the rules they had.
"""

from __future__ import annotations

import os.path
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from benchmarks.common.errors import DataError
from benchmarks.scoring.text_metrics import answer_tokens, score

LEADS = (30, 60, 120)  # words
SAMPLE = 100  # training items that a rule is tried on, where a score is costly
LINES = 100  # the most frequent lines that are tried for code, where one line is all of the answer

Rule = Callable[[str], str]


def floor(metric: str, train: Sequence[dict], test: Sequence[dict]) -> tuple[str, float]:
    """The rule that is best on the training items, and its score on the test items.

    Args:
        metric: a key of `benchmarks.scoring.text_metrics.METRICS`.
        train, test: items {"prompt", "answer"}. Rules are made of all training items and compared
            on all of them, or on SAMPLE evenly spread ones if the metric reads all of the text.

    Returns:
        The rule in words, the first one if several are best, and a score in [0, 1].

    Raises:
        DataError: the metric is unknown or a part is empty.
    """
    if not train or not test:
        raise DataError(
            f"a floor takes training and test items, not {len(train)} and {len(test)}: give both"
        )
    tried = train
    if answer_tokens(metric) is None:
        tried = _sample(train)
    name, rule = max(_rules(metric, train), key=lambda named: _score(metric, named[1], tried))
    return name, _score(metric, rule, test)


def blind_floor(
    metrics: Sequence[str], train: Sequence[Sequence[dict]], test: Sequence[Sequence[dict]]
) -> tuple[str, list[float]]:
    """The floor of a stream whose tasks cannot be told apart: one rule for all of them.

    Args:
        metrics: of each task.
        train, test: the items of each task, see `floor`. The rule is made of the training items of
            all tasks, and has the best mean score on them.

    Returns:
        The rule in words, and its score on the test items of each task.
    """
    rules = [
        named for m in dict.fromkeys(metrics) for named in _rules(m, [i for t in train for i in t])
    ]
    sampled = [_sample(items) for items in train]

    def on(items: Sequence[Sequence[dict]], rule: Rule) -> list[float]:
        return [_score(metric, rule, own) for metric, own in zip(metrics, items, strict=True)]

    name, rule = max(rules, key=lambda named: sum(on(sampled, named[1])))
    return name, on(test, rule)


def _sample(items: Sequence[dict]) -> list[dict]:
    n = min(SAMPLE, len(items))
    return [items[i * len(items) // n] for i in range(n)]


def _score(metric: str, rule: Rule, items: Sequence[dict]) -> float:
    prompts = [item["prompt"] for item in items]
    return score(metric, [rule(p) for p in prompts], [item["answer"] for item in items], prompts)


def _rules(metric: str, train: Sequence[dict]) -> Iterator[tuple[str, Rule]]:
    answers = Counter(item["answer"] for item in train)
    yield "majority answer", _constant(answers.most_common(1)[0][0])
    lines = Counter(item["answer"].strip().split("\n")[0].strip() for item in train)
    yield "majority first line", _constant(lines.most_common(1)[0][0])
    if metric.startswith("edit_similarity"):
        for line, _ in lines.most_common(LINES):
            yield "constant line", _constant(line)
    instruction = os.path.commonprefix([item["prompt"] for item in train])
    instruction = instruction[: max(instruction.rfind(" "), instruction.rfind("\n")) + 1]
    for n in LEADS:
        yield f"first {n} words", _lead(instruction, n)
    yield "empty output", _constant("")


def _constant(text: str) -> Rule:
    return lambda prompt: text


def _lead(instruction: str, n: int) -> Rule:
    """The first n words behind the instruction, which all training prompts share."""
    return lambda prompt: " ".join(prompt.removeprefix(instruction).split()[:n])
