"""A tiny causal language model in a folder, as its publisher would put it there, and runs of it."""

import functools
import json
import shutil
import tempfile
from pathlib import Path

import torch
import transformers

from benchmarks import backbones, streams
from benchmarks.common.files import write_json
from benchmarks.runs import run as runner
from benchmarks.runs.suite import load_suite
from benchmarks.streams.common.tasks import RESOURCES
from tests.vocabularies import byte_level

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
KINDS = ("llama", "mistral", "gemma", "qwen2")


def config(kind="llama", **changes):
    return transformers.AutoConfig.for_model(kind, **(SHAPE | changes))


def network(kind="llama", **changes):
    """A random model of transformers."""
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config(kind, **changes)).eval()


def save_tokenizer(folder):
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    own = byte_level(size=290)
    transformers.PreTrainedTokenizerFast(tokenizer_object=own, **tokens).save_pretrained(folder)


@functools.cache
def _made_once(kind, changes):
    made = tempfile.TemporaryDirectory()
    network(kind, **dict(changes)).save_pretrained(made.name)
    save_tokenizer(made.name)
    return made


def save(data, kind="llama", **changes):
    """Such a model with its tokenizer in the data directory, as `hf-tiny-{kind}`."""
    made = _made_once(kind, tuple(changes.items()))
    return Path(shutil.copytree(made.name, data / f"tiny-{kind}"))


def change(file, **entries):
    """Change entries of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def suite(kind, path, **changes):
    """The file of a suite of two small text tasks, the second with a leak."""
    item = {"prompt": "Say yes or no.\nIs it {}?\nAnswer:", "answer": "yes"}
    for t, task in enumerate(("first", "second")):
        for part, n in (("train", 8), ("test", 3)):
            items = [
                item | {"prompt": item["prompt"].format(f"{task} {part} {i}"), "answer": answer}
                for i, answer in enumerate((["yes", "no"] * n)[t : n + t])
            ]
            if task == "second" and part == "test":
                items.append(item | {"prompt": item["prompt"].format("second train 0")})  # leaks
            (path / "tasks" / task).mkdir(parents=True, exist_ok=True)
            (path / "tasks" / task / f"{part}.json").write_text(json.dumps(items))
    document = {
        "label": "test",
        "seeds": [0],
        "keep": changes.get("keep", []),
        "experiments": [
            {
                "stream": {
                    "name": "text",
                    "path": str(path / "tasks"),
                    "tasks": {"first": "first_line", "second": "rouge_l"},
                    "order": "fixed",
                }
                | changes.get("stream", {}),
                "backbone": {"name": f"hf-tiny-{kind}"} | changes.get("backbone", {}),
                "train": {"epochs": 1, "batch_size": 4} | changes.get("train", {}),
                "methods": changes.get("methods", {"seqlora": {}}),
            }
        ],
    }
    file = path / "suite.yaml"
    file.write_text(json.dumps(document))
    return file


def made(file, data):
    """The records of a suite's runs."""
    records = []
    suite = load_suite(str(file), data)
    for asked in suite.runs:
        spec = asked.spec["stream"]
        own = streams.of(spec).content | {"path": str(file.parent / "tasks")}
        folder = RESOURCES / "streams" / streams.place(spec)
        streams.prepare("text", folder, data, **own)
        name = asked.spec["backbone"]["name"]
        out = RESOURCES / "backbones" / name
        write_json(out / "manifest.json", backbones.find(name).prepare(out, data))
        path = file.parent / "out" / asked.key / "spec.json"
        write_json(path, {"key": asked.key, "keep": list(suite.keep), "spec": asked.spec})
        records.append(runner.make(path))
    return records
