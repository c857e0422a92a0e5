"""Prompts and answers as token ids: what is asked, what is cut, where the loss is."""

import pytest
from tokenizers import models

from benchmarks.common.errors import DataError
from benchmarks.streams.common.encoding import INSTRUCTION_TOKENS, encode, truncate
from benchmarks.streams.common.text_tasks import TASKS
from tests.vocabularies import TEXTS, byte_level, loaded, sentencepiece


@pytest.fixture(params=[sentencepiece, byte_level])
def tokenizer(request, tmp_path):
    return loaded(request.param(), tmp_path)


def test_the_loss_is_on_the_answer_exactly_and_on_the_end(tokenizer):
    for text in TEXTS:
        prompt, answer = text.split("Answer:")
        prompt += "Answer:"
        ids, n_answer = encode(tokenizer, prompt, answer, 100)
        asked, _ = encode(tokenizer, prompt, None, 100)
        assert ids[:-n_answer] == asked  # as at inference
        assert ids[0] == tokenizer.begin and ids[-1] == tokenizer.end
        assert tokenizer.decode(ids[-n_answer:-1]).strip() == answer
        assert tokenizer.decode(ids) == text


def test_the_released_boundary_leaves_an_answers_beginning_without_loss(tmp_path):
    """Alone an answer has a space before it, and so fewer pieces than behind a prompt."""
    merges = [("▁", "S"), ("p", "o"), ("r", "t"), ("po", "rt"), ("port", "s"), ("▁S", "ports")]
    letters = ["<unk>", "<s>", "</s>", "▁", "\n", *map(chr, range(33, 127))]
    pieces = letters + ["".join(pair) for pair in merges]
    own = sentencepiece()
    own.model = models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>")
    tokenizer = loaded(own, tmp_path)
    prompt = "What is the topic?\nAnswer:"
    assert len(tokenizer.encode("Sports")) == 1
    exact = encode(tokenizer, prompt, "Sports", 100)
    assert exact[1] == 3 and tokenizer.decode(exact[0][-3:]) == "Sports"
    released = encode(tokenizer, prompt, "Sports", 100, boundary="released")
    assert released[0] == exact[0]
    assert released[1] == 2 and tokenizer.decode(released[0][-2:]) == "ports"


def test_a_byte_level_tokenizer_has_no_such_slip(tmp_path):
    tokenizer = loaded(byte_level(), tmp_path)
    for text in TEXTS:
        prompt, answer = text.split("Answer:")
        both = [
            encode(tokenizer, f"{prompt}Answer:\n", answer, 100, boundary=boundary)
            for boundary in ("exact", "released")
        ]
        assert both[0] == both[1]


def test_where_a_prompt_is_cut():
    ids = list(range(200))
    assert truncate(ids, 200, "left") is ids
    assert truncate(ids, 10, "left") == ids[-10:]
    assert truncate(ids, 8, "middle") == ids[:6] + ids[-2:]
    kept = truncate(ids, 150, "instruction")
    assert kept == ids[:INSTRUCTION_TOKENS] + ids[-(150 - INSTRUCTION_TOKENS) :]
    assert truncate(ids, 10, "instruction") == ids[:5] + ids[-5:]


def test_the_released_limit_is_on_prompt_and_answer_together(tmp_path):
    tokenizer = loaded(byte_level(), tmp_path)
    long = "x" * 2000
    options = {"truncation": "left", "boundary": "released"}
    ids, n_answer = encode(tokenizer, long, "Sports", 40, **options)
    assert len(ids) == 40 + 512 + 2
    assert tokenizer.decode(ids[-n_answer:]) == "Sports"
    assert len(encode(tokenizer, long, None, 40, **options)[0]) == 41


def test_long_answers_are_cut_and_still_end(tokenizer):
    ids, n_answer = encode(tokenizer, "Say:", "one two three four five six", 50, 3)
    assert n_answer == 4 and ids[-1] == tokenizer.end


@pytest.mark.parametrize(("text", "start"), [("ab会议", "ab"), ("für", "f")])
def test_no_cut_leaves_half_a_character(text, start, tmp_path):
    """Characters of two and three bytes, each byte a token."""
    template = "{{ bos_token }}{{ messages[0]['content'] }}:"
    tokenizer = loaded(byte_level(), tmp_path, chat_template=template)
    found = set()
    for limit in range(len(start), len(text.encode())):
        ids, n_answer = encode(tokenizer, "Say:", text, 50, limit)
        said = tokenizer.decode(ids[-n_answer:-1])
        assert said in [text[:n] for n in range(len(text))] and ids[-1] == tokenizer.end
        assert n_answer - 1 <= limit
        found.add(said)
        ids, _ = encode(tokenizer, text * 3, None, limit + 3, chat_template=True)
        assert "\ufffd" not in tokenizer.decode(ids)
    assert start in found


def test_the_chat_template_wraps_the_cut_prompt(tmp_path):
    template = "{{ bos_token }}[INST] {{ messages[0]['content'] }} [/INST]"
    tokenizer = loaded(byte_level(), tmp_path, chat_template=template)
    ids, n_answer = encode(tokenizer, "a b c d", "yes", 4, truncation="left", chat_template=True)
    assert ids.count(tokenizer.begin) == 1
    wrapped = tokenizer.decode(ids[:-n_answer])
    assert wrapped.startswith("[INST] ") and wrapped.endswith(" c d [/INST]")
    (tmp_path / "plain").mkdir()
    plain = loaded(byte_level(), tmp_path / "plain")
    with pytest.raises(DataError, match="chat_template is asked for.* leave it out"):
        encode(plain, "a", None, 4, chat_template=True)


@pytest.mark.parametrize("make", [sentencepiece, byte_level])
def test_every_real_item_is_asked_as_it_is_trained(make, real_items, tmp_path):
    items = {task: real_items(task, "train")[:60] for task in TASKS}
    own = make([i["prompt"][:500] for part in items.values() for i in part], 3000)
    tokenizer = loaded(own, tmp_path)
    for task, part in items.items():
        for item in part:
            ids, n_answer = encode(tokenizer, item["prompt"], item["answer"], 300)
            assert ids[:-n_answer] == encode(tokenizer, item["prompt"], None, 300)[0], task
            if make is byte_level:  # to the other one, so small, rare signs are unknown
                assert tokenizer.decode(ids[-n_answer:-1]).strip() == item["answer"].strip(), task
