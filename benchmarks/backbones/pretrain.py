"""Pre-train small backbones here (the offline initialisation).

Those of the embedded streams learn from the streams' held-out domain. They are committed, so that
nobody has to make them: `python -m benchmarks.backbones.pretrain NAME` rebuilds
`pretrained/NAME.safetensors`. A rehearsal on real text learns from the training prompts
of its own tasks, no answers among them; the workflow makes it where the data is. The recipes stand
in `catalogue.toml`, and their digest names the backbone in every run's key.
"""

from __future__ import annotations

import argparse
import json
import math
from itertools import zip_longest
from pathlib import Path

import numpy as np
import tokenizers
import torch
import torch.nn.functional as F
from safetensors.torch import save
from tokenizers import decoders, models, pre_tokenizers, trainers

from analysis.terminal import tell
from baselines.common.text import pad_left
from benchmarks import backbones
from benchmarks.backbones import Embedded
from benchmarks.backbones.embedded import COMMITTED
from benchmarks.backbones.tokenizer import Tokenizer
from benchmarks.common.data_dir import data_dir
from benchmarks.common.digests import seed_for
from benchmarks.common.errors import DataError, as_exit
from benchmarks.common.files import write_bytes
from benchmarks.common.progress import Progress
from benchmarks.streams.common.encoding import encode

SPECIAL_TOKENS = ["<pad>", "<s>", "</s>"]


def pretrain(name: str, steps: int | None = None) -> dict:
    """Train from scratch; returns the files' contents by name.

    Args:
        name: an embedded backbone.
        steps: stop earlier than the recipe says (for tests).
    """
    backbone = backbones.find(name)
    if not isinstance(backbone, Embedded):
        raise DataError(f"{name} is not pre-trained here: its weights come from outside")
    torch.manual_seed(seed_for(backbone.recipe["seed"], "pretrain"))
    folder = Path("resources/streams") / backbone.pretrain_stream
    train = _vision if backbone.modality == "vision" else _language
    return train(backbone, folder, steps or backbone.recipe["steps"])


def _vision(backbone: Embedded, folder: Path, steps: int) -> dict:
    recipe = backbone.recipe
    with np.load(folder / "pretrain.npz", allow_pickle=False) as file:
        images = torch.from_numpy(file["images"])
        labels = torch.from_numpy(file["labels"])
    held_out = torch.arange(len(labels)) % backbone.held_out == 0
    model = backbone.build(int(labels.max()) + 1)
    train_x, train_y = images[~held_out], labels[~held_out]

    def pixels(x):
        return (x.float() / 255).unsqueeze(1).expand(-1, 3, -1, -1)

    def next_loss():
        chosen = torch.randint(len(train_y), (recipe["batch_size"],))
        far = recipe["shift_pixels"]
        shift = torch.randint(-far, far + 1, (2,)).tolist()
        x = torch.roll(pixels(train_x[chosen]), shift, (2, 3))
        inverted = torch.rand(len(x), 1, 1, 1) < recipe["inverted"]
        x = torch.where(inverted, 1 - x, x)
        smoothing = recipe["label_smoothing"]
        return F.cross_entropy(model(x), train_y[chosen], label_smoothing=smoothing)

    _optimise(model, next_loss, steps, recipe)
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(pixels(x)) for x in images[held_out].split(256)])
    accuracy = (logits.argmax(dim=1) == labels[held_out]).float().mean().item()
    return {"safetensors": _weights(model, backbone, {"held_out_accuracy": accuracy})}


