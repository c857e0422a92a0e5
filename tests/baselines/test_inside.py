"""What a method of the user's own may keep inside a task, and what comes of it when it goes on."""

import io
from enum import StrEnum
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from baselines.common.inside import Reader, Unlike, Writer
from benchmarks.runs.state import check_state


class Phase(StrEnum):
    FIRST = "first"
    LAST = "last"


def gone_on(saved, there):
    """What `there` is after the state of `saved` was put back, by way of a file."""
    written = Writer()(saved)
    check_state(written, "its state")
    file = io.BytesIO()
    torch.save(written, file)
    file.seek(0)
    return Reader(nn.Linear(1, 1))(there, torch.load(file, weights_only=True))


@pytest.mark.parametrize(
    "value",
    [np.float32(0.1), np.float64(0.1), np.int64(3), np.bool_(True), np.complex64(1 + 2j)],
    ids=lambda value: type(value).__name__,
)
def test_numbers_of_numpy_stay_what_they_are(value):
    there = gone_on(SimpleNamespace(scale=value), SimpleNamespace(scale=0.0))
    assert there.scale == value and type(there.scale) is type(value)


def test_arrays_of_numbers_are_put_back_and_those_of_texts_are_left():
    there = SimpleNamespace(counts=np.zeros(2), names=np.array(["a", "b"]))
    saved = SimpleNamespace(counts=np.array([1.0, 2.0]), names=np.array(["a", "b"]))
    there = gone_on(saved, there)
    assert there.counts.tolist() == [1, 2] and there.names.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    "value",
    [Phase.FIRST, [Phase.FIRST], {Phase.FIRST: 1.0}, {(1, Phase.FIRST): 1.0}, np.longdouble(1)],
    ids=str,
)
def test_what_could_not_be_put_back_is_not_saved(value):
    with pytest.raises(Unlike, match="enumeration|an array of"):
        Writer()(SimpleNamespace(state=value))


@pytest.mark.parametrize("saved", [{len: 1.0}, [len], {1: len}, {len}, (len,)], ids=str)
def test_what_was_left_must_be_there(saved):
    with pytest.raises(Unlike, match="left as it is"):
        gone_on(saved, type(saved)())


def test_a_number_of_numpy_may_be_a_name():
    assert gone_on({np.int64(3): 1.0}, {}) == {3: 1.0}
