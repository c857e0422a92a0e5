"""A GPU as the code meets it, on a machine that has none.

    python tests/pretend_cuda.py benchmarks.runs.run SPEC.json ...

calls the main() of a module so, and `pretended()` is a context for tests: torch.cuda answers, and
what is put on "cuda" lies in a memory of its own, computed by the CPU. What mixes the two memories,
reads one as if it was the other, or draws from the wrong generator, fails here as there. Kernels,
their numbers and their speed are only seen on a real one.
"""

import contextlib
import functools
import importlib
import sys
from unittest import mock

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._pytree import tree_map

from benchmarks.runs import state

NAME, PEAK_BYTES, FREE_BYTES = "Pretended GPU", 123_456_789, 2**34
_GENERATOR = torch.Generator()  # the GPU's own
_HALVED = (F.linear, F.conv2d, torch.matmul, torch.Tensor.matmul, F.scaled_dot_product_attention)
_CASTS = dict.fromkeys(_HALVED, torch.bfloat16)  # some of what autocast does on a GPU
_CASTS |= dict.fromkeys((F.layer_norm, F.cross_entropy, torch.logsumexp), torch.float32)
_COPIES = ("aten::copy_", "aten::_to_copy", "aten::_copy_from")
_INDEXED = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


class _Module(backend_registration._DummyBackendModule):
    """What torch asks of a backend; mostly it is torch.cuda that the code asks."""

    def is_available(self):
        return torch.cuda.is_available()

    def get_amp_supported_dtype(self):
        return [torch.bfloat16]

    def manual_seed_all(self, seed):
        _GENERATOR.manual_seed(seed + 1)  # the numbers are others than on the CPU

    def get_rng_state(self, device=None):
        return _GENERATOR.get_state()

    def set_rng_state(self, state, device=None):
        _GENERATOR.set_state(state)


backend_registration._setup_privateuseone_for_python_backend("pretended", _Module())
DEVICE = torch.device("pretended", 0)


class Far(torch.Tensor):
    """A tensor in the other memory, with its values in a tensor that nobody else sees."""

    is_cuda = True
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, value):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            value.size(),
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            device=DEVICE,
        )

    def __init__(self, value):
        self.value = value

    def tolist(self):
        return self.value.tolist()

    def untyped_storage(self):
        return self.value.untyped_storage()

    def numpy(self, **_):
        raise TypeError("can't convert a tensor on the GPU to numpy")

    def __reduce_ex__(self, protocol):  # a file holds plain tensors
        return self.value.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = op._schema.name
        if name == "aten::_local_scalar_dense":
            return op(args[0].value)
        is_far = torch.device(kwargs["device"]) == DEVICE if kwargs.get("device") else True
        kwargs |= {key: None for key in ("device", "pin_memory") if key in kwargs}
        if _draws(op):
            kwargs["generator"] = kwargs.get("generator") or _GENERATOR
        far, near = [], []

        def value(x):
            if isinstance(x, Far):
                far.append(x)
                return x.value
            if isinstance(x, torch.Tensor):
                near.append(x)
            return [value(part) for part in x] if isinstance(x, list | tuple) else x

        values, named = value(args), {key: value(x) for key, x in kwargs.items()}
        mixed = name not in _COPIES and any(leaf.dim() for leaf in near)
        if name in _INDEXED:  # the GPU takes indices that lie on the CPU, and no values
            near_values = [x for x in args[2:3] if not isinstance(x, Far) and x.dim()]
            mixed = not isinstance(args[0], Far) or bool(near_values)
        if mixed:
            raise RuntimeError(f"{name}: not all tensors are on the same device")
        own = {id(leaf.value): leaf for leaf in far}
        made = op(*values, **named)
        for leaf in far:
            assert leaf.size() == leaf.value.size(), f"{name} changes a size: not pretended"
        if name == "aten::copy_":
            return args[0]

        def back(x):
            if id(x) in own:
                return own[id(x)]
            if isinstance(x, list | tuple):
                return type(x)(map(back, x))
            return Far(x) if is_far and isinstance(x, torch.Tensor) else x

        return back(made)


