"""Weight files: read without running code, filled into a network, known by features."""

from __future__ import annotations

import argparse
import math
import pickle
import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from benchmarks.common.errors import DataError, one_sentence
from benchmarks.common.files import write_bytes

# Plain values that training scripts store beside the weights: their arguments, and learning rates
# that are numbers of numpy, under its old and its new module name.
_HARMLESS = [
    argparse.Namespace,
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float64DType,
]
_TRAINING_ONLY = ("masked_embed",)  # what iBOT puts in place of masked patches


def read(path: Path, entry: str | None = None, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a weight file, by the network's own names.

    Args:
        path: .safetensors, or a PyTorch pickle, of which nothing but tensors and plain values is
            accepted.
        entry: where a pickled training checkpoint keeps the network; safetensors have no entries.
        prefix: of the network's names, behind the "module." of a parallel wrapper. A safetensors
            file that has it nowhere is taken for the bare network.

    Raises:
        DataError: the file is truncated, holds anything that would have to be run, or lacks the
            entry or the prefix.
    """
    pickled = path.suffix != ".safetensors"
    with one_sentence(
        f"the weight file {path} cannot be read", "replace or delete it and run again"
    ):
        state = _unpickle(path) if pickled else load_file(path)
    if pickled and entry:
        if entry not in state:
            raise DataError(
                f"{path} should hold its network as {entry!r}, but holds "
                f"{_some(state)}: take the file as published, or convert it to safetensors"
            )
        state = state[entry]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(f"{path} should hold named tensors, but holds {_some(state)}")
    state = {key.removeprefix("module."): value for key, value in state.items()}
    if any(key.startswith(prefix) for key in state):
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    elif pickled:
        raise DataError(f"no tensor of {path} begins with {prefix!r}, they are {_some(state)}")
    return {key: value for key, value in state.items() if key not in _TRAINING_ONLY}


def _unpickle(path: Path) -> Mapping:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if not asked:
            raise ValueError("it is no pickle of tensors") from error
        raise DataError(
            f"{path} should hold tensors and plain values only, but asks for {asked[1]}, which "
            f"could run a stranger's code: convert it to safetensors where you trust it"
        ) from error
    return loaded if isinstance(loaded, Mapping) else {}


def _some(state: object) -> str:
    names = list(state) if isinstance(state, Mapping) else []
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "") or "nothing"


def check_shapes(state: Mapping[str, Tensor], network: nn.Module, source: Path) -> None:
    """Refuse tensors of other shapes than the network's at its own input size.

    timm would resample the patches of 32 pixels to 16 and positions to any grid without a word.
    """
    for key, own in network.state_dict().items():
        if key in state and state[key].shape != own.shape:
            raise DataError(
                f"{source} holds another architecture's weights: {key} is "
                f"{tuple(state[key].shape)} and should be {tuple(own.shape)}: take the file of the "
                "architecture that its name says"
            )


def fill(model: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Fill a backbone's network, refusing a checkpoint of another architecture."""
    state = {k: value.float() for k, value in state.items() if not k.startswith("head.")}
    try:
        missing, unexpected = model.network.load_state_dict(model.fitted(state), strict=False)
    except RuntimeError as error:
        raise DataError(
            f"the weights in {source} do not fit {type(model.network).__name__}: "
            f"{str(error).splitlines()[1].strip()}: take the file of the architecture that its "
            "name says"
        ) from error
    missing = [key for key in missing if key not in model.derived]
    if missing or unexpected:
        raise DataError(
            f"the weights in {source} are another architecture's: "
            f"missing {missing[:3] or 'nothing'}, unexpected {unexpected[:3] or 'nothing'}: take "
            "the file of the architecture that its name says"
        )


def probes(size: tuple[int, int]) -> Tensor:
    """Fixed images (4, 3, H, W) in [0, 1]: coloured waves, each finer than the one before."""
    y, x = (torch.linspace(0, 1, pixels) for pixels in size)
    images = torch.empty(4, 3, *size)
    for i, c in product(range(4), range(3)):
        angle = math.pi * (i / 4 + c / 7)
        phase = 2**i * (math.cos(angle) * x[None] + math.sin(angle) * y[:, None])
        images[i, c] = 0.5 + 0.5 * torch.sin(2 * math.pi * phase + c + i)
    return images


@torch.no_grad()
def features(model: nn.Module) -> Tensor:
    """A vision model's class tokens (4, width) for the fixed images, at its own size."""
    return model.eval().encode(model.embed(probes(model.image_size)))[:, 0]


def save_trunk(state: Mapping[str, Tensor], path: Path) -> None:
    """Keep a checkpoint's trunk as safetensors, so that no run unpickles anything."""
    trunk = {k: v.clone().contiguous() for k, v in state.items() if not k.startswith("head.")}
    write_bytes(path, save(trunk))
