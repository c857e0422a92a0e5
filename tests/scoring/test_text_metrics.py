"""Scores of text against worked examples, other libraries and brute force."""

import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.common.errors import DataError
from benchmarks.scoring import text_metrics
from benchmarks.scoring.text_metrics import METRICS, answer_tokens, sari_of, score

pytestmark = pytest.mark.slow

TEXT = st.text("abAB .,-\n<>12ü文&", max_size=30)
WORDS = st.lists(st.sampled_from("abc"), max_size=7)
MAT = ("the cat sat on the mat", "the cat is on the mat")


def one(metric, output, answer, prompt=""):
    return score(metric, [output], [answer], [prompt])


# ---------------------------------------------------------------------------- worked examples


@pytest.mark.parametrize(
    ("metric", "output", "answer", "expected"),
    [
        ("exact", " 12\n", "12", 1),
        ("exact", "12\nfoo", "12", 0),
        ("exact", "Sports", "sports", 0),
        ("first_line", "120", "12", 0),
        ("first_line", " 12\nfoo", "12", 1),
        ("first_line", "\n 12 \nfoo", "12", 1),
        ("first_line", "", "12", 0),
        ("normalised", "Science & Mathematics.", "science  mathematics", 1),
        ("normalised", "Science", "science  mathematics", 0),
        ("prefix", "120", "12", 1),
        ("prefix", " 12\nfoo", "12", 1),
        ("prefix", "", "12", 0),
        ("prefix", "good", "Good", 0),
        ("letter", "(B) a brick", "B\nA brick has more mass.", 1),
        ("letter", "After all, B", "A\nReasons.", 0),
        ("letter", "b", "B", 0),
        ("letter", "", "B", 0),
        ("letter", "no choice", "no letter", 0),
        ("first_character", "After all, B", "A\nReasons.", 1),
        ("first_character", "(B) a brick", "B\nA brick has more mass.", 0),
        ("first_character", "", "B", 0),
        ("first_character", "", "", 0),
        ("rouge_l", *MAT, 5 / 6),
        ("rouge_l", "the council met. the vote passed", "the vote passed. the council met", 0.5),
        ("rouge_l", "a a a b", "a b b b", 0.5),
        ("rouge_l", "会议讨论了预算。", "会议讨论了预算。", 1),
        ("rouge_l", "会议讨论预算", "会议讨论了预算。", 12 / 13),  # by character
        ("rouge_l", "会议", "预算", 0),
        ("rouge_l", "12号 Budget会议", "１２ 号budget 会议", 1),  # 号, 会 and 议 are words
        ("rouge_l", "ｶﾞｲﾄﾞ を", "ガイドを", 1),
        ("rouge_l", "สภาอนุมัติ", "สภาอนุมัติ", 1),
        ("rouge_l", "สภาไม่อนุมัติ", "สภาอนุมัติ", 20 / 23),
        ("rouge_l", "Совет принял бюджет.", "совет принял бюджет", 1),
        ("rouge_l", "Совет отклонил бюджет.", "Совет принял бюджет.", 2 / 3),
        ("rouge_l", "fär den Bur", "für den Bär", 1 / 3),  # no words "f", "r" and "b"
        ("rouge_l", "fu\u0308r den Ba\u0308r", "f\u00fcr den B\u00e4r", 1),
        ("rouge_l", "बजट पास हुआ", "बजट पास हुआ", 1),
        ("rouge_l", "बजट पास हुई", "बजट पास हुआ", 2 / 3),  # a vowel sign is part of its word
        ("rouge_l", "Haus\u00adtür", "Haustür", 1),  # signs that are not seen divide no word
        ("rouge_l", "예산을 승인", "예산을 거부", 1 / 2),
        ("rouge_l", "Der Bär schläf\ufffd", "Der Bär schläft", 2 / 3),
        ("rouge_l", "na\u00efve caf\u00e9s", "naive cafes", 0),  # as in rouge-score: na ve caf s
        ("rouge_l", "caf\u00e9 12 文", "12", 2 / 3),
        ("letter", "J. none of these", "J", 1),
        ("letter", "F", "G", 0),
        ("letter", "（Ｂ）支持", "B", 1),
        ("letter", "B支持", "B", 1),
        ("letter", "Bär", "B", 0),
        ("letter", "Ba\u0308r", "B", 0),
        ("letter", "A\u0308", "A", 0),  # one letter, decomposed
        *(
            (metric, "fu\u0308r", "f\u00fcr", 1)
            for metric in ("exact", "first_line", "normalised", "edit_similarity")
        ),
        ("exact", "fur", "f\u00fcr", 0),
        ("prefix", "fu\u0308r", "f\u00fcr", 0),  # as released
        ("exact", "北京\ufffd", "北京", 0),  # half a character of what else was said
        ("normalised", "„Gut“，１２。", "gut 12", 0),
        ("normalised", "„Gut“ １２。", "gut 12", 1),
        ("normalised", "STRASSE", "Straße", 1),
        ("rouge_l_released", *MAT, 0.8),
        (
            "rouge_l_released",
            "the council met. the vote passed",
            "the vote passed. the council met",
            1,
        ),
        ("rouge_l_released", "Motion passed.", "Motion passed", 0.8),
        ("rouge_l_released", "Motion passed", "Motion passed", 1),
        ("rouge_l_released", "a a a b", "a b b b", 1),
        ("rouge_l_released", "...", "Motion passed", 0),
        ("rouge_l_released", "", "Motion passed", 0),
        ("edit_similarity", "tide", "diet", 0.5),
        ("edit_similarity", "return x", "return y", 0.875),
        ("edit_similarity", "import os", "from os import path", 0.5),
        ("edit_similarity", "", "", 0),
        ("edit_similarity", "x = 0 + 17", "x = <NUM_LIT> + <NUM_LIT:17> ", 1),
        ("edit_similarity", "f ( '' , 'a b' )", "f ( '<STR_LIT>' , '<STR_LIT:a b>' )", 1),
        ("edit_similarity", "'' + 'c'", "'<CHAR_LIT>' + '<CHAR_LIT:c>'", 1),
        ("edit_similarity_released", "tide", "diet", 0.25),
        ("edit_similarity_released", "diet", "tide", 0.5),
        ("edit_similarity_released", "return x", "return y", 0.88),
        ("edit_similarity_released", "", "", 0),
    ],
)
def test_worked_examples(metric, output, answer, expected):
    assert one(metric, output, answer) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("source", "output", "references", "expected"),
    [
        (
            "the small cat sat quietly on the old mat",
            "the cat sat on the mat",
            ["a cat sat on the mat"],
            83.58919,
        ),
        (
            "the old dog slept all day",
            "the dog slept",
            ["the dog slept all day", "a dog slept"],
            48.07692,
        ),
        ("a b c d e", "", ["a b c"], 54.7222),
        ("a b c d e", "a b c d e", ["a b c"], 82.6389),
        ("a b c d e", "a b c", ["a b c"], 100),
        ("一二三", "一二", ["一 二"], 100),  # characters are words
        (  # on the card of the Hugging Face metric
            "About 95 species are currently accepted .",
            "About 95 you now get in .",
            [
                "About 95 species are currently known .",
                "About 95 species are now accepted .",
                "95 species are now accepted .",
            ],
            26.95360,
        ),
    ],
)
def test_sari(source, output, references, expected):
    assert 100 * sari_of(source, output, references) == pytest.approx(expected, abs=6e-5)
    if len(references) == 1:
        assert one("sari", output, references[0], source) == sari_of(source, output, references)


