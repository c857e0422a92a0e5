"""Pre-train the embedded streams' backbones on their held-out domain (the offline initialisation).

`python -m benchmarks.pretrain NAME` rebuilds `benchmarks/pretrained/NAME.safetensors`, which is
committed so that nobody has to. The recipe's digest names the backbone in every run's key.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

from benchmarks import backbones, streams
from benchmarks.files import DataError, digest_of, seed_for, write_bytes

RECIPES = {
    "micro-vit": {"steps": 4000, "batch_size": 128, "learning_rate": 1e-3, "seed": 0},
    "micro-llama": {
        "steps": 1500,
        "batch_size": 32,
        "tokens": 96,
        "learning_rate": 2e-3,
        "seed": 0,
    },
}
SPECIAL_TOKENS = ["<pad>", "<s>", "</s>"]


def recipe_digest(backbone: backbones.Backbone) -> str:
    """Digest of architecture, data and settings: everything but the machine's rounding."""
    data = streams.load(backbone.pretrain_stream).fingerprint(None)
    return digest_of([backbone.architecture, RECIPES[backbone.name], data])


def pretrain(name: str, steps: int | None = None) -> dict:
    """Train from scratch; returns the files' contents by name.

    Args:
        name: an embedded backbone.
        steps: stop earlier than the recipe says (for tests).
    """
    import torch

    backbone = backbones.find(name)
    if not backbone.pretrain_stream:
        raise DataError(f"{name} is not pre-trained here: its weights come from outside")
    torch.manual_seed(seed_for(RECIPES[name]["seed"], "pretrain"))
    folder = Path("resources/streams") / backbone.pretrain_stream
    train = _vision if backbone.modality == "vision" else _language
    return train(backbone, folder, steps or RECIPES[name]["steps"])


def _vision(backbone: backbones.Backbone, folder: Path, steps: int) -> dict:
    import numpy as np
    import torch
    import torch.nn.functional as F

    recipe = RECIPES[backbone.name]
    with np.load(folder / "pretrain.npz", allow_pickle=False) as file:
        images = torch.from_numpy(file["images"])
        labels = torch.from_numpy(file["labels"])
    held_out = torch.arange(len(labels)) % 10 == 0
    model = backbones.build_vision(backbone, int(labels.max()) + 1)
    train_x, train_y = images[~held_out], labels[~held_out]

    def pixels(x):
        return (x.float() / 255).unsqueeze(1).expand(-1, 3, -1, -1)

    def loss_of(_):
        chosen = torch.randint(len(train_y), (recipe["batch_size"],))
        x = torch.roll(pixels(train_x[chosen]), torch.randint(-3, 4, (2,)).tolist(), (2, 3))
        inverted = torch.rand(len(x), 1, 1, 1) < 0.5
        x = torch.where(inverted, 1 - x, x)
        return F.cross_entropy(model(x), train_y[chosen], label_smoothing=0.1)

    _optimise(model, loss_of, steps, recipe["learning_rate"])
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(pixels(x)) for x in images[held_out].split(256)])
    accuracy = (logits.argmax(dim=1) == labels[held_out]).float().mean().item()
    return {"safetensors": _weights(model, backbone, {"held_out_accuracy": accuracy})}


def _language(backbone: backbones.Backbone, folder: Path, steps: int) -> dict:
    import torch

    recipe = RECIPES[backbone.name]
    texts = json.loads((folder / "pretrain.json").read_text(encoding="utf-8"))
    tokenizer = _train_tokenizer(texts, backbone.architecture["vocab_size"])
    end = tokenizer.token_to_id("</s>")
    begin = tokenizer.token_to_id("<s>")
    streams_of_ids = [torch.tensor([begin, *e.ids, end]) for e in tokenizer.encode_batch(texts)]
    held_out = torch.cat(streams_of_ids[::20])
    ids = torch.cat([s for i, s in enumerate(streams_of_ids) if i % 20])
    model = backbones.build_language(backbone)
    length = recipe["tokens"]

    def batch(source, starts):
        x = torch.stack([source[s : s + length] for s in starts.tolist()])
        return model.network(input_ids=x, labels=x, use_cache=False).loss

    def loss_of(_):
        return batch(ids, torch.randint(len(ids) - length, (recipe["batch_size"],)))

    _optimise(model, loss_of, steps, recipe["learning_rate"])
    model.eval()
    with torch.no_grad():
        loss = batch(held_out, torch.arange(0, len(held_out) - length, length)).item()
    return {
        "safetensors": _weights(model, backbone, {"held_out_loss_nats_per_token": loss}),
        "tokenizer.json": tokenizer.to_str(pretty=False).encode(),
    }


def _train_tokenizer(texts: list[str], size: int):
    """A byte-level BPE of `size` pieces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _optimise(model, loss_of, steps: int, learning_rate: float) -> None:
    """AdamW with linear warm-up over a tenth of the steps and cosine decay."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.05)
    warm_up = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min((s + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * s / steps)) + 0.01),
    )
    model.train()
    start = shown = time.monotonic()
    for step in range(steps):
        loss = loss_of(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        now = time.monotonic()
        if now - shown > 10:
            shown = now
            left = (now - start) / (step + 1) * (steps - step - 1)
            print(
                f"step {step + 1}/{steps} loss {loss.item():.3f}, about {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )


def _weights(model, backbone: backbones.Backbone, facts: dict) -> bytes:
    """The network in half precision, with the recipe and what it reached as metadata."""
    from safetensors.torch import save

    state = model.network.state_dict()
    for key in model.derived:
        state.pop(key, None)
    state = {key: value.half().contiguous() for key, value in state.items()}
    about = {"recipe": recipe_digest(backbone), **{k: f"{v:.4f}" for k, v in facts.items()}}
    print(f"{backbone.name}: {about}", file=sys.stderr)
    return save(state, about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="one of " + ", ".join(RECIPES))
    parser.add_argument("--out", type=Path, default=backbones.PRETRAINED)
    options = parser.parse_args()
    try:
        for suffix, content in pretrain(options.name).items():
            write_bytes(options.out / f"{options.name}.{suffix}", content)
    except DataError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
