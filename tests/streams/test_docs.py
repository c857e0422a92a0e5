"""docs: the same bytes everywhere, no answer given away, nothing imported that is read."""

import hashlib
import itertools
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks import streams
from benchmarks.common.errors import DataError
from benchmarks.streams import docs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def docs_folder(prepared_stream):
    return prepared_stream("docs")


@pytest.fixture(scope="module")
def tasks(docs_folder):
    return json.loads((docs_folder / "data.json").read_text(encoding="utf-8"))


def items(tasks):
    return [item for task in tasks for item in task["train"] + task["test"]]


def prompts(tasks):
    """Every prompt as its text, its options and its question."""
    return [item["prompt"].split("\n") for item in items(tasks)]


def letters(text):
    return re.findall("[a-z]+", text.lower())


def test_docs_are_the_pinned_bytes(docs_folder):
    content = [(docs_folder / name).read_bytes() for name in ("data.json", "pretrain.json")]
    found = hashlib.sha256(b"".join(content)).hexdigest()
    assert found == streams.of({"name": "docs"}).fingerprint()
    assert 1_000_000 < len(content[1]) < 5_000_000


def test_docs_tasks_and_every_prefix_of_them_are_balanced(docs_folder, tasks):
    manifest = json.loads((docs_folder / "manifest.json").read_text())
    assert [task["name"] for task in manifest["tasks"]] == [task["name"] for task in tasks]
    assert len(tasks) == len(docs.TASKS) == 8
    assert set(Counter(task["group"] for task in tasks).values()) == {2}
    for task in tasks:
        assert task["metric"] == "exact" and len(task["parts"]) == 4
        assert len(task["train"]) == 480 and len(task["test"]) == 100
        for split in ("train", "test"):
            assert {item["answer"] for item in task[split]} == set("ABCD")
            for n in (8, 50, 100, 333, 480):
                counts = Counter(item["answer"] for item in task[split][:n])
                assert max(counts.values()) - min(counts.values()) <= (n % 4 > 0)
    parts = [part for task in tasks for part in task["parts"]]
    assert len(set(parts)) == len(parts)


def test_docs_prompts_are_unique_and_short_and_do_not_contain_an_answer(tasks):
    assert len({" ".join(letters(text)) for text, _, _ in prompts(tasks)}) == 8 * 580
    for task in tasks:
        options = " ".join(f"{a} {part}" for a, part in zip("ABCD", task["parts"], strict=True))
        for text, offered, question in prompts([task]):
            assert question == "Part:" and offered == options
            library, text = text.split(": ", 1)
            assert library == task["group"]
            assert 8 <= len(text.split()) <= 45 and len(text) <= 270
            assert not any(part in text.lower() for part in task["parts"]), text


def test_docs_with_free_answers_ask_the_same_without_options(docs_folder, tasks):
    free = []
    for task in tasks:
        texts = {part: [] for part in task["parts"]}
        for item in items([task]):
            text = item["prompt"].split("\n")[0].split(": ", 1)[1]
            texts[task["parts"]["ABCD".index(item["answer"])]].append(text)
        free.append(docs._task(task["name"], texts, free_answers=True))
        for item, same in zip(items(free[-1:]), items([task]), strict=True):
            text, _, question = same["prompt"].split("\n")
            assert item["prompt"] == f"{text}\n{question}"
            assert item["answer"] == task["parts"]["ABCD".index(same["answer"])]
    content = docs._json(free) + (docs_folder / "pretrain.json").read_bytes()
    asked = streams.of({"name": "docs", "free_answers": True})
    assert hashlib.sha256(content).hexdigest() == asked.fingerprint()


