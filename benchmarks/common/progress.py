"""Progress on stderr: how far, how fast, how long still."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from analysis.terminal import tell
from analysis.text import visible


class Progress:
    """One line about work that takes a while: every second on a terminal, every ten in a log file.

    Args:
        name: what is done; it stands before each line.
        total: its amount, None if that is unknown.
        unit: of the amount.
        done: how much of it an earlier attempt has left behind.
    """

    def __init__(self, name: str, total: float | None, unit: str, done: float = 0):
        self.name, self.total, self.unit = name, total, unit
        self._done = self._before = done
        self._seconds = 0.0
        self._terminal = sys.stderr.isatty()
        self._shown = time.monotonic()
        self.start()

    def start(self, place: str = "") -> None:
        """Begin a stretch of the work; the time since the stretch before does not count."""
        self.place = place
        self._last = time.monotonic()

    def advance(self, amount: float = 1, note: Callable[[], str] = str) -> None:
        """Count some work; the note is only asked for when a line is due."""
        now = time.monotonic()
        self._done += amount
        self._seconds += now - self._last
        self._last = now
        last = self.total is not None and self._done > self.total - 1e-6
        if now - self._shown < (1 if self._terminal else 10) and not last:
            return
        self._shown = now
        speed = (self._done - self._before) / max(self._seconds, 1e-3)
        parts = [self._amount(), note(), f"{speed:.1f} {self.unit}/s"]
        if self.total is not None:
            parts.append(f"about {(self.total - self._done) / max(speed, 1e-9):.0f} s left")
        self.say(f"{self.place} {', '.join(filter(None, parts))}".strip(), last)

    def _amount(self) -> str:
        digits = 1 if isinstance(self._done, float) else 0
        shown = [f"{n:,.{digits}f}" for n in (self._done, self.total) if n is not None]
        return f"{' of '.join(shown)} {self.unit}"

    def say(self, text: str, last: bool = False) -> None:
        """Show a line; on a terminal it replaces the one before, unless that was the last."""
        start, end = ("\r\033[K", "\n" if last else "") if self._terminal else ("", "\n")
        tell(f"{start}{visible(f'{self.name}: {text}')}", end=end)
