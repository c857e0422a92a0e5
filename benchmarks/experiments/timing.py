"""Times that belong to no suite; each part replaces its own in the file, and only that.

    python -m benchmarks.experiments.timing loop --out benchmarks/published/timing.json

loop        A training step of the shared loop against a plain PyTorch loop, TreeLoRA's against
            SeqLoRA's; on a GPU also how near to its peak, that of a product of large matrices.
penalty     TreeLoRA's part of a step (reading the adapter, search, penalty, its backward pass, the
            observation) at the shapes of a ViT-B/16 and of a 7B model, whatever the number of
            finished tasks: against the same in loops over tasks and modules, and against a step
            that only reads the adapter and passes a gradient back.
sharing     What several runs on one GPU gain: steps of all together, a process each, against those
            of one alone.
schedules   How much of the paper's speed-up is the method, how much its schedule: the eight tasks
            of TRACE at their mean lengths. A step's time is the median of a task's steps but the
            first; a schedule's is that times its steps, summed over tasks. Consolidation, tests
            and loading are left out.

What is compared takes turns in rounds of one process, the first of which warms up; ratios are
medians over rounds of the ratios within a round. Weights are random: they do not change the time.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import product
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import baselines
from analysis.records.reading import PUBLISHED
from baselines.common.base import Method, Setting, Task
from baselines.common.lora import LoraSettings, add_lora
from benchmarks import backbones, streams
from benchmarks.backbones.language import LanguageModel
from benchmarks.common import devices
from benchmarks.common.errors import DataError, as_exit
from benchmarks.common.files import check_writable, read_json, write_json
from benchmarks.common.progress import Progress
from benchmarks.costs.operations import lora_passes
from benchmarks.runs.record import provenance
from benchmarks.streams.common.tasks import Samples
from treelora import Node, Options, TreeRegulariser

N_CLASSES, N_TOKENS = 100, 64
CONFIGS = {"gem": {"memory_per_task": 8}, "ewc": {"fisher_samples": 8}}


def turns(measures: dict[str, Callable], rounds: int) -> dict[str, list]:
    """What each measure gives in each round but the first, which warms up; none is always first."""
    found: dict[str, list] = {name: [] for name in measures}
    order = list(measures)
    progress = Progress("timing", (rounds + 1) * len(order), "measurements")
    for n in range(rounds + 1):
        order.append(order.pop(0))
        for name in order:
            value = measures[name]()
            if n:
                found[name].append(value)
            progress.advance()
    return found


def clocked(device: str, work: Callable, *arguments) -> float:
    """Seconds that some work takes, a GPU's part included."""
    devices.synchronise(device)
    start = time.perf_counter()
    work(*arguments)
    devices.synchronise(device)
    return time.perf_counter() - start


def milliseconds(seconds: list[float], steps: int) -> float:
    """Of a step, the median over rounds of so many steps each."""
    return 1000 * statistics.median(seconds) / steps


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Median and range over rounds of the ratio within a round."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def network_of(name: str, device: str = "cpu", weights: str = "float32") -> nn.Module:
    """A backbone with random weights and separate projections."""
    torch.manual_seed(0)
    network = backbones.find(name).build(N_CLASSES, weights=weights, device=device)
    return network.split_qkv()


def texts(vocabulary: int, n: int, tokens: int, answer: int) -> Samples:
    """n random texts of so many tokens, of which the last are the answer."""
    ids = torch.randint(3, vocabulary, (n, tokens))
    mask = torch.ones_like(ids)
    mask[:, -answer:] = 2
    return Samples(torch.stack([ids, mask], dim=1), torch.where(mask == 2, ids, -100))


def method_of(name: str, network: nn.Module, n_tasks: int, o: argparse.Namespace) -> Method:
    """A method of `baselines` with its own settings but for `CONFIGS`."""
    language = isinstance(network, LanguageModel)
    cls = baselines.load(name, "language" if language else "vision")
    setting = Setting(
        modality="language" if language else "vision",
        n_tasks=n_tasks,
        task_of_class=torch.zeros(0 if language else N_CLASSES, dtype=torch.long),
        batch_size=o.batch_size,
        learning_rate=1e-4,
        mask=None if language else "all",
        precision=vars(o).get("precision") or vars(o).get("weights", "float32"),
        device=o.device,
    )
    return cls(network, cls.Config(**CONFIGS.get(name, {})), setting)


# ---------------------------------------------------------------------------- loop

