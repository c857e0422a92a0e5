"""Ask what a run has kept of a task: it answers a prompt, or names the class of an image.

FOLDER is that of a task in a run's `adapters-CODE`. INPUT is the path of an image, or a prompt in
the form of the stream's; "-" reads the prompt from standard input. The backbone must be prepared,
as it is where the suite has run.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

import baselines
from analysis.text import visible
from baselines.common.text import pad_left
from benchmarks import backbones
from benchmarks.common import devices
from benchmarks.common.errors import DataError, as_exit, one_sentence
from benchmarks.runs import adapters, build
from benchmarks.runs.evaluate import classify, generate
from benchmarks.runs.plan import RUNS
from benchmarks.streams.common import pictures
from benchmarks.streams.common.encoding import encode


class Answerer:
    """The model that was tested after a task.

    Args:
        folder: that `adapters.write` made.

    Attributes:
        learnt: what it has learnt.
        model: as that of a `Method`, in evaluation.

    Raises:
        DataError: nothing is kept there, or it cannot be used with what is prepared here.
    """

    def __init__(self, folder: Path):
        self.learnt = learnt = adapters.read(folder)
        self.device = devices.find()
        with one_sentence(f"what {folder} holds cannot be used", "copy it anew, or keep it again"):
            spec = learnt.spec
            manifest = build.manifest_of(spec["backbone"])
            backbone = backbones.find(manifest["name"])
            self.tokenizer = None if learnt.classes else backbone.tokenizer(manifest)
            network = partial(build.network_of, spec, backbone, manifest)
            if adapters.is_state(folder):
                _require_ours(folder, spec["method"])
                sizes = torch.tensor([len(names) for names in learnt.classes], dtype=torch.long)
                task_of_class = torch.arange(len(sizes)).repeat_interleave(sizes)
                setting = task_of_class, self.tokenizer, self.device
                method = build.method_of(spec, network(len(task_of_class)).split_qkv(), *setting)
                method.load_state_dict(adapters.read_state(folder))
                model = method.model
            else:
                model = network(len(learnt.seen))
                adapters.add(folder, model)
        self.model = model.to(self.device).eval()

    def classify(self, file: Path) -> str:
        """The best of the classes learnt so far for an image."""
        if not file.is_file():
            raise DataError(f"{str(file)!r} is no file: name an image")
        picture, _ = pictures.decode(file.read_bytes(), str(file))
        image = torch.from_numpy(pictures.fitted(picture, *self.learnt.image)).permute(2, 0, 1)
        seen = self.learnt.seen
        return seen[classify(self.model, image[None], len(seen), self.device)[0]]

    def answer(self, prompt: str) -> str:
        """What the model generates after a prompt."""
        ids, _ = encode(self.tokenizer, prompt, None, **self.learnt.reading)
        if not ids:
            raise DataError("the prompt is empty, and texts of this model begin without a token")
        x, how = pad_left([(ids, 0)])[0], (self.learnt.max_new_tokens, self.device, self.tokenizer)
        return generate(self.model, x, *how, stop=self.learnt.stop)[0]


def _require_ours(folder: Path, method: dict) -> None:
    """DataError if what was downloaded names a method that is no part of this project."""
    place = method.get("origin", method["name"])
    if place not in baselines.names() and not folder.resolve().is_relative_to(RUNS.resolve()):
        raise DataError(
            f"{folder} needs the method {place}, which is no part of this project and is run for "
            f"folders below {RUNS} only: move it there if you trust it"
        )


@as_exit()
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.runs.answer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what was kept of a task")
    parser.add_argument("input", metavar="INPUT", help="a prompt, or the path of an image")
    options = parser.parse_args()
    asked = Answerer(options.folder)
    if asked.learnt.classes:
        found = asked.classify(Path(options.input))
    else:
        found = asked.answer(sys.stdin.read() if options.input == "-" else options.input)
    print("\n".join(map(visible, found.splitlines())))


if __name__ == "__main__":
    main()
