"""Tokenizers behind one face: texts to ids and back, what begins and ends them, a chat's turn."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# What chat templates are told when they ask for the time: Llama 3.2's own where nobody tells it.
DAY = datetime.datetime(2024, 7, 26)


@dataclass
class Tokenizer:
    """What everything here sees of a tokenizer, special tokens apart.

    A text that spells out a special token, as Py150's programs that begin with "<s>", is encoded
    as the tokenizer itself does it.

    Attributes:
        encode, decode: a text to ids, and ids to a text.
        begin: id, None if texts begin without a token.
        end: id.
        template: wraps a prompt as the user's turn of a chat, the begin of texts included; None if
            the model is not for chats.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    begin: int | None
    end: int
    template: Callable[[str], str] | None = None

    @classmethod
    def of(cls, own) -> Tokenizer:
        """One of the library tokenizers, with <s> and </s>."""
        begin, end = (own.token_to_id(token) for token in ("<s>", "</s>"))
        return cls(lambda text: own.encode(text).ids, own.decode, begin, end)

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
        return cls(
            lambda text: own.encode(text, add_special_tokens=False),
            lambda ids: own.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            ),
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