def _language(backbone: Embedded, folder: Path, steps: int) -> dict:
    recipe, every = backbone.recipe, backbone.held_out
    items = _texts(folder, recipe.get("characters"))
    train = [item for i, item in enumerate(items) if i % every]
    trained = _train_tokenizer([i["text"] for i in train], backbone.architecture["vocab_size"])
    tokenizer = Tokenizer.of(trained)
    model = backbone.build()
    length = recipe["tokens"]

    def packed(chosen):
        """Texts and questions one after the other, as one sequence of ids."""
        ids = []
        for item in chosen:
            ids += encode(tokenizer, "", item["text"], 0)[0]
            if "prompt" in item:
                ids += encode(tokenizer, item["prompt"], item["answer"], length)[0]
        return torch.tensor(ids)

    def loss_at(ids, starts):
        x = torch.stack([ids[s : s + length] for s in starts.tolist()])
        return model.network(input_ids=x, labels=x, use_cache=False).loss

    ids, held_out = packed(train), packed(items[::every])

    def next_loss():
        return loss_at(ids, torch.randint(len(ids) - length, (recipe["batch_size"],)))

    _optimise(model, next_loss, steps, recipe)
    model.eval()
    with torch.no_grad():
        loss = loss_at(held_out, torch.arange(0, len(held_out) - length, length)).item()
    facts = {"held_out_loss_nats_per_token": loss}
    if any("prompt" in item for item in items):
        facts["held_out_answers"] = answered(model, tokenizer, items[::every])
    return {
        "safetensors": _weights(model, backbone, facts),
        "tokenizer.json": trained.to_str(pretty=False).encode(),
    }


def _texts(folder: Path, characters: int | None) -> list[dict]:
    """A stream's pre-training texts; where it has none, the beginnings of its training prompts."""
    file = folder / "pretrain.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    tasks = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    each = [[{"text": item["prompt"][:characters]} for item in task["train"]] for task in tasks]
    return [item for items in zip_longest(*each) for item in items if item]  # tasks in turn


def answered(model, tokenizer, items: list[dict]) -> float:
    """The fraction of the items' questions whose answer the model finds likeliest."""
    asked = [(item["prompt"], item["answer"]) for item in items if "prompt" in item]
    most = backbones.find("micro-llama").recipe["tokens"]
    x, y = pad_left([encode(tokenizer, prompt, answer, most) for prompt, answer in asked])
    with torch.no_grad():
        likeliest = model(x).argmax(dim=2)
    y = y[:, -likeliest.shape[1] :]
    return ((likeliest == y) | (y < 0)).all(dim=1).float().mean().item()


def _train_tokenizer(texts: list[str], size: int) -> tokenizers.Tokenizer:
    """A byte-level BPE of `size` pieces."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
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


def _optimise(model, next_loss, steps: int, recipe: dict) -> None:
    """AdamW with linear warm-up and cosine decay."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe["learning_rate"], weight_decay=recipe["weight_decay"]
    )
    warm_up = max(1, int(steps * recipe["warm_up"]))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min((s + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * s / steps)) + 0.01),
    )
    model.train()
    progress = Progress("pre-training", steps, "steps")
    for _ in range(steps):
        loss = next_loss()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe["clip_norm"])
        optimizer.step()
        schedule.step()
        progress.advance(note=lambda loss=loss: f"loss {loss.item():.3f}")


def _weights(model, backbone: Embedded, facts: dict) -> bytes:
    """The network in half precision, with the recipe and what it reached as metadata."""
    state = {
        key: value.half().contiguous()
        for key, value in model.network.state_dict().items()
        if key not in model.derived
    }
    recipe = {"recipe": backbone.fingerprint(data_dir())}
    about = recipe | {key: f"{value:.4f}" for key, value in facts.items()}
    tell(f"{backbone.name}: {about}")
    return save(state, about)


@as_exit()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = [name for name, found in backbones.BACKBONES.items() if isinstance(found, Embedded)]
    parser.add_argument("name", choices=here, help="one of the embedded backbones")
    parser.add_argument(
        "--out",
        type=Path,
        default=COMMITTED,
        help="folder of the weights (default: that of the committed ones, which are replaced)",
    )
    options = parser.parse_args()
    for suffix, content in pretrain(options.name).items():
        write_bytes(options.out / f"{options.name}.{suffix}", content)


if __name__ == "__main__":
    main()
