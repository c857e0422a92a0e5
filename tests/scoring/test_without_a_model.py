"""The floor: chosen on training items, scored on test items."""

import pytest

from benchmarks.common.errors import DataError
from benchmarks.scoring import without_a_model as module
from benchmarks.scoring.text_metrics import score
from benchmarks.scoring.without_a_model import blind_floor, floor

TRACE = {  # task: its metric, that of the released code
    "C-STANCE": ("first_line", "prefix"),
    "FOMC": ("first_line", "prefix"),
    "MeetingBank": ("rouge_l", "rouge_l_released"),
    "Py150": ("edit_similarity", "edit_similarity_released"),
    "ScienceQA": ("letter", "first_character"),
    "NumGLUE-cm": ("first_line", "prefix"),
    "NumGLUE-ds": ("first_line", "prefix"),
    "20Minuten": ("sari", "sari"),
}


def items(*pairs):
    return [{"prompt": prompt, "answer": answer} for prompt, answer in pairs]


def labels(text):
    return items(*((f"Judge.\nText: no {i}\nAnswer:", answer) for i, answer in enumerate(text)))


def test_the_majority_is_that_of_the_training_items():
    assert floor("first_line", labels("AABBBC"), labels("AAAB")) == ("majority answer", 0.25)


def test_test_answers_choose_nothing():
    """Whatever the test answers, the rule stays; its score is that of its outputs."""
    train = labels("AABBBC")
    for text in ("AAAA", "BBBB", "CCCC"):
        rule, value = floor("exact", train, labels(text))
        assert rule == "majority answer" and value == (text == "BBBB")


def test_the_first_line_where_explanations_follow():
    train = items(*((f"Choose.\nQuestion {i}", f"{c}\nreason {i}") for i, c in enumerate("ABBB")))
    test = items(("Choose.\nQuestion 9", "B\nanother reason"))
    assert floor("first_line", items(*((i["prompt"], i["answer"][0]) for i in train)), test)[1] == 0
    rule, value = floor("letter", train, test)  # the most frequent answer is the first: an A
    assert (rule, value) == ("majority first line", 1)


def summary(words):
    """Items whose answer is the text's first words; the text follows an instruction."""
    text = [[f"w{i}x{j}" for j in range(150)] for i in range(12)]
    return items(
        *((f"Sum up this text:\n{' '.join(t)}\nSummary:", " ".join(t[:words])) for t in text)
    )


@pytest.mark.parametrize("words", module.LEADS)
def test_the_first_words_of_the_text(words):
    assert floor("rouge_l", summary(words), summary(words)) == (f"first {words} words", 1)


def test_the_instruction_ends_where_the_texts_begin():
    """Texts that begin with the same letters keep their first word whole."""
    train = items(
        ("Sum up:\nwe met today", "we met today"), ("Sum up:\nwell done all", "well done all")
    )
    assert floor("rouge_l", train, train) == ("first 30 words", 1)


def test_one_line_of_code():
    lines = ["def a ( self ) :", "def b ( self ) :", "def ab ( self ) :", "zzzz", "zzzz"]
    train = items(*((f"code {i} <EOL>", line) for i, line in enumerate(lines)))
    rule, value = floor("edit_similarity", train, items(("code <EOL>", "def abc ( self ) :")))
    assert rule == "constant line" and value > 0.9


def test_nothing_can_be_best():
    """Where answers keep no word of the text, each word of it that an output keeps is wrong."""
    text = " ".join(f"w{j}" for j in range(150))
    train = items(*((text, f"new{i}") for i in range(8)), (text, "w1"), (text, "w1"))
    rule, value = floor("sari", train, train[:3])
    assert rule == "empty output"
    answers = ["new0", "new1", "new2"]
    assert value == score("sari", [""] * 3, answers, [text] * 3)


def test_costly_metrics_try_rules_on_a_spread_sample(monkeypatch):
    tried = []
    monkeypatch.setattr(
        module, "score", lambda metric, outputs, answers, prompts: tried.append(prompts) or 0
    )
    for n, metric, expected in ((250, "rouge_l", 100), (40, "rouge_l", 40), (250, "exact", 250)):
        tried.clear()
        train = labels("A" * n)
        floor(metric, train, labels("AB"))
        *on_train, on_test = tried
        assert {len(prompts) for prompts in on_train} == {expected} and len(on_test) == 2
        assert len(set(on_train[0])) == expected and on_train[0][0] == train[0]["prompt"]
        assert train.index({"prompt": on_train[0][-1], "answer": "A"}) > n - 1 - n / expected


def test_the_floor_that_does_not_know_the_task_has_one_rule_for_all():
    train, test = [labels("AAAB"), labels("BBBC")], [labels("AB"), labels("BC")]
    assert floor("exact", train[0], test[0]) == ("majority answer", 0.5)
    assert blind_floor(["exact", "exact"], train, test) == ("majority answer", [0.5, 0.5])
    train[0] = labels("AAAAAAC")  # A is the most frequent, and no answer of the other task
    assert blind_floor(["exact", "exact"], train, test) == ("majority answer", [0.5, 0.0])


def test_empty_parts():
    with pytest.raises(DataError, match="not [0-9]+ and [0-9]+"):
        floor("exact", [], labels("A"))
    with pytest.raises(DataError, match="not [0-9]+ and [0-9]+"):
        floor("exact", labels("A"), [])


@pytest.mark.data
def test_floors_of_trace(real_items):
    found = {}
    for task, metrics in TRACE.items():
        parts = real_items(task, "train"), real_items(task, "test")
        found[task] = [floor(metric, *parts) for metric in metrics]
        print(task, *zip(metrics, found[task], strict=True))
    value = {task: [100 * score for _, score in pair] for task, pair in found.items()}
    # Known from an independent count of labels, and of the lead's ROUGE by the two packages.
    label = {"C-STANCE": 38, "FOMC": 53, "ScienceQA": 43, "NumGLUE-cm": 0, "NumGLUE-ds": 14}
    for task, expected in label.items():
        assert value[task] == pytest.approx([expected, expected])
    assert found["MeetingBank"][0][0] == found["MeetingBank"][1][0] == "first 60 words"
    assert value["MeetingBank"] == pytest.approx([34.0, 29.2], abs=0.05)
    # At least what one line chosen by hand, and an empty output, are known to reach.
    assert 31.6 <= value["Py150"][0] < 40 and 27.3 <= value["Py150"][1] < 40
    assert 37.1 <= value["20Minuten"][0] < 45


def test_that_floor_of_one_task_is_the_tasks_own():
    """Rules that are called alike, as constant lines of code, are all tried."""
    lines = ["def a ( self ) :", "def b ( self ) :", "def ab ( self ) :", "zzzz", "zzzz"]
    train = items(*((f"code {i} <EOL>", line) for i, line in enumerate(lines)))
    test = items(("code <EOL>", "def abc ( self ) :"))
    rule, value = floor("edit_similarity", train, test)
    assert blind_floor(["edit_similarity"], [train], [test]) == (rule, [value])
    assert rule == "constant line"
