"""Runs of seconds; `tests/runs/conftest.py` has the folder that they are made in."""

from pathlib import Path

import yaml

from benchmarks.runs import run as runner
from benchmarks.runs.plan import load_plan

N_TASKS = 3


def plan_of(methods, seeds=(0,), keep=(), **train):
    document = {
        "label": "a test",
        "seeds": list(seeds),
        "keep": list(keep),
        "experiments": [
            {
                "stream": {"name": "glyphs", "n_tasks": N_TASKS},
                "backbone": {"name": "micro-vit"},
                "train": {"epochs": 3, "batch_size": 4, "mask": "all"} | train,
                "methods": methods,
            }
        ],
    }
    Path("own.yaml").write_text(yaml.safe_dump(document))
    return load_plan("own.yaml")


def make(one):
    """The record of a run, which is made again if it has failed before."""
    if one.status() == "failed":
        Path(one.record).unlink()
    return runner.make(Path(one.write_spec()))
