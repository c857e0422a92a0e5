"""Prompts and answers as token ids: what is asked, what is cut, where the loss is."""

import datetime

import pytest
import tokenizers
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from benchmarks.common.files import DataError
from benchmarks.streams.common.encoding import (
    INSTRUCTION_TOKENS,
    Tokenizer,
    encode,
    truncate,
)
from benchmarks.streams.common.text_tasks import TASKS

TEXTS = [
    "What is the topic?\nSports win the cup.\nAnswer:Sports",
    "Is it true? A plane can land on water.\nAnswer:contradiction",
    "Solve 12 + 30.\nAnswer:42",
]


def sentencepiece(texts=TEXTS, size=400):
    """As Llama-2's: a space before what begins a text, pieces over it, bytes for the rest."""
    own = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    own.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    own.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    own.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    own.train_from_iterator(texts, trainer)
    return own


def byte_level(texts=TEXTS, size=400):
    own = tokenizers.Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    own.train_from_iterator(texts, trainer)
    return own


def loaded(own, folder, begins="<s>", **options):
    """Saved and read again as a language model's tokenizer; without a token for padding.

    Texts have `begins` before them and, after a bar, what follows them.
    """
    before, _, after = begins.partition("|")
    if begins:
        whole = f"{before} $A {after}".strip()
        special = [(token, own.token_to_id(token)) for token in set(whole.split()) - {"$A"}]
        own.post_processor = processors.TemplateProcessing(whole, None, special)
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "clean_up_tokenization_spaces": False}
    PreTrainedTokenizerFast(tokenizer_object=own, **(tokens | options)).save_pretrained(folder)
    return Tokenizer.from_folder(folder)


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


@pytest.mark.parametrize(
    ("begins", "begin"), [("<s>", 1), ("<s>|</s>", 1), ("|</s>", None), ("", None), ("</s>", 2)]
)
@pytest.mark.parametrize("make", [sentencepiece, byte_level])
def test_texts_begin_as_the_tokenizer_itself_begins_them(make, begins, begin, tmp_path):
    """Each has a bos_token; whether it stands before a text is another matter."""
    tokenizer = loaded(make(), tmp_path, begins)
    assert tokenizer.begin == begin
    ids, _ = encode(tokenizer, "Say 12:", None, 100)
    whole = transformers.AutoTokenizer.from_pretrained(tmp_path)("Say 12:")["input_ids"]
    assert ids == (whole[:-1] if "|" in begins else whole)


def test_a_tokenizer_that_begins_with_several_tokens_is_refused(tmp_path):
    with pytest.raises(ValueError, match="begins texts with 2 tokens"):
        loaded(byte_level(), tmp_path, "<s> </s>")


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


TEMPLATES = [
    "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
    "{{ messages[0]['content'] }}{% if add_generation_prompt %}\nAnswer:{% endif %}",
    "{% if tools is not none %}tools{% endif %}{% if documents %}documents{% endif %}"
    "{% for m in messages %}{{ m.role + ': ' + m['content'] | trim }}{% endfor %}",
    "{% generation %}{{ messages | tojson }}{% endgeneration %}",
    "{% set ns = namespace(text='') %}{% for m in messages %}{% set ns.text = m.content %}"
    "{% break %}{% endfor %}{{ ns.text }}",
]


@pytest.mark.parametrize("begins", ["<s>", ""])
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_chat_is_written_as_transformers_writes_it(template, begins, tmp_path):
    """With the begin that the template writes and no other."""
    tokenizer = loaded(byte_level(), tmp_path, begins, chat_template=template)
    own = transformers.AutoTokenizer.from_pretrained(tmp_path)
    turn = [{"role": "user", "content": "Say yes."}]
    expected = own.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    assert encode(tokenizer, "Say yes.", None, 40, chat_template=True)[0] == expected


@pytest.mark.parametrize("ask", ["strftime_now('%d %b %H:%M:%S %Y')", "strftime_now(format='%Y')"])
def test_a_chat_template_never_learns_the_day(ask, tmp_path, monkeypatch):
    template = f"{{{{ {ask} }}}} {{{{ messages[0].content }}}}"
    texts = []
    for year in (2025, 2031):

        class Clock(datetime.datetime):
            now = classmethod(lambda cls, tz=None, year=year: datetime.datetime(year, 1, 1))

        monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Clock)
        tokenizer = loaded(byte_level(), tmp_path, chat_template=template)
        texts.append(tokenizer.template("Now?"))
    assert texts[0] == texts[1] and texts[0].endswith("2024 Now?")


@pytest.mark.parametrize(
    "template",
    [
        "{{ [1, 2] | random }}",
        "{{ lipsum() }}",
        "{{ messages[0].items }}",
        "{{ raise_exception('no users') }}",
        "{{ messages[",
        "{{ messages[9].content }}",
    ],
)
def test_a_chat_template_of_chance_or_none_is_refused_where_it_is_asked_for(template, tmp_path):
    tokenizer = loaded(byte_level(), tmp_path, chat_template=template)
    assert encode(tokenizer, "a", None, 4)[1] == 0
    with pytest.raises(DataError, match="chat_template is asked for"):
        encode(tokenizer, "a", None, 4, chat_template=True)


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
