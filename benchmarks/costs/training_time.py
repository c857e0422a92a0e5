"""Time of runs that nobody has made: operations counted, throughput assumed.

    seconds = operations of all passes / (tflops * 10^12) + bytes read in generation / bandwidth

Operations of one forward and one backward pass are those of the network with LoRA, counted on the
meta device (`costs.operations`); on language for a prompt as long as it may be, and in
proportion for the lengths that the stream's items have where it knows them. How many passes a task
takes the method says (`Method.passes`); tests, of all tasks so far after each task unless the suite
asks for fewer, take a forward pass for each item, and for each further token of a batch's answers
all weights are read once.
Loading, set-up, searches, projections, longer prompts (`fix`) and elementwise work are left out,
and small networks do not reach a GPU's throughput. On a CPU, all but a few of the published runs
took half to three times as long as this says.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import baselines
from benchmarks import streams
from benchmarks.common.devices import TEST_BATCH_SIZE
from benchmarks.costs.memory import ANSWER_TOKENS
from benchmarks.costs.operations import lora_passes


class Throughput(NamedTuple):
    """What is assumed of a device, and what that is, in words."""

    float32_tflops: float
    bfloat16_tflops: float
    bytes_per_second: float
    of: str


# 45 % of an H200's 67 TFLOP/s of float32 without TF32, 30 % of bfloat16's 989; half its bandwidth.
GPU = Throughput(30.0, 300.0, 2.4e12, "an H200 at 45 % (30 %) of its peak, half of its bandwidth")
CPU = Throughput(0.05, 0.05, 1e10, "a core of a server")


def assumed(on_gpu: bool, tflops: float | None) -> Throughput:
    """That of a device, or as it is asked."""
    device = GPU if on_gpu else CPU
    return device._replace(float32_tflops=tflops, bfloat16_tflops=tflops) if tflops else device


def basis(on_gpu: bool, tflops: float | None) -> str:
    """What the estimates rest on, as one line."""
    device = assumed(on_gpu, tflops)
    return (
        f"~ is an estimate: operations of the network's passes at an assumed "
        f"{device.float32_tflops:g} ({device.bfloat16_tflops:g} in bf16) TFLOP/s, "
        f"{'as asked' if tflops else device.of} (--tflops changes it), and the weights read for "
        f"each generated token at {device.bytes_per_second / 1e9:g} GB/s"
    )


def seconds(spec: dict, on_gpu: bool = True, tflops: float | None = None) -> float | None:
    """The estimate for a run's spec; None where the stream does not say how many items it has."""
    device = assumed(on_gpu, tflops)
    sizes = items(spec)
    if sizes is None:
        return None
    limit, train = spec["stream"]["max_prompt_tokens"], spec["train"]
    cost, n_parameters = lora_passes(
        spec["backbone"]["name"], spec["backbone"]["image_size"], limit
    )
    method = baselines.of(spec["method"], spec["modality"])
    config = method.Config(**spec["method"]["config"])
    n_tasks, epochs = spec["stream"]["n_tasks"], train["epochs"]
    most_tests = 2 if train.get("evaluate") == "final" else n_tasks  # of one task
    lengths = _lengths(spec)
    forward = backward = written = 0.0
    for task, ((item, prompt, answer), (n_train, n_test)) in enumerate(
        zip(lengths, sizes, strict=True)
    ):
        # an offline method learns the union, each sample as often as its own task asks for
        before = 0 if method.offline else task
        done = method.passes(config, before, round(n_train), epochs[task], train["batch_size"])
        tested = 1 if method.offline else min(n_tasks - task, most_tests)
        passed = done[0] + (done[1] if train.get("checkpointing") else 0)  # once more, backwards
        forward += passed * item / limit + tested * n_test * prompt / limit
        backward += done[1] * item / limit
        batches = math.ceil(n_test / (train.get("test_batch_size") or TEST_BATCH_SIZE))
        written += tested * batches * answer
    operations = forward * cost.forward + backward * cost.backward
    reading = written * 2 * n_parameters / device.bytes_per_second
    throughput = getattr(device, f"{train['precision']}_tflops")
    return operations / (1e12 * throughput) + reading


def _lengths(spec: dict) -> list[tuple[float, float, float]]:
    """Of each task: tokens of a training item, of a test prompt, and of its answers but the first.

    Those of the stream, or prompts as long as the limit; images all have the same length.
    """
    stream = spec["stream"]
    limit, n_tasks = stream["max_prompt_tokens"], stream["n_tasks"]
    known = streams.of(stream).n_tokens
    if known is None:
        return [(limit, limit, 0)] * n_tasks
    if stream["order"] != "fixed":
        known = [tuple(sum(values) / len(known) for values in zip(*known, strict=True))] * n_tasks
    most = stream.get("max_new_tokens") or math.inf
    longest = limit + (stream.get("max_answer_tokens") or ANSWER_TOKENS)
    return [
        (min(item, longest), min(prompt, limit), min(answer, most))
        for item, prompt, answer in known[:n_tasks]
    ]


def items(spec: dict) -> list[tuple[float, float]] | None:
    """Training and test items of each task, of tasks that are no splits on average."""
    options = spec["stream"]
    stream = streams.of(options)
    counts = stream.n_items
    if counts is None:
        return None
    vision = spec["modality"] == "vision"
    unit, n_units = ("class", counts["classes"]) if vision else ("task", stream.n_tasks)

    def of_all(part: str) -> float:
        limit = options[f"{part}_per_{unit}"]
        return min(counts[part], (limit or counts[part]) * n_units)

    n_train, n_test = of_all("train"), of_all("test")
    if held_out := options.get("holdout"):
        n_test = held_out * n_units
        n_train = min(n_train, counts["train"] - n_test)
    whole = stream.n_classes or stream.n_tasks
    return [(n_train * size / whole, n_test * size / whole) for size in stream.task_sizes()]
