"""What is kept of tiny methods, and how those read it who have nothing of this project."""

from pathlib import Path

import torch

from benchmarks import backbones
from benchmarks.runs import adapters
from benchmarks.runs.model_card import Learnt
from tests import tiny

CLASSES = [["alef", "bet"], ["gimel", "dalet"], ["he", "waw"]]
TASKS = ["first", "second", "third"]


def learnt(modality, method="seqlora", n_tasks=3, **changes):
    """What a method on a tiny network has learnt of a stream of three tasks."""
    vision = modality == "vision"
    spec = {
        "modality": modality,
        "seed": 0,
        "stream": {"name": "a-stream", "n_tasks": 3, "digest": "0" * 64},
        "backbone": {"name": (tiny.VISION if vision else tiny.LANGUAGE).name, "image_size": None},
        "method": {
            "label": "a-row",
            "name": Path(method).stem,
            "version": 1,
            "config": {"rank": 8},
            "origin": str(method),
        },
        "train": {"epochs": [1, 1, 1]},
    }
    return Learnt(
        **{
            "key": "0123456789ab",
            "spec": spec,
            "tasks": TASKS[:n_tasks],
            "metrics": ["accuracy" if vision else "exact"] * n_tasks,
            "scores": [0.25, None, 0.75][:n_tasks],
            "classes": CLASSES if vision else [],
            "image": [16, 16] if vision else None,
            "reading": None if vision else {"max_prompt_tokens": 20},
            "max_new_tokens": None if vision else 3,
            "stop": None,
            "weights_sha256": "1" * 64,
            "commit": None,
            "sources": {},
        }
        | changes
    )


def write(folder, method, place, monkeypatch, **changes):
    """The folder of what is kept of a method that has learnt three tasks."""
    for backbone in (tiny.VISION, tiny.LANGUAGE):
        monkeypatch.setitem(backbones.BACKBONES, backbone.name, backbone)
    if isinstance(place, type):
        place = "seqlora"
    folder = adapters.place(folder, 3, 3, "third")
    adapters.write(folder, method, learnt(method.setting.modality, place, **changes))
    return folder


def stock(modality, n_classes=tiny.N_TASKS * tiny.PER_TASK):
    """The backbone of `tiny.network` as its library makes it, query, key and value in one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = tiny.VISION if modality == "vision" else tiny.LANGUAGE
        return backbone.build(n_classes)


@torch.no_grad()
def outputs_by_peft(folder, modality):
    """Those of `tiny.outputs`, of the network as timm or transformers makes it and PEFT adapts."""
    from peft import PeftModel

    network = stock(modality).network
    if modality == "vision":
        network.reset_classifier(tiny.N_TASKS * tiny.PER_TASK)
    model = PeftModel.from_pretrained(network, folder).eval()
    outputs = []
    for task in range(tiny.N_TASKS):
        x, _ = tiny.samples(modality, task).batch(torch.arange(12))
        if modality == "vision":
            outputs.append(model((x - 0.5) / 0.5))
            continue
        ids, mask = x[:, 0], x[:, 1]
        attended = (mask > 0).long()
        positions = (attended.cumsum(dim=1) - 1).clamp_min(0)
        n_answer = int((mask == 2).sum(dim=1).max())
        found = model(input_ids=ids, attention_mask=attended, position_ids=positions)
        outputs.append(found.logits[:, -n_answer - 1 : -1])
    return torch.cat(outputs)