LOOP = {
    "backbones": ["micro-vit", "micro-llama"],
    "finished_tasks": 9,
    "batch_size": 32,
    "steps": 20,  # of a measurement
    "rounds": 12,
    "precision": "float32",  # or bfloat16
}
MATRIX = 8192  # rows and columns, of which the product shows what a GPU can do


def peak_tflops(o: argparse.Namespace) -> float | None:
    """Operations a second that a product of two large matrices reaches on a GPU, in 10^12."""
    if o.device == "cpu":
        return None
    a, b = torch.randn(2, MATRIX, MATRIX, device=o.device, dtype=getattr(torch, o.precision))
    seconds = turns({"product": partial(clocked, o.device, lambda: [a @ b for _ in range(5)])}, 5)
    return 5 * 2 * MATRIX**3 / statistics.median(seconds["product"]) / 1e12


def plain_loop(name: str, o: argparse.Namespace) -> Callable[[Samples], None]:
    """An epoch as one would write it by hand: LoRA, Adam, clipping, nothing else."""
    model = add_lora(network_of(name), LoraSettings()).to(o.device)
    trained = [p for p in model.parameters() if p.requires_grad]

    def loss(x: Tensor, y: Tensor) -> Tensor:
        logits = model(x)
        if y.dim() == 1:
            return F.cross_entropy(logits, y)
        return F.cross_entropy(logits.flatten(0, 1), y[:, -logits.shape[1] :].flatten())

    def epoch(data: Samples) -> None:
        optimizer = torch.optim.Adam(trained, lr=1e-4)
        model.train()
        for chosen in torch.randperm(len(data)).split(o.batch_size):
            x, y = data.batch(chosen)
            optimizer.zero_grad()
            with torch.autocast(o.device, torch.bfloat16, enabled=o.precision == "bfloat16"):
                value = loss(x.to(o.device), y.to(o.device))
            value.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()

    return epoch


def shared_loop(
    method_name: str, name: str, data: Samples, finished: int, o: argparse.Namespace
) -> Callable:
    """An epoch of a method in the shared loop, with finished tasks behind it, as many each time."""
    method = method_of(method_name, network_of(name), finished + 1, o)
    few = Samples(data.x[: o.batch_size], data.y[: o.batch_size])
    for index in range(finished):
        method.learn(Task(index, "finished", few, 1))
    method.end = lambda task: None
    return lambda data: method.learn(Task(finished, "timed", data, 1))


def samples(name: str, network: nn.Module, n: int) -> Samples:
    """n random images of the network's size, or texts."""
    if backbones.find(name).modality == "language":
        return texts(network.vocabulary, n, N_TOKENS, 2)
    x = torch.randint(0, 256, (n, 3, *network.image_size), dtype=torch.uint8)
    return Samples(x, torch.randint(N_CLASSES, (n,)))


def loop(o: argparse.Namespace) -> dict:
    rows, peak = [], peak_tflops(o)
    for name in o.backbones:
        network, n = network_of(name), o.batch_size * o.steps
        data = samples(name, network, n)
        epochs = {"plain": plain_loop(name, o)}
        epochs |= {
            m: shared_loop(m, name, data, o.finished_tasks, o) for m in ("seqlora", "treelora")
        }
        measures = {key: partial(clocked, o.device, work, data) for key, work in epochs.items()}
        seconds = turns(measures, o.rounds)
        cost, _ = lora_passes(name, None, N_TOKENS)
        reached = n * (cost.forward + cost.backward) / statistics.median(seconds["treelora"])
        rows.append(
            {
                "backbone": name,
                "tflops": reached / 1e12,
                "plain_ms_per_step": milliseconds(seconds["plain"], o.steps),
                "seqlora_over_plain": ratio(seconds["seqlora"], seconds["plain"]),
                "treelora_over_seqlora": ratio(seconds["treelora"], seconds["seqlora"]),
            }
        )
    return {"rank": LoraSettings.rank, "peak_tflops": peak, "rows": rows}


# ---------------------------------------------------------------------------- penalty

PENALTY = {
    "finished_tasks": [10, 100, 1000],
    "batch_size": 4,  # of the ViT-B/16 that is timed beside it
    "steps": 3,
    "rounds": 5,
    "store_on": "",  # cpu keeps the signatures out of a GPU's memory
}
SHAPES = {"ViT-B/16, 24 x 8k": (24, 2**13), "7B, 64 x 32k": (64, 2**15)}
VIT = "vit-b16-dino"  # as any ViT-B/16


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


