"""The suite file of one experiment about a stream."""

from pathlib import Path

import yaml


def own_suite(folder: Path, stream: dict, backbone: str = "micro-vit", **train) -> Path:
    """`own.yaml`; options of the stream that are None are left out."""
    experiment = {
        "stream": {name: value for name, value in stream.items() if value is not None},
        "backbone": {"name": backbone},
        "train": {"epochs": 1, **train},
        "methods": {"seqlora": {}},
    }
    document = {"label": "x", "seeds": [0], "experiments": [experiment]}
    (folder / "own.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder / "own.yaml"
