"""A router without any model: the task whose training prompts use the most similar words.

Prompts of different tasks differ so much that this finds the task of nearly every one. Methods that
infer the task must be compared with it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

# A Chinese character, or a run of letters, digits and underscores.
_WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")


class WordRouter:
    """Nearest mean of hashed word counts.

    A text with counts n_b of its lower-cased words in each bin b is the vector sqrt(n_b / sum n),
    of length 1; a task is the mean over its texts, and `route` takes the task of the smallest
    Euclidean distance, the earlier one if two are equal. The root keeps frequent words from
    deciding alone. Nothing is random and nothing depends on the process.
    """

    def __init__(self, bins: int = 4096):
        if bins < 1:
            raise ValueError(f"bins must be at least 1, not {bins}: 4096 serves most streams")
        self.bins = bins
        self.means: list[np.ndarray] = []

    def add(self, texts: Sequence[str]) -> None:
        """The next task, by its training prompts; ValueError if there is none."""
        if not texts:
            raise ValueError("a task needs at least one text to be found by, not none: add some")
        self.means.append(sum(map(self._vector, texts)) / len(texts))

    def route(self, texts: Sequence[str]) -> np.ndarray:
        """The task (n,) of each text, counted from 0; ValueError before the first `add`."""
        if not self.means:
            raise ValueError("there is no task to choose from: add one before routing")
        means = np.stack(self.means)
        nearest = [np.square(means - self._vector(text)).sum(axis=1).argmin() for text in texts]
        return np.array(nearest, dtype=int)

    def _vector(self, text: str) -> np.ndarray:
        bins = [zlib.crc32(word.encode()) % self.bins for word in _WORD.findall(text.lower())]
        counts = np.bincount(np.array(bins, dtype=int), minlength=self.bins)
        return np.sqrt(counts / max(len(bins), 1))