def step_bytes(steps: Callable[[], None], device: str) -> int | None:
    """Peak memory of a GPU during some steps, what lies there anyway included."""
    devices.release()
    devices.reset_peak(device)
    steps()
    return devices.peak_bytes(device) if device == "cuda" else None


def penalty(o: argparse.Namespace) -> dict:
    def steps(model: nn.Module, term: Callable[[Tensor], Tensor]) -> None:
        for _ in range(o.steps):
            for parameter in model.parameters():
                parameter.grad = None
            term(torch.ones((), device=o.device)).backward()

    rows = []
    for (shape, (n_levels, width)), n_tasks in product(SHAPES.items(), o.finished_tasks):
        torch.manual_seed(0)
        model = Adapters(n_levels, width, o.device)
        ours = TreeRegulariser(model, Options(), store_on=o.store_on or None)
        finished = torch.randn(n_tasks, n_levels * width, device=o.device)
        ours.load_state_dict({"signatures": finished, "members": [[n] for n in range(n_tasks)]})
        del finished
        ours.start_task()
        terms = {
            "empty": lambda loss, ours=ours: ours.layout.read().sum() * loss,
            "ours": ours.penalty,
            "loops": Loops(model, ours.signatures.to(o.device), ours.tree, 0.1).penalty,
        }
        measures = {k: partial(clocked, o.device, steps, model, term) for k, term in terms.items()}
        seconds = turns(measures, o.rounds)
        rows.append(
            {
                "shape": shape,
                "finished_tasks": n_tasks,
                "empty_ms": milliseconds(seconds["empty"], o.steps),
                "ours_ms": milliseconds(seconds["ours"], o.steps),
                "loops_over_ours": ratio(seconds["loops"], seconds["ours"]),
                "peak_bytes": step_bytes(partial(steps, model, ours.penalty), o.device),
            }
        )
    model = add_lora(network_of(VIT), LoraSettings()).to(o.device)
    x = torch.rand(o.batch_size, 3, *model.image_size, device=o.device)
    whole = partial(clocked, o.device, lambda: model(x).logsumexp(dim=1).sum().backward())
    return {"vit_step_ms": milliseconds(turns({VIT: whole}, 3)[VIT], 1), "rows": rows}


# ---------------------------------------------------------------------------- sharing

SHARING = {
    "backbone": VIT,
    "method": "treelora",
    "runs_per_gpu": [1, 2, 4],
    "batch_size": 32,
    "steps": 20,  # of a measurement
    "rounds": 3,
    "precision": "float32",  # or bfloat16
}


def one_of_many(o: argparse.Namespace, start: Barrier, seconds: Queue) -> None:
    """A run among several: some steps in each round, begun by all at once."""
    torch.set_num_threads(o.threads)
    network = network_of(o.backbone)
    data = samples(o.backbone, network, o.batch_size * o.steps)
    epoch = shared_loop(o.method, o.backbone, data, 1, o)
    for n in range(o.rounds + 1):  # the first warms up
        start.wait()
        took = clocked(o.device, epoch, data)
        if n:
            seconds.put(took)


def sharing(o: argparse.Namespace) -> dict:
    rows = []
    for many in o.runs_per_gpu:
        context = torch.multiprocessing.get_context("forkserver")
        start, seconds = context.Barrier(many), context.Queue()
        runs = [
            context.Process(target=one_of_many, args=(o, start, seconds), daemon=True)
            for _ in range(many)
        ]
        for run in runs:
            run.start()
        found = [seconds.get(timeout=600) for _ in range(many * o.rounds)]
        for run in runs:
            run.join()
        each = statistics.median(found) / o.steps
        rows.append({"runs": many, "ms_per_step": 1000 * each, "steps_per_second": many / each})
    for row in rows:
        row["gain"] = row["steps_per_second"] / rows[0]["steps_per_second"]
    return {"rows": rows}


# ---------------------------------------------------------------------------- schedules

SCHEDULES = {
    "backbone": "smollm2-135m-instruct",
    "methods": ["seqlora", "olora", "hidelora", "treelora", "ewc", "gem"],
    "weights": "float32",  # or bfloat16
    "checkpointing": False,
    "scale": 1.0,  # of all lengths
    "batch_size": 4,
    "steps": 5,  # of each task
    "rounds": 3,
}
EPOCHS = {"long": (5, 3, 7, 5, 3, 5, 5, 7), "short": (2, 1, 3, 2, 1, 2, 2, 3)}  # of each task
N_ITEMS = 500  # of a task


