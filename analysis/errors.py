"""Input that cannot be used, in one sentence for the user."""

from __future__ import annotations

from analysis.text import visible


class DataError(ValueError):
    """Input that cannot be used; the message is one sentence for the user."""

    def __str__(self) -> str:
        return visible(super().__str__())
