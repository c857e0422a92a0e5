"""How much of a speed-up is the method, how much its schedule: true shapes, TRACE's lengths.

    python -m benchmarks.experiments.schedule_time --backbone llama-3.2-1b-instruct

Each method learns the eight tasks of TRACE in their order, some steps of each, on random tokens of
the tasks' mean lengths and with random weights, which do not change the time. A step's time is the
median of a task's steps but the first; a schedule's is that times its steps, epochs of 500 items,
summed over tasks. Consolidation, tests and loading are left out. Methods take turns in rounds, one
in memory at a time; ratios are medians over rounds of ratios within a round, with their range.
"""

from __future__ import annotations

import argparse
import gc
import shlex
import statistics
import sys
import time
import warnings

import torch
from torch import Tensor

import baselines
from baselines.common.base import Setting, Task
from benchmarks import backbones, streams
from benchmarks.backbones.language import LanguageModel
from benchmarks.common import devices
from benchmarks.common.progress import Progress
from benchmarks.streams.common.tasks import Samples

SCHEDULES = {"long": (5, 3, 7, 5, 3, 5, 5, 7), "short": (2, 1, 3, 2, 1, 2, 2, 3)}
METHODS = ("seqlora", "olora", "hidelora", "treelora", "ewc", "gem")
SETTINGS = {"gem": {"memory_per_task": 8}, "ewc": {"fisher_samples": 8}}
N_ITEMS = 500  # of a task


def network(name: str, device: str, weights: str | None) -> LanguageModel:
    """A language model of that shape with random weights."""
    torch.manual_seed(0)
    return backbones.find(name).build(weights=weights, device=device)


def batch_of(vocabulary: int, n: int, tokens: int, answer: int) -> Samples:
    """n random texts of so many tokens, of which the last are the answer."""
    ids = torch.randint(3, vocabulary, (n, tokens))
    mask = torch.ones_like(ids)
    mask[:, -answer:] = 2
    y: Tensor = torch.where(mask == 2, ids, -100)
    return Samples(torch.stack([ids, mask], dim=1), y)


def measure(name: str, options: argparse.Namespace, device: str) -> tuple[list[float], int]:
    """Seconds per step of each task, and the peak memory in bytes (0 on a CPU)."""
    devices.reset_peak(device)
    model = network(options.backbone, device, options.weights)
    if options.checkpointing:
        model.save_memory()
    lengths = streams.load("trace").N_TOKENS
    setting = Setting(
        modality="language",
        n_tasks=len(lengths),
        task_of_class=torch.empty(0, dtype=torch.long),
        batch_size=options.batch_size,
        learning_rate=1e-4,
        precision="bfloat16" if options.weights else "float32",
        device=device,
    )
    method_class = baselines.load(name, "language")
    method = method_class(model, method_class.Config(**SETTINGS.get(name, {})), setting)
    seconds = []
    for index, (tokens, _, answer) in enumerate(lengths):
        tokens = max(2, round(tokens * options.scale))
        answer = min(max(1, round(answer * options.scale)) + 1, tokens - 1)
        data = batch_of(model.vocabulary, options.batch_size * (options.steps + 1), tokens, answer)
        stamps = []

        def stamp(loss, n, stamps=stamps):
            devices.synchronise(device)
            stamps.append(time.perf_counter())

        method.learn(Task(index, "timed", data, 1), stamp)
        seconds.append(statistics.median(b - a for a, b in zip(stamps, stamps[1:], strict=False)))
    peak = devices.peak_bytes(device) if device == "cuda" else 0
    return seconds, peak


def schedule_seconds(per_task: list[float], epochs: tuple[int, ...], batch_size: int) -> float:
    """Seconds of all steps of a schedule."""
    steps = -(-N_ITEMS // batch_size)
    return sum(steps * n * seconds for n, seconds in zip(epochs, per_task, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="smollm2-135m-instruct")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--weights", choices=["bfloat16"], help="default float32")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--batch-size", type=int, default=4, help="the paper's (default 4)")
    parser.add_argument("--steps", type=int, default=5, help="timed of each task (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="(default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="of all lengths (default 1)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    if "seqlora" not in options.methods:
        parser.error("--methods must have seqlora, which the others are compared with")
    torch.set_num_threads(options.threads)
    device = devices.find()
    warnings.filterwarnings("ignore", message="Already found a `peft_config`")
    measured: dict[str, list[list[float]]] = {name: [] for name in options.methods}
    peaks = dict.fromkeys(options.methods, 0)
    progress = Progress("timing", options.rounds * len(options.methods), "measurements")
    for _ in range(options.rounds):
        for name in options.methods:
            seconds, peak = measure(name, options, device)
            measured[name].append(seconds)
            peaks[name] = max(peaks[name], peak)
            gc.collect()
            progress.advance()
    print(table(measured, peaks, options, device))


def table(measured: dict, peaks: dict, options: argparse.Namespace, device: str) -> str:
    """Markdown: per method the schedules' seconds, the ratio to SeqLoRA on one, and peak memory."""
    lines = [
        "The paper's two schedules at true shapes: how much of a speed-up is the method and how "
        "much the schedule. Made by "
        f"`{shlex.join(['python', '-m', 'benchmarks.experiments.schedule_time', *sys.argv[1:]])}`: "
        "medians (range of the ratio).",
        "",
        f"{options.backbone}, random weights in {options.weights or 'float32'}, TRACE's mean "
        f"lengths x {options.scale:g}, batch {options.batch_size}; {devices.name(device)}, threads "
        f"{options.threads}; {options.rounds} rounds of {options.steps} steps a task. Schedules "
        f"of {sum(SCHEDULES['long'])} and {sum(SCHEDULES['short'])} epochs over {N_ITEMS} items a "
        "task, training steps alone.",
        "",
        "| method | long, s | short, s | same schedule, / seqlora | long / short | peak GiB |",
        "|---|---|---|---|---|---|",
    ]
    totals = {
        name: {
            key: [schedule_seconds(each, epochs, options.batch_size) for each in rounds]
            for key, epochs in SCHEDULES.items()
        }
        for name, rounds in measured.items()
    }
    for name, own in totals.items():
        pairs = zip(own["long"], totals["seqlora"]["long"], strict=True)
        ratios = sorted(a / b for a, b in pairs)
        long, short = (statistics.median(own[key]) for key in SCHEDULES)
        peak = f"{peaks[name] / 2**30:.1f}" if peaks[name] else "–"
        lines.append(
            f"| {name} | {long:.0f} | {short:.0f} | {statistics.median(ratios):.3f} "
            f"({ratios[0]:.3f} to {ratios[-1]:.3f}) | {long / short:.2f} | {peak} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
