"""General ability before and after a stream, as TRACE reports it: the loss on a text apart from it.

A first measure: the mean negative log-likelihood of a text's tokens, in nats per token, of the
backbone as it was loaded and of the model at the end of the stream. Its exponential is the
perplexity. The text is read in windows, each from the token that begins texts, and no method is
told of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from baselines.common.task import TokenLoss
from benchmarks import streams
from benchmarks.backbones import BACKBONES
from benchmarks.backbones.tokenizer import Tokenizer
from benchmarks.common.digests import digest_of
from benchmarks.common.errors import DataError, one_sentence
from benchmarks.common.files import expanded
from benchmarks.streams.common.sources import content, remembered
from benchmarks.streams.common.tasks import RESOURCES

DOCS = "docs"  # the texts that micro-llama's pre-training on that stream's held-out domain left out
WINDOW_TOKENS = 128
MOST_WINDOWS = 64
WINDOWS_AT_A_TIME = 8
_MOST_BYTES = 1 << 24  # that are read of a file


def located(place: str, folder: Path) -> str:
    """A file that a suite in that folder names, as it is from the current one."""
    return place if place == DOCS else os.path.relpath(folder / expanded(place))


def digest(place: str) -> str:
    """Of the text; DataError if there is none."""
    if place == DOCS:
        return digest_of([DOCS, streams.make({"name": DOCS}).fingerprint()])
    path = Path(place)
    if not path.is_file():
        raise DataError(
            f"general must be {DOCS} or the path of a text file, but {place} is no file: correct it"
        )
    with one_sentence(f"general, {place}, is no text in UTF-8", "save it as such"):
        content(path, _MOST_BYTES).decode()
    return remembered([path], "sha256")[0]


def streams_needed(spec: dict) -> list[str]:
    """Streams, without options, that must have been prepared for a run's text."""
    return [DOCS] if spec["train"].get("general") == DOCS else []


def windows(place: str, wanted: str, tokenizer: Tokenizer, context: int | None) -> Tensor:
    """The text as samples x (n, 2, L), see `baselines.common.task`, all but the first token answer.

    Raises:
        DataError: its digest is not the `wanted` one, or it is too short.
    """
    if digest(place) != wanted:
        raise DataError(f"general, {place}, has changed since the run was planned: plan it anew")
    ids = tokenizer.encode(_text(place))
    length = min(WINDOW_TOKENS, context or WINDOW_TOKENS)
    begin = [] if tokenizer.begin is None else [tokenizer.begin]
    step = length - len(begin)
    starts = range(0, min(len(ids) - step + 1, MOST_WINDOWS * step), step)
    if not starts:
        raise DataError(f"general, {place}, must have {step} tokens or more, but has {len(ids)}")
    x = torch.tensor([begin + ids[start : start + step] for start in starts])
    mask = torch.full_like(x, 2)
    mask[:, 0] = 1
    return torch.stack([x, mask], dim=1)


def _text(place: str) -> str:
    if place != DOCS:
        return content(Path(place), _MOST_BYTES).decode()
    file = RESOURCES / "streams" / DOCS / "pretrain.json"
    with one_sentence(f"{file} cannot be read", f"delete {file.parent} and run again"):
        items = json.loads(file.read_text(encoding="utf-8"))
    return "\n\n".join(item["text"] for item in items[:: BACKBONES["micro-llama"].held_out])


@torch.no_grad()
def nats_per_token(model: Callable[[Tensor], Tensor], x: Tensor, device: str) -> float:
    """The mean loss of the windows' answers; `model` is in evaluation."""
    loss, total = TokenLoss(), 0.0
    for part in x.split(WINDOWS_AT_A_TIME):
        part = part.to(device)
        y = part[:, 0].masked_fill(part[:, 1] != 2, -100)
        total += loss(model(part), y).item() * len(part)
    return total / len(x)
