"""Weight files from outside: read without running code, refused unless they are what they say.

A trunk is known by its classifier (how many classes it was pre-trained on), by the shapes of its
tensors, by its norms (a random initialisation has none trained) and by its features on fixed
images. `check` looks at all of them once, before any training.
"""

from __future__ import annotations

import argparse
import math
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from benchmarks.common.files import DataError, write_bytes

if TYPE_CHECKING:
    from benchmarks.backbones import Backbone

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
N_PROBES, N_VALUES = 4, 8
# Of the largest value. Rounding ViT-Ti's weights to bfloat16 moves its features by 0.6 %, noise of
# 0.001 on all of them by 6 %, another normalisation of the pixels by 27 %.
TOLERANCE = 0.02


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
    state = _unpickle(path) if pickled else _load_safetensors(path)
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


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, str(error)) from error


def _unpickle(path: Path) -> Mapping:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if not asked:
            raise _unreadable(path, "it is no pickle of tensors") from error
        raise DataError(
            f"{path} should hold tensors and plain values only, but asks for {asked[1]}, which "
            f"could run a stranger's code: convert it to safetensors where you trust it"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise _unreadable(path, str(error)) from error
    return loaded if isinstance(loaded, Mapping) else {}


def _unreadable(path: Path, reason: str) -> DataError:
    reason = reason.partition("\n")[0] or "it ends early"
    return DataError(
        f"the weight file {path} cannot be read ({reason}): replace or delete it and run again"
    )


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
                f"{tuple(state[key].shape)} and should be {tuple(own.shape)}"
            )


def check_origin(state: Mapping[str, Tensor], backbone: Backbone, source: Path) -> None:
    """Refuse a trunk of another pre-training, or of none.

    Its classifier tells on how many classes it was tuned; where that is missing only known
    features can tell. A scale of a normalisation layer is 1 until it is trained.
    """
    found = len(state["head.weight"]) if "head.weight" in state else 0
    told = backbone.classes is None or (found == 0 and backbone.features is not None)
    if not told and found != backbone.classes:
        raise DataError(
            f"{source} is not {backbone.name}: its classifier has {found or 'no'} classes and "
            f"should have {backbone.classes or 'none'}; the trunk may have seen other labels"
        )
    scales = [v for k, v in state.items() if "norm" in k and k.endswith("weight")]
    if all((scale.float() - 1).abs().max() < 1e-3 for scale in scales):
        raise DataError(f"{source} holds a random initialisation: no normalisation is trained")


def probes(n: int, size: tuple[int, int]) -> Tensor:
    """Fixed images (n, 3, H, W) in [0, 1]: coloured waves, each finer than the one before."""
    y, x = (torch.linspace(0, 1, pixels) for pixels in size)
    images = torch.empty(n, 3, *size)
    for i in range(n):
        for c in range(3):
            angle = math.pi * (i / n + c / 7)
            phase = 2**i * (math.cos(angle) * x[None] + math.sin(angle) * y[:, None])
            images[i, c] = 0.5 + 0.5 * torch.sin(2 * math.pi * phase + c + i)
    return images


@torch.no_grad()
def features(model: nn.Module) -> Tensor:
    """A vision model's class tokens (`N_PROBES`, width) for the fixed images, at its own size."""
    training = model.training
    tokens = model.eval().encode(model.embed(probes(N_PROBES, model.image_size)))
    model.train(training)
    return tokens[:, 0]


def check_features(model: nn.Module, backbone: Backbone, source: Path) -> list[float]:
    """Refuse features that are no features or not the backbone's own.

    Returns:
        The first values of the first image, as `Backbone.features` holds them where known.
    """
    found = features(model)
    if not found.isfinite().all():
        raise DataError(f"{source} gives features that are not finite: it is damaged")
    spread = (found - found.mean(dim=0)).norm() / found.norm().clamp_min(1e-12)
    if spread < 1e-3:
        raise DataError(f"{source} gives the same features for different images: it is damaged")
    values = found[0, :N_VALUES]
    if backbone.features is not None:
        expected = torch.tensor(backbone.features)
        if (values - expected).abs().max() > TOLERANCE * expected.abs().max():
            raise DataError(
                f"{source} is not {backbone.name}: its features on the fixed images begin with "
                f"{_rounded(values)} and should with {_rounded(expected)}"
            )
    return _rounded(values)


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def save_trunk(state: Mapping[str, Tensor], path: Path) -> None:
    """Keep a checkpoint's trunk as safetensors, so that no run unpickles anything."""
    trunk = {k: v.clone().contiguous() for k, v in state.items() if not k.startswith("head.")}
    write_bytes(path, save(trunk))
