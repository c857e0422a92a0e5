"""A method in the middle of a task, as plain values that can be saved, and put back.

What a method keeps between tasks is its `state_dict`; in a task there is more: moments, generators,
what hooks have gathered. A method is therefore brought to the task's first step as ever, and then
each tensor, number, text and generator of it is put back by its place. Objects themselves are
those that are there, as are arrays of texts.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from baselines.common.task import Setting, Task

PLAIN = {str, bytes, bool, int, float, type(None)}  # and nothing derived from them
# Whose objects are left as they are, functions among them.
LIBRARIES = frozenset(
    {"torch", "transformers", "timm", "peft", "numpy", "builtins", "collections", "functools"}
)
NOT_OURS = frozenset(vars(nn.Module())) - {"_parameters", "_buffers", "_modules", "training"}
LEFT = ("left",)  # as it is
NOTHING = object()  # is there now


class Unlike(Exception):
    """What is there is not built as what was saved, or as what can be."""


class Writer:
    """Objects to plain values; one that is met again is named by its number.

    Args:
        leave: objects that are not looked into.
        trained: parameters that are saved although they may be frozen now, as in another stage.
        made: classes of which there may be other objects than at the first step, by their names.
    """

    def __init__(
        self,
        *leave: object,
        trained: Iterable[nn.Parameter] = (),
        made: Mapping[str, type] = MappingProxyType({}),
    ):
        self._made = made
        self._trained = set(map(id, trained))
        self._numbers: dict[int, int] = {}
        self._met: list[object] = []  # alive, or another one would get its id
        self._leave = set(map(id, leave))

    def __call__(self, value: Any) -> Any:
        if type(value) in PLAIN:
            return value
        if id(value) in self._leave or isinstance(value, Task | Dataset | Setting):
            return LEFT
        if id(value) in self._numbers:
            return ("again", self._numbers[id(value)])
        kind, content = self._parts(value)
        if kind is None:
            return LEFT
        number = self._numbers[id(value)] = len(self._met)
        self._met.append(value)
        return (kind, number, content())

    def _parts(self, value: Any) -> tuple:
        """The kind of a value, and what gives its content."""
        if isinstance(value, Tensor):
            frozen = isinstance(value, nn.Parameter) and not value.requires_grad
            fixed = frozen and id(value) not in self._trained
            return (None, None) if fixed else ("tensor", lambda: _copied(value))
        if isinstance(value, np.ndarray | np.generic):
            kind = "array" if isinstance(value, np.ndarray) else "scalar"
            return (kind, lambda: _numbers(value)) if value.dtype.kind in "biufc" else (None, None)
        if isinstance(value, torch.Generator):
            return "generator", value.get_state
        if isinstance(value, np.random.Generator):
            return "numpy", lambda: self(value.bit_generator.state)
        if isinstance(value, random.Random):
            return "random", lambda: self(value.getstate())
        if isinstance(value, torch.optim.Optimizer):
            return "optimizer", lambda: _copied(value.state_dict())
        name = type(value).__name__
        if type(value) is self._made.get(name):
            return "made", lambda: (name, self._attributes(value, set(vars(value))))
        if isinstance(value, dict):
            return "dict", lambda: [(self(k), self(v)) for k, v in value.items()]
        if isinstance(value, list | deque):
            return "list", lambda: [self(part) for part in value]
        if isinstance(value, tuple):
            return "tuple", lambda: [self(part) for part in value]
        if isinstance(value, set):
            return "set", lambda: [self(part) for part in value]
        if isinstance(value, Enum):
            raise Unlike(f"{value!r}, a member of an enumeration")
        if isinstance(value, type) or not hasattr(value, "__dict__"):
            return None, None
        own = type(value).__module__.partition(".")[0] not in LIBRARIES
        if isinstance(value, nn.Module):
            names = set(vars(value)) - NOT_OURS if own else {"_parameters", "_buffers", "_modules"}
        elif own:
            names = set(vars(value))
        else:
            return None, None
        return "object", lambda: self._attributes(value, names)

    def _attributes(self, value: Any, names: set[str]) -> dict:
        parts = {name: self(part) for name, part in vars(value).items() if name in names}
        return {name: part for name, part in parts.items() if part is not LEFT}


class Reader:
    """Plain values back into the objects that are there.

    Args:
        network: whose parameters are written in place, as are tensors that share their memory.
        made: as the writer had.
    """

    def __init__(self, network: nn.Module, made: Mapping[str, type] = MappingProxyType({})):
        self._classes = made
        self._found: dict[int, Any] = {}
        self._memory = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def __call__(self, there: Any, saved: Any) -> Any:
        """What is to stand in the place of `there`.

        Raises:
            Unlike: something was there when it was saved, and there is nothing now.
        """
        if type(saved) in PLAIN:
            return saved
        kind, *rest = saved
        if kind == "left":
            if there is NOTHING:
                raise Unlike("what was left as it is")
            return there
        if kind == "again":
            return self._found[rest[0]]
        number, content = rest
        return getattr(self, f"_{kind}")(there, content, number)

    def _note(self, number: int, value: Any) -> Any:
        self._found[number] = value
        return value

    @torch.no_grad()
    def _tensor(self, there, content, number):
        shares = isinstance(there, Tensor) and (
            isinstance(there, nn.Parameter) or there.untyped_storage().data_ptr() in self._memory
        )
        if not shares:
            return self._note(number, content)
        if there.shape != content.shape:
            raise Unlike("a parameter")
        there.copy_(content)
        return self._note(number, there)

    def _array(self, there, content, number):
        return self._note(number, content.numpy())

    def _scalar(self, there, content, number):
        return self._note(number, content.numpy()[()])

    def _generator(self, there, content, number):
        there = there if isinstance(there, torch.Generator) else torch.Generator()
        there.set_state(content)
        return self._note(number, there)

    def _numpy(self, there, content, number):
        there.bit_generator.state = self(None, content)
        return self._note(number, there)

    def _random(self, there, content, number):
        there.setstate(self(None, content))
        return self._note(number, there)

    def _optimizer(self, there, content, number):
        there.load_state_dict(content)
        return self._note(number, there)

    def _made(self, there, content, number):
        name, parts = content
        value = object.__new__(self._classes[name])
        if type(there) is type(value):
            vars(value).update(vars(there))
        self._note(number, value)
        for part, saved in parts.items():
            vars(value)[part] = self(vars(value).get(part, NOTHING), saved)
        return value

    def _dict(self, there, content, number):
        found = self._note(number, there if isinstance(there, dict) else {})
        before = dict(found)
        keys = [self(NOTHING, key) for key, _ in content]
        parts = [
            self(before.get(key, NOTHING), part)
            for key, (_, part) in zip(keys, content, strict=True)
        ]
        found.clear()
        found.update(zip(keys, parts, strict=True))
        return found

    def _list(self, there, content, number):
        found = self._note(number, there if isinstance(there, list | deque) else [])
        before = list(found) + [NOTHING] * len(content)
        parts = [self(before[i], part) for i, part in enumerate(content)]
        found.clear()
        found.extend(parts)
        return found

    def _tuple(self, there, content, number):
        alike = isinstance(there, tuple) and len(there) == len(content)
        before = there if alike else [NOTHING] * len(content)
        parts = [self(b, part) for b, part in zip(before, content, strict=True)]
        make = getattr(type(there), "_make", tuple) if alike else tuple
        return self._note(number, make(parts))

    def _set(self, there, content, number):
        return self._note(number, {self(NOTHING, part) for part in content})

    def _object(self, there, content, number):
        if not hasattr(there, "__dict__"):
            raise Unlike("an object")
        self._note(number, there)
        for name, part in content.items():
            vars(there)[name] = self(vars(there).get(name, NOTHING), part)
        return there


def _numbers(array: np.ndarray | np.generic) -> Tensor:
    try:
        return torch.from_numpy(np.array(array))
    except (TypeError, ValueError) as error:  # a longdouble, another order of bytes
        raise Unlike(f"an array of {array.dtype}") from error


def _copied(state: Any) -> Any:
    """A tensor or an optimiser's state apart from what goes on changing.

    A slice is one of a copy of the whole, as in a file: a product with the same numbers at other
    places of memory may differ in the last bit.
    """
    if isinstance(state, Tensor):
        copy = state.detach().clone()
        if state.layout is torch.strided and copy.stride() != state.stride():
            whole, where = state.untyped_storage().clone(), state.storage_offset()
            copy.set_(whole, where, state.shape, state.stride())
        return copy
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    return [_copied(value) for value in state] if isinstance(state, list | tuple) else state
