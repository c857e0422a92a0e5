"""Time per step of the shared loop against a plain PyTorch loop, and of TreeLoRA against SeqLoRA.

    python -m benchmarks.experiments.speed > docs/speed.md

All variants see the same model, data, batch and optimiser in one process, warmed up and
interleaved; the ratio is the median over rounds of the ratios within a round. Weights are random:
they do not change the time.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import baselines
from baselines.common.base import Setting, Task
from baselines.common.lora import LoraSettings, add_lora
from benchmarks import backbones
from benchmarks.common import devices
from benchmarks.streams.common.tasks import Samples

N_CLASSES, N_TOKENS = 100, 64


def samples(modality: str, network: nn.Module, n: int) -> Samples:
    """Random images, or text whose last two tokens are the answer."""
    if modality == "vision":
        x = torch.randint(0, 256, (n, 3, *network.image_size), dtype=torch.uint8)
        return Samples(x, torch.randint(N_CLASSES, (n,)))
    ids = torch.randint(3, network.vocabulary, (n, N_TOKENS))
    mask = torch.ones_like(ids)
    mask[:, -2:] = 2
    y = torch.where(mask == 2, ids, -100)
    return Samples(torch.stack([ids, mask], dim=1), y)


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    return backbones.find(name).build(N_CLASSES).split_qkv()


class PlainLoop:
    """What one would write by hand: LoRA, Adam, clipping, nothing else."""

    def __init__(self, name: str, batch_size: int, device: str):
        self.modality = backbones.find(name).modality
        self.model = add_lora(network_of(name), LoraSettings()).to(device)
        self.batch_size, self.device = batch_size, device
        self.trained = [p for p in self.model.parameters() if p.requires_grad]

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        logits = self.model(x)
        if self.modality == "vision":
            return F.cross_entropy(logits, y)
        return F.cross_entropy(logits.flatten(0, 1), y[:, -logits.shape[1] :].flatten())

    def epoch(self, data: Samples) -> None:
        optimizer = torch.optim.Adam(self.trained, lr=1e-3)
        self.model.train()
        for chosen in torch.randperm(len(data)).split(self.batch_size):
            x, y = data.batch(chosen)
            optimizer.zero_grad()
            self.loss(x.to(self.device), y.to(self.device)).backward()
            nn.utils.clip_grad_norm_(self.trained, 1.0)
            optimizer.step()


class OurLoop:
    """A method in the shared loop, with `n_finished` tasks behind it."""

    def __init__(self, method: str, name: str, batch_size: int, device: str, n_finished: int):
        network = network_of(name)
        modality = backbones.find(name).modality
        cls = baselines.load(method, modality)
        setting = Setting(
            modality=modality,
            n_tasks=n_finished + 1,
            task_of_class=torch.zeros(N_CLASSES, dtype=torch.long),
            batch_size=batch_size,
            learning_rate=1e-3,
            mask="all" if modality == "vision" else None,
            device=device,
        )
        data = samples(modality, network, batch_size)
        self.method = cls(network, cls.Config(), setting)
        for index in range(n_finished):
            self.method.learn(Task(index, "finished", data, 1))
        self.index = n_finished
        self.method.end = lambda task: None  # so that every measurement has as many tasks behind it

    def epoch(self, data: Samples) -> None:
        self.method.learn(Task(self.index, "timed", data, 1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", default=["micro-vit", "micro-llama"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20, help="per measurement (default 20)")
    parser.add_argument("--rounds", type=int, default=12, help="measurements (default 12)")
    parser.add_argument("--finished-tasks", type=int, default=9, help="before the one timed")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = devices.find()
    print(
        "Made by `python -m benchmarks.experiments.speed`: medians of ratios in a round (range).\n"
    )
    print(
        f"{devices.name(device)}, threads {options.threads}, torch {torch.__version__}, batch "
        f"{options.batch_size}, LoRA rank {LoraSettings.rank} on q and v; {options.rounds} rounds "
        f"of {options.steps} steps; treelora with {options.finished_tasks} finished tasks.\n"
    )
    print("| backbone | plain loop | seqlora / plain | treelora / seqlora |")
    print("|---|---|---|---|")
    for name in options.backbones:
        print(row(name, options, device), flush=True)


def row(name: str, options: argparse.Namespace, device: str) -> str:
    """One line of the table: milliseconds of a plain step, and two ratios with their range."""
    loops = {"plain": PlainLoop(name, options.batch_size, device)}
    for method in ("seqlora", "treelora"):
        loops[method] = OurLoop(method, name, options.batch_size, device, options.finished_tasks)
    network = network_of(name)
    data = samples(backbones.find(name).modality, network, options.batch_size * options.steps)
    seconds: dict[str, list[float]] = {key: [] for key in loops}
    order = list(loops)
    for measured in range(options.rounds + 1):
        order.append(order.pop(0))  # none is always the first
        for key in order:
            devices.synchronise(device)
            start = time.perf_counter()
            loops[key].epoch(data)
            devices.synchronise(device)
            if measured:  # the first round warms up
                seconds[key].append(time.perf_counter() - start)
    plain = statistics.median(seconds["plain"]) / options.steps * 1000
    return (
        f"| {name} | {plain:.1f} ms/step | {_ratio(seconds['seqlora'], seconds['plain'])} "
        f"| {_ratio(seconds['treelora'], seconds['seqlora'])} |"
    )


def _ratio(ours: list[float], theirs: list[float]) -> str:
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"


if __name__ == "__main__":
    main()
