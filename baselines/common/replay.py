"""A memory of samples of the stream, each of which is kept with the same probability."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


class ReplayBuffer:
    """Reservoir sampling of rows: samples (x, y) and whatever tensors belong to them.

    Vitter, "Random Sampling with a Reservoir" (ACM TOMS 1985): of all rows added so far each is
    among the `capacity` kept ones with the same probability, and none is told how many will come.
    Texts are kept without their padding. Draws are from a generator of its own, so that a method
    with a buffer changes no other draw of a run.

    Attributes:
        seen: rows added so far.
    """

    def __init__(self, capacity: int, seed: int):
        self.capacity = capacity
        self.seen = 0
        self._rows: list[tuple[Tensor, ...]] = []
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, x: Tensor, y: Tensor, *others: Tensor) -> None:
        """Take in samples, see `common.task`, with others (B, ...) of theirs.

        Of a text the others may be of its answer's tokens, (B, A, ...) as logits are: those before
        the row's own answer are dropped.
        """
        columns = x, y, *others
        lengths = (x[:, 1] > 0).sum(dim=1).tolist() if y.dim() == 2 else [None] * len(y)
        answers = (y != -100).sum(dim=1).tolist() if y.dim() == 2 else lengths
        for row, (length, answer) in enumerate(zip(lengths, answers, strict=True)):
            place = self.seen
            if self.seen >= self.capacity:
                place = int(torch.randint(self.seen + 1, (), generator=self._generator))
            self.seen += 1
            if place >= self.capacity:
                continue
            kept = [column[row] for column in columns]
            if length is not None:
                kept = [kept[0][:, -length:], kept[1][-length:], *(o[-answer:] for o in kept[2:])]
            kept = tuple(part.detach().clone() for part in kept)  # not the whole batch's memory
            self._rows[place : place + 1] = [kept]

    def draw(self, n: int) -> tuple[Tensor, ...]:
        """At most n different rows at random: x, y and the others.

        Texts are padded on the left, with 0 in x and in the others and -100 in y.
        """
        chosen = torch.randperm(len(self), generator=self._generator)[:n].tolist()
        x, y, *others = zip(*(self._rows[i] for i in chosen), strict=True)
        if y[0].dim() == 0:
            return tuple(torch.stack(column) for column in (x, y, *others))
        return (_pad(x, 1), _pad(y, 0, -100), *(_pad(column, 0) for column in others))

    def state_dict(self) -> dict:
        rows = [list(row) for row in self._rows]
        return {"seen": self.seen, "rows": rows, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping, device: torch.device | str) -> None:
        self.seen = state["seen"]
        self._rows = [tuple(part.to(device) for part in row) for row in state["rows"]]
        self._generator.set_state(state["generator"].cpu())


def _pad(rows: tuple[Tensor, ...], dim: int, value: int = 0) -> Tensor:
    """Rows stacked after padding them at the beginning of a dimension to the longest."""
    longest = max(row.shape[dim] for row in rows)
    after = [0, 0] * (rows[0].dim() - dim - 1)  # F.pad counts dimensions from the last
    return torch.stack(
        [F.pad(row, (*after, longest - row.shape[dim], 0), value=value) for row in rows]
    )
