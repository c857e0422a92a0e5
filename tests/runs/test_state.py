"""The saved state of a run is whole, its own, and read without running any code."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.common.errors import DataError
from benchmarks.runs.state import load_state, save_state

KEY = "0123456789ab"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.pt"


def test_what_was_saved_is_loaded(path):
    method = {"a": (1, 2.0, None, True, "b", b"c", {3}, [torch.ones(2)]), 1: torch.Size([2])}
    save_state(path, KEY, method, {"R": [[0.5, None]]})
    loaded, record = load_state(path, KEY, "cpu")
    assert torch.equal(loaded["a"][-1].pop(), torch.ones(2))
    assert record == {"R": [[0.5, None]]} and loaded[1] == torch.Size([2])


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"of": [1.0, np.ones(2)]}, "['norms']['of'][1] is a numpy.ndarray"),
        (np.float64(1), "['norms'] is a numpy.float64"),
        ({1.5: {Path("a")}}, "['norms'][1.5][0] is a pathlib."),
        ({np.str_("a"): 1}, "a name in its state['norms'] is a numpy.str_"),
        (lambda: 0, "['norms'] is a builtins.function"),
    ],
)
def test_a_value_that_could_not_be_read_again_is_refused_when_it_is_saved(path, value, where):
    with pytest.raises(DataError) as refused:
        save_state(path, KEY, {"norms": value}, {})
    assert where in str(refused.value) and not path.exists()


def test_a_damaged_or_foreign_state_is_named_and_kept(path):
    save_state(path, KEY, {"a": torch.ones(1000)}, {})
    whole = path.read_bytes()
    flipped = whole.replace(np.ones(1000, np.float32).tobytes(), bytes(4000))
    assert flipped != whole
    for content in (b"not a state", whole[:-100], flipped):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{path} is corrupt"):
            load_state(path, KEY, "cpu")
        assert path.read_bytes() == content
    path.write_bytes(whole)
    with pytest.raises(DataError, match=f"{KEY}, not another"):
        load_state(path, "another", "cpu")


def test_a_whole_state_is_not_called_corrupt(path, monkeypatch):
    for content in ({"key": KEY, "method": np.ones(2), "record": {}}, [1]):
        torch.save(content, path)
        with pytest.raises(DataError, match=str(path)) as refused:
            load_state(path, KEY, "cpu")
        assert "corrupt" not in str(refused.value)

    def no_memory(*arguments, **options):
        raise torch.OutOfMemoryError("there is no memory")

    save_state(path, KEY, {}, {})
    monkeypatch.setattr(torch, "load", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        load_state(path, KEY, "cpu")