@functools.cache
def _draws(op) -> bool:
    return any(argument.name == "generator" for argument in op._schema.arguments)


def _factory(make):
    def made(*args, dtype=None, layout=None, device=None, pin_memory=None, **kwargs):
        return Far(make(*args, dtype=dtype, **kwargs))

    return made


def _copy(source, target, non_blocking=False):
    values = [x.value if isinstance(x, Far) else x for x in (target, source)]
    values[0].copy_(values[1])
    return target


_LIBRARY = torch.library.Library("aten", "IMPL")
for _name, _make in {
    "empty.memory_format": lambda size, memory_format=None, **how: torch.empty(size, **how),
    "empty_strided": torch.empty_strided,
    "arange": torch.arange,
    "arange.start": torch.arange,
    "arange.start_step": torch.arange,
    "eye": torch.eye,
    "eye.m": torch.eye,
}.items():
    _LIBRARY.impl(_name, _factory(_make), "PrivateUse1")
_LIBRARY.impl("_copy_from", _copy, "PrivateUse1")
_AUTOCAST = torch.library.Library("_", "IMPL")
_AUTOCAST.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")


def _there(value):
    """The device that "cuda" stands for."""
    is_gpu = isinstance(value, str | torch.device) and str(value).startswith("cuda")
    return DEVICE if is_gpu else value


class _Pretend(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.device:  # it keeps its name until something is put there
            return function(*args, **(kwargs or {}))
        kwargs = {name: _there(value) for name, value in (kwargs or {}).items()}
        args = [_there(value) for value in args]
        dtype = _CASTS.get(function) if torch.is_autocast_enabled(DEVICE.type) else None
        if dtype:
            args, kwargs = tree_map(
                lambda x: x.to(dtype) if isinstance(x, Far) and x.is_floating_point() else x,
                (args, kwargs),
            )
        return function(*args, **kwargs)


class _Autocast(torch.autocast):
    def __init__(self, device_type, *args, **kwargs):
        super().__init__(DEVICE.type if device_type == "cuda" else device_type, *args, **kwargs)


class _Generator(torch.Generator):
    def __new__(cls, device="cpu"):
        return super().__new__(cls)


@contextlib.contextmanager
def pretended():
    """A machine with a GPU; gives the places in the code, (file, line), that asked torch.cuda."""
    places, read = set(), torch.load

    def answer(value):
        def asked(*args, **kwargs):
            caller = sys._getframe(1)
            places.add((caller.f_code.co_filename, caller.f_lineno))
            return value

        return asked

    def load(file, map_location=None, **how):
        move = _there(map_location) == DEVICE
        loaded = read(file, "cpu" if move else map_location, **how)
        return tree_map(lambda x: x.to(DEVICE) if move and torch.is_tensor(x) else x, loaded)

    answers = {
        "is_available": True,
        "empty_cache": None,
        "get_device_name": NAME,
        "get_rng_state": torch.zeros(16, dtype=torch.uint8),
        "max_memory_allocated": PEAK_BYTES,
        "mem_get_info": (FREE_BYTES, 2 * FREE_BYTES),
        "reset_peak_memory_stats": None,
        "set_rng_state": None,
        "synchronize": None,
    }
    with contextlib.ExitStack() as stack:
        for name, value in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer(value)))
        for name, value in {"autocast": _Autocast, "Generator": _Generator, "load": load}.items():
            stack.enter_context(mock.patch.object(torch, name, value))
        readable = (*state.READABLE, Far)  # it is a plain tensor in a file
        stack.enter_context(mock.patch.object(state, "READABLE", readable))
        stack.enter_context(_Pretend())
        yield places


if __name__ == "__main__":
    with pretended():
        sys.argv = sys.argv[1:]
        importlib.import_module(sys.argv[0]).main()
