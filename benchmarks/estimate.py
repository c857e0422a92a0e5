"""GPU time of runs that nobody has made: operations counted, throughput assumed.

    seconds = operations of all passes / (tflops * 10^12)

Operations of one forward and one backward pass are those of the network with LoRA, counted on the
meta device (`benchmarks.accounting`), on language for prompts as long as they may be. How many
passes a task takes the method says (`Method.passes`); tests after each task take a forward pass for
each item, answers of several tokens no more. Loading, set-up, searches, projections and elementwise
work are left out, and small networks do not reach a GPU's throughput.
"""

from __future__ import annotations

import functools
import warnings

import baselines
from benchmarks import backbones, streams

# Assumed of an H200: 45 % of the 67 TFLOP/s of float32 without TF32, 30 % of bfloat16's 989.
TFLOPS = {"float32": 30.0, "bfloat16": 300.0}


def basis(tflops: float | None) -> str:
    """What the estimates rest on, as one line."""
    assumed = f"{tflops:g}" if tflops else f"{TFLOPS['float32']:g} ({TFLOPS['bfloat16']:g} in bf16)"
    return (
        f"~ is an estimate: operations of the network's passes at an assumed {assumed} TFLOP/s, "
        f"{'as asked' if tflops else 'an H200 at 45 % (30 %) of its peak'}; --tflops changes it"
    )


def seconds(spec: dict, tflops: float | None = None) -> float | None:
    """The estimate for a run's spec; None where the stream does not say how many items it has."""
    sizes = items(spec)
    if sizes is None:
        return None
    n_train, n_test = sizes
    tokens, train = spec["stream"]["max_prompt_tokens"], spec["train"]
    cost = pass_operations(spec["backbone"]["name"], spec["backbone"]["image_size"], tokens)
    method = baselines.load(spec["method"]["name"], spec["modality"])
    config = method.Config(**spec["method"]["config"])
    n_tasks = spec["stream"]["n_tasks"]
    # an offline method learns the union, each sample as often as its own task asks for
    learnt = [(0, sum(train["epochs"]))] if method.offline else enumerate(train["epochs"])
    forward = n_test * (2 * n_tasks if method.offline else n_tasks + n_tasks * (n_tasks + 1) / 2)
    backward = 0.0
    for task, epochs in learnt:
        done = method.passes(config, task, round(n_train), epochs, train["batch_size"])
        forward, backward = forward + done[0], backward + done[1]
    operations = forward * cost.forward + backward * cost.backward
    return operations / (1e12 * (tflops or TFLOPS[train["precision"]]))


def items(spec: dict) -> tuple[float, float] | None:
    """Training and test items of a task, on average."""
    stream = spec["stream"]
    module = streams.load(stream["name"])
    counted = getattr(module, "n_items", None)
    own = streams.own_options(stream)
    counts = counted(**own) if counted else getattr(module, "N_ITEMS", None)
    if counts is None:
        return None
    vision = spec["modality"] == "vision"
    unit, n_units = ("class", counts["classes"]) if vision else ("task", module.N_TASKS)
    splits = hasattr(module, "N_CLASSES")  # into as many tasks as asked; others have their own
    n_tasks = stream["n_tasks"] if splits else module.N_TASKS

    def of_task(part: str) -> float:
        limit = stream[f"{part}_per_{unit}"]
        return min(counts[part], (limit or counts[part]) * n_units) / n_tasks

    return of_task("train"), of_task("test")


@functools.cache
def pass_operations(name: str, image_size: int | None, tokens: int):
    """Operations of a forward and of a backward pass of one sample."""
    import torch

    from baselines.lora import LoraSettings, add_lora
    from benchmarks.accounting import passes

    backbone = backbones.find(name)
    vision = backbone.modality == "vision"
    build = backbones.build_vision if vision else backbones.build_language
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element")
        model = add_lora(build(backbone, 1, image_size).split_qkv(), LoraSettings())
    if not vision:
        model = model.network
        model.config._attn_implementation = "eager"
    return passes(model, backbone.modality, tokens)