def test_the_mean_is_over_all_items():
    assert score("exact", ["a", "b", "", "d"], ["a", "b", "c", "e"], [""] * 4) == 0.5


# ---------------------------------------------------------------------------- brute force


@settings(deadline=None)
@given(TEXT, TEXT, TEXT)
def test_words_are_those_of_sacrebleu(a, b, c):
    from torchmetrics.functional.text.sacre_bleu import _SacreBLEUTokenizer

    text = f"{a}-\n&amp;{b}&LT;3.5,{c}<skipped>"
    expected = _SacreBLEUTokenizer.tokenize(text.lower(), "13a")
    assert text_metrics._tokens_13a(text) == (list(expected) or [""])
    assert text_metrics._tokens_13a(a) == (_SacreBLEUTokenizer.tokenize(a.lower(), "13a") or [""])
    han = f"文{a}会议{b}，１2{c}文".replace("-", "")  # not 13a's joined lines
    expected = _SacreBLEUTokenizer.tokenize(han.lower(), "zh")
    assert text_metrics._tokens_13a(han, unspaced=True) == list(expected)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, st.text("abAB .,-\n<>12”&", max_size=30)), min_size=1, max_size=3))
def test_rouge_of_english_answers_is_that_of_torchmetrics(pairs):
    from torchmetrics.functional.text import rouge_score

    outputs, answers = map(list, zip(*pairs, strict=True))
    expected = rouge_score(outputs, answers, rouge_keys="rougeL")["rougeL_fmeasure"].item()
    assert score("rouge_l", outputs, answers, answers) == pytest.approx(expected, abs=1e-6)


