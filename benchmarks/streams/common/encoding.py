"""Text to tensors: prompt and answer as token ids, and the loss on the answer's alone."""

from __future__ import annotations

from typing import Any

from benchmarks.common.errors import DataError

TRUNCATIONS = ("middle", "left", "instruction")
BOUNDARIES = ("exact", "released")
INSTRUCTION_TOKENS = 64  # of a prompt's beginning that "instruction" keeps
RELEASED_ANSWER_TOKENS = 512  # what the released code allows on top of the prompt's limit


def encode(
    tokenizer: Any,
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
        tokenizer: turns text into ids, a `benchmarks.backbones.tokenizer.Tokenizer`.
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
