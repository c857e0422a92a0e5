"""What TreeLoRA adds to a training step, whatever the number of finished tasks.

`python -m benchmarks.experiments.step_speed` times TreeLoRA's part of a step (reading the adapter,
search, penalty, its backward pass, the observation) at the shapes of a ViT-B/16 and of a 7B model,
against the same written as loops over tasks and modules and against a step that does nothing with
the adapter but read it and pass a gradient back. All of a table's rows come from one run; times are
medians, ratios are medians of ratios within a round.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import torch
from torch import Tensor, nn

from benchmarks.common import devices
from treelora import Node, Options, TreeRegulariser

SHAPES = {"ViT-B/16, 24 x 8k": (24, 2**13), "7B, 64 x 32k": (64, 2**15)}


class Adapters(nn.Module):
    """L adapted matrices under PEFT's names, A and B with half of the D entries each."""

    def __init__(self, n_levels: int, width: int, device: str):
        super().__init__()
        for index in range(n_levels):
            matrix = nn.Module()
            for name in ("lora_A", "lora_B"):
                factor = nn.Module()
                factor.weight = nn.Parameter(torch.randn(width // 2, device=device))
                setattr(matrix, name, nn.ModuleDict({"default": factor}))
            self.add_module(f"matrix{index}", matrix)


class Loops:
    """Equations 1 to 3 as they read: a loop over modules, in each a recursion over the tree."""

    def __init__(self, model: Adapters, finished: Tensor, tree: Node, strength: float):
        self._matrices = [[*matrix.parameters()] for matrix in model.children()]
        self._finished = [
            [list(row.chunk(2)) for row in finished[:, level]] for level in range(finished.shape[1])
        ]
        self._tree, self._strength, self._step = tree, strength, 0
        self._seen = [{} for _ in self._matrices]
        self._scale = [1e-300] * len(self._matrices)

    def _bound(self, node: Node, level: int) -> tuple[float, int]:
        seen = [self._seen[level][t] for t in node.tasks if t in self._seen[level]]
        own, n = -math.inf, sum(count for _, count in seen)
        if n:
            mean = sum(total for total, _ in seen) / n / self._scale[level]
            own = mean - 2 * math.sqrt(math.log(self._step) / n)
        if not node.children:
            return own, node.tasks[0]
        below = min((self._bound(c, level) for c in node.children), key=lambda pair: pair[0])
        return max(own - node.threshold / self._scale[level], below[0]), below[1]

    def penalty(self, loss: Tensor) -> Tensor:
        self._step += 1
        total = 0.0
        for level, parameters in enumerate(self._matrices):
            _, task = self._bound(self._tree, level)
            target = self._finished[level][task]
            size = sum(p.numel() for p in parameters)
            distance = sum((p - t).abs().sum() for p, t in zip(parameters, target, strict=True))
            distance = distance / size
            residual = distance.item()
            before, count = self._seen[level].get(task, (0.0, 0))
            self._seen[level][task] = before + residual, count + 1
            self._scale[level] = max(self._scale[level], residual)
            total = total + distance
        return self._strength * total / (total.detach() + 1e-5) * loss.detach()


def step(model: Adapters, penalty) -> None:
    """The part of a training step that is the penalty's."""
    for parameter in model.parameters():
        parameter.grad = None
    penalty(torch.ones((), device=parameter.device)).backward()


def measure(shape: tuple[int, int], n_tasks: int, options: argparse.Namespace, device: str) -> dict:
    """Milliseconds of every round by what was timed."""
    torch.manual_seed(0)
    model = Adapters(*shape, device)
    finished = torch.randn(n_tasks, *shape, device=device)
    ours = TreeRegulariser(model, Options())
    ours.load_state_dict(
        {"signatures": finished.flatten(1), "members": [[task] for task in range(n_tasks)]}
    )
    del finished
    ours.start_task()
    timed = {
        "empty": lambda loss: ours.layout.read().sum() * loss,
        "ours": ours.penalty,
        "loops": Loops(model, ours.signatures, ours.tree, 0.1).penalty,
    }
    for penalty in timed.values():
        step(model, penalty)
    seconds = {name: [] for name in timed}
    for _ in range(options.rounds):
        for name, penalty in timed.items():
            devices.synchronise(device)
            start = time.perf_counter()
            for _ in range(options.steps):
                step(model, penalty)
            devices.synchronise(device)
            seconds[name].append(1000 * (time.perf_counter() - start) / options.steps)
    return seconds


def vit_step(options: argparse.Namespace, device: str) -> float:
    """Milliseconds of a training step of a ViT-B/16 with LoRA of rank 8 at 224 px."""
    from baselines.common.lora import LoraSettings, add_lora
    from benchmarks.backbones import vision

    model = vision.build({"model_name": "vit_base_patch16_224"}, n_classes=100).split_qkv()
    model = add_lora(model, LoraSettings()).to(device)
    x = torch.rand(options.batch_size, 3, 224, 224, device=device)
    times = []
    for _ in range(4):
        devices.synchronise(device)
        start = time.perf_counter()
        model(x).logsumexp(dim=1).sum().backward()
        devices.synchronise(device)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=7, help="measurements (default 7)")
    parser.add_argument("--steps", type=int, default=5, help="per measurement (default 5)")
    parser.add_argument("--batch-size", type=int, default=8, help="of the ViT-B/16 (default 8)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = devices.find()
    whole = vit_step(options, device)
    print(
        "What TreeLoRA adds to a step (`empty` only reads the adapter and passes a gradient back, "
        "`loops` is the same as ours in loops over tasks and modules). Made by "
        "`python -m benchmarks.experiments.step_speed`: medians (range of the ratio).\n"
    )
    print(
        f"{devices.name(device)}, threads {options.threads}, torch {torch.__version__}; "
        f"{options.rounds} rounds of {options.steps} steps. A training step of a ViT-B/16 with "
        f"LoRA at 224 px and a batch of {options.batch_size} takes {whole:.0f} ms.\n"
    )
    print("| shape | finished tasks | empty ms | ours ms | loops / ours | of a ViT-B/16 step |")
    print("|---|---|---|---|---|---|")
    for name, shape in SHAPES.items():
        for n_tasks in options.tasks:
            found = measure(shape, n_tasks, options, device)
            ratios = sorted(a / b for a, b in zip(found["loops"], found["ours"], strict=True))
            low, middle, high = ratios[0], statistics.median(ratios), ratios[-1]
            ours, empty = (statistics.median(found[key]) for key in ("ours", "empty"))
            share = f"{(ours - empty) / whole:.2%}" if name.startswith("ViT") else "–"
            print(
                f"| {name} | {n_tasks} | {empty:.2f} | {ours:.2f} "
                f"| {middle:.1f} ({low:.1f} to {high:.1f}) | {share} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
