"""What is known of the text tasks that have a name: the table beside this file."""

import csv
from pathlib import Path
from typing import NamedTuple


class TextTask(NamedTuple):
    """What is known of a task beforehand: of the pack of 500, where it speaks of items.

    Attributes:
        kind: decides its metrics, a key of `METRICS`.
        group: the planted one.
        n_items: for training and for testing.
        tokens: by Llama-2's tokenizer, for estimates: mean of a training item of at most 1,536,
            mean of a test prompt of at most 1,024, and the 95th percentile of the test answers.
        digest: `items.Task.digest` of the pack this was developed with.
    """

    kind: str
    group: str
    n_items: tuple[int, int]
    tokens: tuple[int, int, int]
    digest: str


def _read() -> dict[str, TextTask]:
    with open(Path(__file__).with_suffix(".csv"), encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    return {
        name: TextTask(kind, group, (*map(int, numbers[:2]),), (*map(int, numbers[2:]),), digest)
        for name, kind, group, *numbers, digest in rows
    }


TASKS = _read()

METRICS = {  # kind -> by default, and with `scoring: released`
    "label": ("first_line", "prefix"),
    "choice": ("letter", "first_character"),
    "summary": ("rouge_l", "rouge_l_released"),
    "code": ("edit_similarity", "edit_similarity_released"),
    "simplification": ("sari", "sari"),
}