def longest(a, b):
    """Length of the longest common subsequence, by trying all."""
    return max(
        k
        for k in range(min(len(a), len(b)) + 1)
        if set(itertools.combinations(a, k)) & set(itertools.combinations(b, k))
    )


@settings(deadline=None)
@given(WORDS, WORDS)
def test_rouge_counts_the_longest_common_subsequence(a, b):
    assume(a and b)
    expected = 2 * longest(a, b) / (len(a) + len(b))
    assert one("rouge_l", " ".join(a), " ".join(b)) == pytest.approx(expected)


@settings(deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=3), st.lists(WORDS, min_size=1, max_size=3))
def test_released_rouge_reads_back_each_pair_of_sentences(output, answer):
    """The rule of the package, with lengths by brute force."""
    output, answer = ([s for s in text if s] for text in (output, answer))
    assume(output and answer)

    def read_back(a, b):
        if not a or not b:
            return set()
        if a[-1] == b[-1]:
            return {a[-1]} | read_back(a[:-1], b[:-1])
        if longest(a[:-1], b) > longest(a, b[:-1]):
            return read_back(a[:-1], b)
        return read_back(a, b[:-1])

    common = set().union(*(read_back(a, b) for a in output for b in answer))
    p, r = (len(common) / len(set().union(*text)) for text in (answer, output))
    texts = (".".join(" ".join(s) for s in text) for text in (output, answer))
    expected = 2 * p * r / (p + r) if common else 0
    assert one("rouge_l_released", *texts) == pytest.approx(expected, abs=1e-7)


@settings(deadline=None)
@given(st.text("abc", min_size=1, max_size=7), st.text("abc", min_size=1, max_size=7))
def test_edit_similarity_counts_insertions_and_deletions(a, b):
    expected = 2 * longest(a, b) / (len(a) + len(b))
    assert one("edit_similarity", a, b) == pytest.approx(expected)


# ---------------------------------------------------------------------------- properties


@settings(deadline=None)
@given(st.lists(st.tuples(*[TEXT | st.text(max_size=20)] * 3), min_size=1, max_size=4))
def test_scores_of_any_text(items):
    """Fractions whatever the order, of any script, halves of surrogate pairs and all."""
    outputs, answers, prompts = zip(*items, strict=True)
    for metric in METRICS:
        value = score(metric, outputs, answers, prompts)
        assert 0 <= value <= 1
        backwards = score(metric, outputs[::-1], answers[::-1], prompts[::-1])
        assert backwards == pytest.approx(value)
    for text in outputs:
        if any(c.isalnum() for c in text):
            assert one("rouge_l", text, text) == 1


@settings(deadline=None)
@given(st.text("abXY 12", max_size=20))
def test_the_answer_itself_is_right_and_nothing_is_worth_nothing(rest):
    answer = f"A {rest}".strip()
    source = "Shorten: A b c d e"  # no repeated word: SARI
    for metric in METRICS:
        assert one(metric, answer, answer, source) == pytest.approx(1, abs=1e-7)
        assert metric == "sari" or one(metric, "", answer) == 0


def test_an_unknown_metric():
    for call in (answer_tokens, lambda name: one(name, "a", "a")):
        with pytest.raises(DataError, match="'rougel'.*'rouge_l'"):
            call("rougel")
        with pytest.raises(DataError, match="'xyz'.*exact, first_line"):
            call("xyz")


@pytest.mark.parametrize("texts", [([], [], []), (["a"], ["a", "b"], ["a"]), (["a"], ["a"], [])])
def test_texts_that_do_not_belong_together(texts):
    with pytest.raises(DataError, match="not [0-9]+, [0-9]+ and [0-9]+"):
        score("exact", *texts)


def test_where_generation_may_stop():
    assert [m for m in METRICS if answer_tokens(m) is None] == [
        "rouge_l",
        "rouge_l_released",
        "sari",
        "edit_similarity",
        "edit_similarity_released",
    ]
    # Each token at least one character, the worst case: the rest changes nothing.
    for metric, answer in (("letter", "B"), ("first_character", "B"), ("first_line", "positive")):
        n = answer_tokens(metric)
        for output in ("B", "Because of", "B because", "positive\nor not", "positively not so"):
            full = output + " and so on"
            assert one(metric, full[:n], answer) == one(metric, full, answer)
