"""Tokenizers behind one face: what begins and ends a text, a chat without clock and chance."""

import datetime

import pytest
import transformers

from benchmarks import backbones
from benchmarks.common.errors import DataError
from benchmarks.streams.common.encoding import encode
from tests.vocabularies import byte_level, loaded, sentencepiece


def test_the_embedded_one_gives_back_every_byte():
    tokenizer = backbones.find("micro-llama").tokenizer({})
    text = "Einschließlich “quotes”, 中文 and\nPart:"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert (tokenizer.begin, tokenizer.end, tokenizer.template) == (1, 2, None)
    assert max(tokenizer.encode(text)) < 2048


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


def test_a_tokenizer_without_an_end_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no token that ends a text"):
        loaded(byte_level(), tmp_path, eos_token=None)


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
