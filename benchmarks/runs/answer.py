"""Ask what a run has kept of a task: it answers a prompt, or names the class of an image.

FOLDER is that of a task in a run's `adapters-CODE`, INPUT a prompt or the path of an image; a
prompt is read from standard input where INPUT is "-". The backbone must be prepared, as it is once
the suite has run. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from analysis.text import visible
from baselines.common.text import pad_left
from benchmarks import backbones
from benchmarks.backbones.tokenizer import Tokenizer
from benchmarks.common import devices
from benchmarks.common.errors import DataError, as_exit, one_sentence
from benchmarks.runs import adapters
from benchmarks.runs.adapters import Learnt
from benchmarks.runs.evaluate import generate
from benchmarks.runs.plan import RUNS
from benchmarks.runs.run import backbone_manifest, method_of, network_of
from benchmarks.streams.common import pictures
from benchmarks.streams.common.encoding import encode


class Kept:
    """A model as it was tested after a task.

    Args:
        folder: that `adapters.write` made.

    Attributes:
        learnt: what it has learnt.
        model: as `Method.model`, in evaluation.
        tokenizer: on language.
    """

    def __init__(self, folder: Path):
        self.learnt = adapters.read(folder)
        self.device = devices.find()
        spec = self.learnt.spec
        self.tokenizer: Tokenizer | None = None
        with one_sentence(f"the adapter in {folder} cannot be used", "keep it anew"):
            manifest = backbone_manifest(spec["backbone"])
            backbone = backbones.find(manifest["name"])
            if spec["modality"] == "language":
                self.tokenizer = backbone.tokenizer(manifest)
            is_state = adapters.is_state(folder)
            model = _from_state if is_state else _from_peft
            self.model = model(folder, self.learnt, backbone, manifest, self.tokenizer).eval()
