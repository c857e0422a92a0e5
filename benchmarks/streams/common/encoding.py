"""Text to tensors: prompt and answer as token ids, and the loss on the answer's alone."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common.files import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

TRUNCATIONS = ("middle", "left", "instruction")
BOUNDARIES = ("exact", "released")
INSTRUCTION_TOKENS = 64  # of a prompt's beginning that "instruction" keeps
RELEASED_ANSWER_TOKENS = 512  # what the released code allows on top of the prompt's limit
# What chat templates are told when they ask for the time: Llama 3.2's own where nobody tells it.
DAY = datetime.datetime(2024, 7, 26)


class Tokenizer:
    """What everything here sees of a tokenizer: texts to ids and back, special tokens apart.

    A text that spells out a special token, as Py150's programs that begin with "<s>", is encoded
    as the tokenizer itself does it.

    Attributes:
        pad, end: ids; padding is masked everywhere, so that any id serves.
        begin: id, None if texts begin without a token.
        template: wraps a prompt as the user's turn of a chat, the begin of texts included; None if
            the model is not for chats.
    """

    def __init__(self, encode, decode, pad: int, begin: int | None, end: int, template=None):
        self.encode, self.decode, self.template = encode, decode, template
        self.pad, self.begin, self.end = pad, begin, end

    @classmethod
    def of(cls, own) -> Tokenizer:
        """One of the library tokenizers, with <pad>, <s> and </s>."""
        pad, begin, end = (own.token_to_id(token) for token in ("<pad>", "<s>", "</s>"))
        return cls(lambda text: own.encode(text).ids, own.decode, pad, begin, end)

    @classmethod
    def from_folder(cls, path: Path, config: PreTrainedConfig | None = None) -> Tokenizer:
        """That of a causal language model of transformers, with the configuration given.

        Raises:
            ValueError: it has no token that ends a text, ids beyond the model's vocabulary, or
                begins texts with several tokens.
        """
        from transformers import AutoTokenizer

        own = AutoTokenizer.from_pretrained(
            path, config=config, local_files_only=True, trust_remote_code=False
        )
        if own.eos_token_id is None:
            raise ValueError("it has no token that ends a text: set eos_token")
        last = max(own.get_vocab(), key=own.get_vocab().get)
        if config is not None and own.get_vocab()[last] >= config.vocab_size:
            raise ValueError(
                f"its token {last!r} has the id {own.get_vocab()[last]}, but the model knows "
                f"{config.vocab_size} ids from 0 on: call resize_token_embeddings(len(tokenizer)) "
                "on the model and save it, or take the tokenizer that it was saved with"
            )
        choices = (own.pad_token_id, own.unk_token_id, own.eos_token_id)
        return cls(
            lambda text: own.encode(text, add_special_tokens=False),
            lambda ids: own.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            ),
            next(token for token in choices if token is not None),
            _begin(own),
            own.eos_token_id,
            _template(own) if own.chat_template else None,
        )

    def continuation(self, text: str) -> list[int]:
        """Ids of a text that follows another one.

        A sentencepiece tokenizer puts a space before whatever begins a text; behind a line break
        there is none, as there is none behind a prompt.
        """
        line, both = self.encode("\n"), self.encode("\n" + text)
        return both[len(line) :] if both[: len(line)] == line else self.encode(text)


def _begin(own) -> int | None:
    """What a tokenizer of transformers itself puts before a text.

    That it has a bos_token tells nothing: SmolLM2's begins a role, GPT-2's ends texts, and neither
    is put before one.
    """
    plain, whole = own.encode("x", add_special_tokens=False), own.encode("x")
    starts = (i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
    begin = whole[: next(starts, len(whole))]
    if len(begin) > 1:
        raise ValueError(f"it begins texts with {len(begin)} tokens, where one at most is expected")
    return begin[0] if begin else None


def _template(own) -> Callable[[str], str]:
    """A prompt as the user's turn of a chat: the tokenizer's template without clock and chance."""

    def render(template, prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        options = {"tools": None, "documents": None, "add_generation_prompt": True}
        return template.render(messages=messages, **options, **own.special_tokens_map)

    @functools.cache
    def compiled():
        from transformers.utils.chat_template_utils import _compile_jinja_template

        source = own.get_chat_template()
        environment = _compile_jinja_template(source).environment
        environment.globals["strftime_now"] = DAY.strftime
        environment.globals.pop("lipsum", None)  # both draw at random
        environment.filters.pop("random", None)
        template = environment.from_string(source)
        if re.search(" at 0x[0-9a-f]+>", render(template, "x")):
            raise ValueError("it writes an address in memory, other in each process")
        return template

    def turn(prompt: str) -> str:
        try:
            return render(compiled(), prompt)
        except Exception as error:  # a template is a program
            raise DataError(
                f"chat_template is asked for, but the tokenizer's fails ({error}): leave it out"
            ) from error

    return turn


def encode(
    tokenizer: Tokenizer,
    prompt: str,
    answer: str | None,
    max_prompt_tokens: int,
    max_answer_tokens: int | None = None,
    truncation: str = "middle",
    boundary: str = "exact",
    chat_template: bool = False,
) -> tuple[list[int], int]:
    """Token ids of begin + prompt + answer + end, and how many of them are the answer's.

    Args:
        tokenizer: turns text into ids.
        prompt: what is asked.
        answer: None where the model is to answer.
        max_prompt_tokens: of a longer prompt parts are left out.
        max_answer_tokens: the rest of a longer answer is left out, also of a character that spans
            several tokens; None keeps all.
        truncation: which part of a prompt goes: its "middle" (of what stays, three quarters are
            its beginning), all but its end ("left", the released code and so the paper), or all
            between the first 64 tokens and the end ("instruction").
        boundary: "exact" encodes prompt and answer apart, so that the ids a model is trained on are
            those it is asked for, and the loss is on the answer's exactly. "released" encodes both
            together and takes for the answer as many ids as it has alone, which for some
            tokenizers leaves its first tokens without loss; the limit is then on prompt and
            answer together, 512 ids longer than for the prompt alone.
        chat_template: put the prompt into the tokenizer's template of a user's turn, which writes
            the begin of texts itself.

    Raises:
        DataError: the tokenizer has no such template.
    """
    ids = tokenizer.encode(prompt)
    begin = [] if tokenizer.begin is None else [tokenizer.begin]
    if chat_template:
        if tokenizer.template is None:
            raise DataError("chat_template is asked for, but the tokenizer has none: leave it out")
        text = tokenizer.decode(truncate(ids, max_prompt_tokens, truncation))
        text = text.replace("\ufffd", "")  # what is left of characters that the cut divided
        prompt = tokenizer.template(text)
        ids, max_prompt_tokens, begin = tokenizer.encode(prompt), None, []
    if answer is None:
        return begin + truncate(ids, max_prompt_tokens, truncation), 0
    end = [tokenizer.end]
    if boundary == "released":
        n_answer = len(tokenizer.encode(answer)[:max_answer_tokens])
        limit = max_prompt_tokens and max_prompt_tokens + RELEASED_ANSWER_TOKENS
        ids = truncate(tokenizer.encode(prompt + answer), limit, truncation)
        return begin + ids + end, min(n_answer, len(ids)) + 1
    answer_ids = tokenizer.continuation(answer)
    if max_answer_tokens is not None and len(answer_ids) > max_answer_tokens:
        answer_ids = answer_ids[:max_answer_tokens]
        while tokenizer.decode(answer_ids).endswith("\ufffd"):
            answer_ids = answer_ids[:-1]  # of a character that the cut divided
    return begin + truncate(ids, max_prompt_tokens, truncation) + answer_ids + end, (
        len(answer_ids) + 1
    )


def truncate(ids: list[int], limit: int | None, how: str) -> list[int]:
    """At most `limit` of the ids; see `encode`."""
    if limit is None or len(ids) <= limit:
        return ids
    if how == "left":
        return ids[-limit:]
    n_last = limit // 4 if how == "middle" else limit - min(INSTRUCTION_TOKENS, limit // 2)
    return ids[: limit - n_last] + ids[-n_last:]
