"""GPU hours of runs that nobody has made, against operations and passes by hand."""

import statistics

import pytest

from analysis.records import reading
from benchmarks import streams
from benchmarks.costs import training_time
from benchmarks.costs.operations import lora_passes
from benchmarks.runs import durations
from benchmarks.runs.suite import load_suite


def spec_of(method, suite="cifar_full"):
    specs = (run.spec for run in load_suite(suite).runs)
    return next(spec for spec in specs if spec["method"]["label"] == method)


def test_an_estimate_is_operations_over_throughput():
    """ViT-Ti at 224 px by hand: multiply-adds of its matrices, attention and patches, twice."""
    n, width, depth, patch = 197, 192, 12, 16
    block = 12 * n * width**2 + 2 * n**2 * width
    forward = 2 * (depth * block + 196 * width * 3 * patch**2)
    cost, _ = lora_passes("vit-ti", 224, 128)
    assert cost.forward == pytest.approx(forward, rel=0.03)  # LoRA comes on top
    assert 1 < cost.backward / cost.forward < 1.2  # of the weights only LoRA's need a gradient
    spec = spec_of("seqlora")
    passes = 10 * 5000 * 5
    tests = 1000 * 55  # after each task all so far
    operations = passes * (cost.forward + cost.backward) + tests * cost.forward
    assert training_time.seconds(spec) == pytest.approx(operations / 30e12)
    assert training_time.seconds(spec, tflops=60) == pytest.approx(operations / 60e12)
    final = spec | {"train": spec["train"] | {"evaluate": "final"}}
    operations -= (55 - 19) * 1000 * cost.forward  # each task twice, the last one once
    assert training_time.seconds(final) == pytest.approx(operations / 30e12)
    operations += (55 - 19) * 1000 * cost.forward
    bf16 = spec | {"train": spec["train"] | {"precision": "bfloat16"}}
    assert training_time.seconds(bf16) == pytest.approx(operations / 300e12)


@pytest.mark.parametrize("suite", ["cifar", "docs"])
def test_an_estimate_is_near_what_published_runs_took_on_a_cpu(suite):
    records, _ = reading.read(reading.published()[suite])
    runs = [
        record
        for record in records
        if record["spec"]["method"]["label"] == "seqlora"
        and record["provenance"]["device"].startswith("CPU")
    ]
    taken = statistics.median(map(durations.seconds, runs))
    estimated = training_time.seconds(runs[0]["spec"], on_gpu=False)
    assert 0.5 < taken / estimated < 3


def test_items_follow_the_limits_and_the_number_of_tasks():
    spec = spec_of("seqlora", "cifar")
    n_train, n_test = (spec["stream"][f"{part}_per_class"] for part in ("train", "test"))
    assert training_time.items(spec) == [(n_train * 10, n_test * 10)] * 10
    held_out = spec | {"stream": spec["stream"] | {"holdout": 100, "test_per_class": None}}
    assert training_time.items(held_out) == [(n_train * 10, 100 * 10)] * 10
    held_out["stream"]["train_per_class"] = None
    assert training_time.items(held_out) == [(400 * 10, 100 * 10)] * 10
    docs = next(r.spec for r in load_suite("smoke").runs if r.spec["modality"] == "language")
    each = tuple(docs["stream"][f"{p}_per_task"] for p in ("train", "test"))
    assert training_time.items(docs) == [each] * docs["stream"]["n_tasks"]
    whole = spec_of("joint")
    assert training_time.items(whole)[0] == pytest.approx((5000, 1000))
    whole["stream"] |= {"first_task_classes": 50, "n_tasks": 6}
    assert training_time.items(whole) == [(25_000, 5000)] + [(5000, 1000)] * 5


def test_counting_operations_leaves_timm_as_it_is():
    """Attention is counted in its unfused form, which networks built later must not inherit."""
    from timm.layers import use_fused_attn

    before = use_fused_attn()
    lora_passes("vit-ti", 96, 0)
    assert before and use_fused_attn()


def test_an_estimate_on_text_knows_its_lengths_and_its_answers():
    """TRACE by hand: SeqLoRA's token passes, and the weights read for each generated token."""
    spec = next(run.spec for run in load_suite("trace").runs if run.spec["seed"] == 0)
    spec["method"] = {"name": "seqlora", "config": {}}
    stream, train = spec["stream"], spec["train"]
    cost, n = lora_passes(spec["backbone"]["name"], None, stream["max_prompt_tokens"])
    tokens = streams.of({"name": "trace"}).n_tokens
    n_train, n_test = training_time.items(spec)[0]
    seconds = 0.0
    for task, (item, prompt, answer) in enumerate(tokens):
        tests = 8 - task  # after each task from its own on
        learnt = round(n_train) * train["epochs"][task] * item / 1024
        forward = learnt + tests * n_test * prompt / 1024
        seconds += (forward * cost.forward + learnt * cost.backward) / 300e12
        seconds += tests * 4 * answer * 2 * n / 2.4e12  # four batches of 32
    assert training_time.seconds(spec) == pytest.approx(seconds)
    train["checkpointing"] = True
    assert training_time.seconds(spec) > seconds
