"""Shades: a stream to copy. Grey squares in four shades, two tasks of two, drawn here.

A suite names it by its path, `stream: {name: examples/shades.py}`, from the suite's folder on.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from benchmarks.streams.common.base import VisionOptions, VisionStream
from benchmarks.streams.common.pictures import write_npz

SHADES = ["black", "dark", "grey", "light"]
SIZE = 16  # pixels, height and width


class Shades(VisionStream):
    """Four classes; `make contract STREAM=examples/shades.py` asks it what all must keep."""

    @dataclass(frozen=True, kw_only=True)
    class Options(VisionOptions):
        noise: Annotated[int, Field(ge=1, lt=30)] = 3  # largest, grey levels

    content_options = ("noise",)  # another one is other data, in a folder of its own
    n_tasks, n_classes, unit_names = 2, len(SHADES), SHADES

    def fingerprint(self):
        return hashlib.sha256(f"shades 1, noise {self.options.noise}".encode()).hexdigest()

    def prepare(self, out):
        draw, arrays = np.random.default_rng(0), {}
        for part, n in (("train", 8), ("test", 4)):
            labels = np.repeat(np.arange(len(SHADES)), n)
            noise = draw.integers(0, self.options.noise + 1, (len(labels), SIZE, SIZE))
            arrays[f"{part}_images"] = (60 * labels[:, None, None] + noise).astype(np.uint8)
            arrays[f"{part}_labels"] = labels
        return {
            "source": "drawn",
            "n_bytes": write_npz(out / "data.npz", arrays),
            "classes": SHADES,
        }
