"""docs: the same bytes everywhere, no answer given away, nothing imported that is read."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

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


def prompts(tasks):
    """Every prompt as its text and its question."""
    items = [item for task in tasks for item in task["train"] + task["test"]]
    return [item["prompt"].split("\n") for item in items]


def letters(text):
    return re.findall("[a-z]+", text.lower())


def test_docs_are_the_pinned_bytes(docs_folder):
    content = [(docs_folder / name).read_bytes() for name in ("data.json", "pretrain.json")]
    found = hashlib.sha256(b"".join(content)).hexdigest()
    assert found == docs.DIGEST == streams.of({"name": "docs"}).fingerprint()
    assert 1_000_000 < len(content[1]) < 5_000_000


def test_docs_tasks_and_every_prefix_of_them_are_balanced(docs_folder, tasks):
    manifest = json.loads((docs_folder / "manifest.json").read_text())
    assert [task["name"] for task in manifest["tasks"]] == [task["name"] for task in tasks]
    assert len(tasks) == len(docs.TASKS) == 8
    assert set(Counter(task["group"] for task in tasks).values()) == {2}
    for task in tasks:
        assert task["metric"] == "exact" and len(task["answers"]) >= 4
        assert len(task["train"]) == 480 and len(task["test"]) == 100
        for split in ("train", "test"):
            assert {item["answer"] for item in task[split]} == set(task["answers"])
            for n in (8, 50, 100, 333, 480):
                counts = Counter(item["answer"] for item in task[split][:n])
                assert max(counts.values()) - min(counts.values()) <= (n % len(task["answers"]) > 0)
    answers = [answer for task in tasks for answer in task["answers"]]
    assert len(set(answers)) == len(answers)


def test_docs_prompts_are_unique_and_short_and_do_not_contain_an_answer(tasks):
    assert len({" ".join(letters(text)) for text, _ in prompts(tasks)}) == 8 * 580
    for task in tasks:
        for text, question in prompts([task]):
            assert question == "Part:"
            assert 8 <= len(text.split()) <= 45 and len(text) <= 270
            assert not any(answer in text.lower() for answer in task["answers"]), text


def test_docs_pretraining_shares_neither_text_nor_answer_with_the_tasks(docs_folder, tasks):
    items = json.loads((docs_folder / "pretrain.json").read_text(encoding="utf-8"))
    texts = [item["text"] for item in items]
    assert len(set(texts)) == len(texts)
    assert max(len(text.split()) for text in texts) <= 200

    def runs(text):
        words = letters(text)
        return {" ".join(words[i : i + 8]) for i in range(len(words) - 7)}

    in_tasks = set().union(*(runs(text) for text, _ in prompts(tasks)))
    assert len(in_tasks) > 50_000
    assert not any(runs(text) & in_tasks for text in texts)

    asked = [item for item in items if "prompt" in item]
    assert len(asked) > 5000
    answers = {answer for task in tasks for answer in task["answers"]}
    assert answers.isdisjoint(item["answer"] for item in asked)
    for item in asked:
        text, question = item["prompt"].split("\n")
        assert question == "Part:" and item["answer"] not in text.lower()


def test_docs_versions_are_those_of_the_lock():
    lock = (ROOT / "requirements.lock").read_text()
    for package, version in docs.PACKAGES.items():
        assert re.search(rf"^{package}=={re.escape(version)}[ ;\\]", lock, re.MULTILINE), package
    assert docs._differing_versions() == "of the pinned versions"


def test_docs_names_the_package_that_differs_or_is_missing(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="package no_such_package, which is not installed"):
        list(docs._texts("no_such_package", "."))
    monkeypatch.setattr(docs, "build", lambda: ([], []))
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