def schedule_seconds(per_task: list[float], epochs: tuple[int, ...], batch_size: int) -> float:
    """Seconds of all steps of a schedule, from those of a step of each task."""
    n_steps = math.ceil(N_ITEMS / batch_size)
    return sum(n_steps * n * seconds for n, seconds in zip(epochs, per_task, strict=True))


def step_seconds(name: str, o: argparse.Namespace) -> tuple[list[float], int | None]:
    """Seconds of a method's step on each task, and on a GPU its peak memory in bytes."""
    devices.reset_peak(o.device)
    model = network_of(o.backbone, o.device, o.weights)
    if o.checkpointing:
        model.save_memory()
    lengths = streams.of({"name": "trace"}).n_tokens
    method = method_of(name, model, len(lengths), o)
    seconds = []
    for index, (tokens, _, answer) in enumerate(lengths):
        tokens = max(2, round(tokens * o.scale))
        answer = min(max(1, round(answer * o.scale)) + 1, tokens - 1)
        data = texts(model.vocabulary, o.batch_size * (o.steps + 1), tokens, answer)
        stamps = []

        def stamp(loss, n, stamps=stamps):
            devices.synchronise(o.device)
            stamps.append(time.perf_counter())

        method.learn(Task(index, "timed", data, 1), stamp)
        seconds.append(statistics.median(b - a for a, b in zip(stamps, stamps[1:], strict=False)))
    del method, model  # one in memory at a time
    gc.collect()
    return seconds, devices.peak_bytes(o.device) if o.device == "cuda" else None


def schedules(o: argparse.Namespace) -> dict:
    if "seqlora" not in o.methods:
        raise DataError("--methods must have seqlora, which the others are compared with")
    warnings.filterwarnings("ignore", message="Already found a `peft_config`")
    found = turns({name: partial(step_seconds, name, o) for name in o.methods}, o.rounds)
    seconds = {
        (name, schedule): [schedule_seconds(each, epochs, o.batch_size) for each, _ in rounds]
        for name, rounds in found.items()
        for schedule, epochs in EPOCHS.items()
    }
    rows = [
        {
            "method": name,
            "long_s": statistics.median(seconds[name, "long"]),
            "short_s": statistics.median(seconds[name, "short"]),
            "over_seqlora": ratio(seconds[name, "long"], seconds["seqlora", "long"]),
            "peak_bytes": max(peak for _, peak in found[name]) if o.device == "cuda" else None,
        }
        for name in o.methods
    ]
    epochs = {f"{schedule}_epochs": sum(epochs) for schedule, epochs in EPOCHS.items()}
    return epochs | {"items_per_task": N_ITEMS, "rows": rows}


# ---------------------------------------------------------------------------- the command

PARTS = {loop: LOOP, penalty: PENALTY, sharing: SHARING, schedules: SCHEDULES}  # and options


def command() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=PUBLISHED / "timing.json", metavar="FILE.json")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="(default: 1)")
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    for measure, defaults in PARTS.items():
        part = parts.add_parser(measure.__name__)
        part.set_defaults(measure=measure)
        for name, default in defaults.items():
            many = isinstance(default, list)
            kind = {"type": type(default[0] if many else default), "nargs": "+" if many else None}
            part.add_argument(
                f"--{name.replace('_', '-')}",
                default=default,
                help=f"(default: {default})",
                **({"action": "store_true"} if default is False else kind),
            )
    return parser


@as_exit()
def main() -> None:
    o = command().parse_args()
    for name in ("threads", *PARTS[o.measure]):
        values = getattr(o, name)
        for value in values if isinstance(values, list) else [values]:
            if type(value) is int and value < 1:
                raise DataError(f"--{name.replace('_', '-')} is at least 1, but is {value}")
    check_writable(o.out.absolute().parent)
    before = read_json(o.out) if o.out.exists() else {"kind": "timing", "parts": {}}
    if not isinstance(before, dict) or before.get("kind") != "timing":
        raise DataError(f"{o.out} holds no times: name another file by --out")
    torch.set_num_threads(o.threads)
    o.device = devices.find()
    measured = {
        "date": time.strftime("%Y-%m-%d"),
        "device": devices.name(o.device),
        "threads": o.threads,
        "torch": torch.__version__,
        "provenance": provenance(),
        **{name: getattr(o, name) for name in PARTS[o.measure]},
        **o.measure(o),
    }
    data = {"schema": 1, "kind": "timing", "parts": before["parts"] | {o.part: measured}}
    write_json(o.out, data)


if __name__ == "__main__":
    main()
