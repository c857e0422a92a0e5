"""What is wrong with the items of a text task: leaks, doubles, contradictions, empty texts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from statistics import fmean

from benchmarks.common.errors import DataError
from benchmarks.streams.common.items import Items


def asked(items: Items) -> Items:
    """Those with a prompt; all of them if none has one, as in a task that asks for any text.

    A model whose texts begin without a token has nothing to go on from an empty prompt.
    """
    return [item for item in items if item["prompt"].strip()] or items


def inspect(
    task: str, items: Mapping[str, Items], labels: list[str] | None, keep_leaks: bool
) -> tuple[list[dict], Items]:
    """What is wrong with a task's items, and those to train on.

    Args:
        items: of train, test and eval, the last one may be empty.
        labels: the answers there should be, if that is known.
        keep_leaks: whether training items whose prompt is in the test set stay.

    Returns:
        Defects, each with task, kind, count and note; training items.
    """
    found, items = items, {part: asked(own) for part, own in items.items()}
    train, test = items["train"], items["test"]
    prompts = {part: {item["prompt"] for item in own} for part, own in items.items()}
    pairs = {part: {tuple(item.values()) for item in own} for part, own in items.items()}
    defects = []

    def report(kind: str, count: int, note: str) -> None:
        if count:
            defects.append({"task": task, "kind": kind, "count": count, "note": note})

    for part in ("train", "test"):
        empty = sum(not item["prompt"].strip() for item in found[part])
        fate = "dropped" if len(items[part]) < len(found[part]) else "kept, as there is no other"
        report("empty prompt", empty, f"of {len(found[part])} prompts in {part}.json: {fate}")
    if pairs["eval"] == pairs["test"]:
        note = "eval.json holds the items of test.json: never tune on it"
        report("eval is test", len(test), note)
    for part in ("test", "eval"):
        count = len(prompts["train"] & prompts[part])
        leaks = sum(item["prompt"] in prompts[part] for item in train)
        fate = "kept" if keep_leaks or part == "eval" else "dropped"
        report(f"train prompt in {part}", count, f"their {leaks} training items are {fate}")
    answers = defaultdict(set)
    for item in train:
        answers[item["prompt"]].add(item["answer"])
    earlier = "items with the prompt of an earlier one"
    report("train twice", len(train) - len(answers), f"training {earlier}")
    contradictions = sum(len(own) > 1 for own in answers.values())
    differ = "prompts with different answers in train.json"
    report("train contradicts itself", contradictions, differ)
    report("test twice", len(test) - len(prompts["test"]), f"test {earlier}")
    for part in ("train", "test"):
        own = [item["answer"] for item in items[part]]
        of = f"of {len(own)} answers in {part}.json"
        report("empty answer", sum(not answer.strip() for answer in own), of)
        report("trailing space", sum(answer != answer.rstrip() for answer in own), of)
        if labels is not None:
            others = Counter(answer for answer in own if answer.strip() not in labels)
            named = ", ".join(repr(answer) for answer, _ in others.most_common(3))
            report("unknown label", others.total(), f"{of} are not in labels.json: {named}")
    short, long = (fmean(len(item["prompt"]) for item in own) for own in (train, test))
    note = (
        f"training prompts have {short:,.0f} characters on average, test prompts {long:,.0f}: "
        "a reconstruction, not for reproducing a score or a time"
    )
    report("short training prompts", len(train) * (short < long / 2), note)
    kept = [item for item in train if keep_leaks or item["prompt"] not in prompts["test"]]
    if not kept:
        raise DataError(
            f"the task {task!r} needs training items that are not in test.json, it has none: "
            "replace train.json"
        )
    return defects, kept