def test_docs_parts_of_similar_words_share_a_letter(tasks):
    """No other order of one task's parts makes words and letters agree better."""

    def words(task, letter):
        texts = [item["prompt"].split("\n")[0] for item in task["train"]]
        chosen = [item["answer"] == letter for item in task["train"]]
        return Counter(
            word for text in itertools.compress(texts, chosen) for word in set(letters(text))
        )

    counted = [[words(task, letter) for letter in "ABCD"] for task in tasks]
    known = Counter(word for task in counted for part in task for word in part.elements())
    common = sorted(word for word, n in known.items() if n >= 5)
    profiles = []
    for task in counted:
        rows = np.log([[part[word] + 1 for word in common] for part in task])
        rows -= rows.mean(axis=0)
        profiles.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    for i, own in enumerate(profiles):
        others = sum(other for j, other in enumerate(profiles) if j != i)
        agreement = {
            order: (own[list(order)] * others).sum() for order in itertools.permutations(range(4))
        }
        assert max(agreement, key=agreement.get) == (0, 1, 2, 3), tasks[i]["name"]


def test_docs_pretraining_shares_neither_text_nor_answer_with_the_tasks(docs_folder, tasks):
    pretrain = json.loads((docs_folder / "pretrain.json").read_text(encoding="utf-8"))
    texts = [item["text"] for item in pretrain]
    assert len(set(texts)) == len(texts)
    assert max(len(text.split()) for text in texts) <= 200

    def runs(text):
        words = letters(text)
        return {" ".join(words[i : i + 8]) for i in range(len(words) - 7)}

    in_tasks = set().union(*(runs(text) for text, _, _ in prompts(tasks)))
    assert len(in_tasks) > 50_000
    assert not any(runs(text) & in_tasks for text in texts)

    asked = [item for item in pretrain if "prompt" in item]
    assert len(asked) > 5000
    parts = {part for task in tasks for part in task["parts"]}
    with_options = Counter()
    for item in asked:
        text, *options, question = item["prompt"].split("\n")
        text = text.split(": ", 1)[1].lower()
        part = item["answer"]
        if options:
            offered = dict(re.findall(r"([A-D]) (\S+)", options[0]))
            with_options[part] += 1
            assert list(offered) == list("ABCD") and len(set(offered.values())) == 4
            assert parts.isdisjoint(offered.values())
            part = offered[part]
        assert question == "Part:" and part not in text and part not in parts
    assert 0.15 < with_options.total() / len(asked) < 0.25
    assert max(with_options.values()) < 1.2 * min(with_options.values())


def test_docs_versions_are_those_of_the_lock():
    lock = (ROOT / "requirements.lock").read_text()
    for package, version in docs.PACKAGES.items():
        assert re.search(rf"^{package}=={re.escape(version)}[ ;\\]", lock, re.MULTILINE), package
    assert docs._differing_versions() == "of the pinned versions"


def test_docs_names_the_package_that_differs_or_is_missing(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="package no_such_package, which is not installed"):
        list(docs._texts("no_such_package", "."))
    monkeypatch.setattr(docs, "build", lambda free_answers: ([], []))
    monkeypatch.setitem(docs.PACKAGES, "numpy", "0.1")
    with pytest.raises(DataError, match="numpy .* instead of 0.1.*requirements.lock"):
        streams.prepare("docs", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "docstring, expected",
    [
        ("Do it.\n\nParameters\n---\na : int\n    One\n\nNotes\n-----\nKnown.", "Do it. Known."),
        (
            "Do it.\n\nArgs:\n    a: number\n\nReturns:\n    one\n\nThat is all.",
            "Do it. That is all.",
        ),
        (
            "Do it\nfast. For example::\n\n    do(it)\n\n.. note:: This\n   way.\n\nAgain.",
            "Do it fast. For example: Again.",
        ),
        ("Title\n=====\nText.\n\nOverview\n---\nMore.\n\nExamples\n---\n>>> 1\n1\n", "Text. More."),
        (
            "The :class:`~a.b.Thing` with ``x_`` of :math:`a` and :ref:`this <there>`.\n\n>>> 1",
            "The a.b.Thing with x_ of and this.",
        ),
        (":param a: number\n- point\n  continued\nText", "Text"),
    ],
)
def test_prose_of_docstrings(docstring, expected):
    assert docs.prose(docstring) == expected
