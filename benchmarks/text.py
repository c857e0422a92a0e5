"""Text to tensors: prompt and answer as token ids, and the loss on the answer's alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TRUNCATIONS = ("middle", "left", "instruction")
BOUNDARIES = ("exact", "released")
INSTRUCTION_TOKENS = 64  # of a prompt's beginning that "instruction" keeps
RELEASED_ANSWER_TOKENS = 512  # what the released code allows on top of the prompt's limit


class Tokenizer:
    """What everything here sees of a tokenizer: texts to ids and back, special tokens apart.

    A text that spells out a special token, as Py150's programs that begin with "<s>", is encoded
    as the tokenizer itself does it.

    Attributes:
        pad, end: ids; padding is masked everywhere, so that any id serves.
        begin: id, None if texts begin without a token.
        template: wraps a prompt as the user's turn of a chat, None if the model is not for chats.
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
    def from_folder(cls, path: Path) -> Tokenizer:
        """That of a causal language model of transformers.

        Raises:
            ValueError: it has no token that ends a text.
        """
        from transformers import AutoTokenizer

        own = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        if own.eos_token_id is None:
            raise ValueError(f"the tokenizer in {path} has no token that ends a text (eos_token)")

        def template(prompt: str) -> str:
            turn = [{"role": "user", "content": prompt}]
            text = own.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
            return text.removeprefix(own.bos_token or "")  # which `encode` below adds

        choices = (own.pad_token_id, own.unk_token_id, own.eos_token_id)
        return cls(
            lambda text: own.encode(text, add_special_tokens=False),
            lambda ids: own.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            ),
            next(token for token in choices if token is not None),
            own.bos_token_id,
            own.eos_token_id,
            template if own.chat_template else None,
        )

    def continuation(self, text: str) -> list[int]:
        """Ids of a text that follows another one.

        A sentencepiece tokenizer puts a space before whatever begins a text; behind a line break
        there is none, as there is none behind a prompt.
        """
        line, both = self.encode("\n"), self.encode("\n" + text)
        return both[len(line) :] if both[: len(line)] == line else self.encode(text)


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
        chat_template: put the prompt into the tokenizer's template of a user's turn.

    Raises:
        ValueError: the tokenizer has no such template.
    """
    ids = tokenizer.encode(prompt)
    if chat_template:
        if tokenizer.template is None:
            raise ValueError("chat_template is asked for, but the tokenizer has none: leave it out")
        text = tokenizer.decode(truncate(ids, max_prompt_tokens, truncation))
        text = text.replace("\ufffd", "")  # what is left of characters that the cut divided
        prompt = tokenizer.template(text)
        ids, max_prompt_tokens = tokenizer.encode(prompt), None
    begin = [] if tokenizer.begin is None else [tokenizer.begin]
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


def pad_left(encoded: list[tuple[list[int], int]]) -> tuple[Tensor, Tensor]:
    """x (n, 2, L) and y (n, L) of `baselines.base`, padded on the left with id 0."""
    import torch

    length = max(len(ids) for ids, _ in encoded)
    x = torch.zeros(len(encoded), 2, length, dtype=torch.long)
    y = torch.full((len(encoded), length), -100)
    for i, (ids, n_answer) in enumerate(encoded):
        start, boundary = length - len(ids), length - n_answer
        x[i, 0, start:] = torch.tensor(ids)
        x[i, 1, start:boundary] = 1
        x[i, 1, boundary:] = 2
        y[i, boundary:] = x[i, 0, boundary:]
    return x, y


def trim_left(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """x (n, 2, L) and y (n, L) without the padding that all rows share."""
    start = int((x[:, 1] > 0).any(dim=0).nonzero()[0])
    return x[:, :, start:], y[:, start:]
