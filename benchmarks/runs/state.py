"""A run's state on disk: what it continues from, read without running any code."""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from analysis.text import quoted
from benchmarks.common.errors import DataError
from benchmarks.common.files import write_bytes

READABLE = (torch.Tensor, torch.nn.Parameter, torch.Size, str, bytes, bool, int, float)


def save_state(path: Path, key: str, method_state: dict, record: dict) -> None:
    """Save what a method learnt, or where it stands in a task, and what was measured so far.

    Raises:
        DataError: the method keeps a value that could not be read again.
    """
    check_state(method_state, "its state")
    buffer = io.BytesIO()
    torch.save({"key": key, "method": method_state, "record": record}, buffer)
    write_bytes(path, buffer.getvalue())


def check_state(value: Any, name: str) -> None:
    """Reading runs no code, so that only tensors, numbers, text and collections of them can be."""
    if type(value) in (dict, OrderedDict):
        for key, part in value.items():
            check_state(key, f"a name in {name}")
            check_state(part, f"{name}[{quoted(key)}]")
    elif type(value) in (list, tuple, set):
        for i, part in enumerate(value):
            check_state(part, f"{name}[{i}]")
    elif value is not None and type(value) not in READABLE:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise DataError(
            f"the method cannot be saved, as {name} is a {kind}: let state_dict() give a tensor, "
            f"a number or text instead; torch.as_tensor() makes a tensor of an array"
        )


def load_state(path: Path, key: str, device: str | None) -> tuple[dict, dict]:
    """The method's state and the record of a run.

    Args:
        device: where its tensors are to be; None for where each was.

    Raises:
        DataError: the file is damaged, is no state, or is of another run.
    """
    if not _is_whole(path):
        raise DataError(f"{path} is corrupt: delete it to start the run again")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} is whole, but holds more than tensors, numbers and text, which is not read: "
            f"delete it to start the run again"
        ) from error
    if not isinstance(state, dict) or not {"key", "method", "record"} <= state.keys():
        raise DataError(f"{path} is no state of a run: delete it to start the run again")
    if state["key"] != key:
        raise DataError(f"{path} belongs to run {state['key']}, not {key}: delete it")
    return state["method"], state["record"]


def _is_whole(path: Path) -> bool:
    """Whether each part has the checksum the file keeps of it; torch does not look."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
        return False
