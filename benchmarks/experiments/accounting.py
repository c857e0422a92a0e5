"""What each method costs on the paper's models: operations, parameters, bytes, without any weights.

`python -m benchmarks.experiments.accounting --out FILE` builds the real architectures on the meta
device, adds LoRA to query and value projections as the methods do,
and counts the operations of forward and backward passes as `costs.operations` does. It needs
nothing from the network, and a minute.

Of elementwise work only what a method adds counts, which `Added` writes out. Tasks count from 1: at
task n there are n - 1 finished ones, and what is stored after it is stored of n.
"""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from baselines.common.base import Setting, Task
from baselines.common.lora import LoraSettings, add_lora
from baselines.l2p import L2P
from baselines.olora import OLoRA
from benchmarks import backbones
from benchmarks.backbones import Backbone
from benchmarks.common.errors import as_exit
from benchmarks.common.files import check_writable, write_json
from benchmarks.common.progress import Progress
from benchmarks.costs.operations import Passes, network, passes
from benchmarks.runs.record import provenance

MODELS = {  # the paper's, by a backbone of that architecture
    "gemma-2b": "gemma-2b-it",
    "llama-2-13b": "llama-2-13b-chat",
    "llama-2-7b": "llama-2-7b-chat",
    "llama-3.2-1b": "llama-3.2-1b-instruct",
    "mistral-7b-v0.3": "mistral-7b-instruct-v0.3",
    "vit-b16": "vit-b16-ibot21k",
}
METHODS = ("seqlora", "ewc", "gem", "l2p", "olora", "treelora", "ogd")
POOL = L2P.Config()


@dataclass(frozen=True)
class Step:
    """What the paper's appendix A.3 says, or leaves open, about a training step.

    Attributes:
        tokens: of a sequence; prompts have at most 1,024, an image 196 patches and a class token.
        batch: sequences of a step.
        rank: of LoRA, as released on language, HiDeLoRA's on vision.
        memory: samples that GEM keeps of a task; whether the paper's 100 are so many is open.
        directions: gradients that OGD keeps of a task; the paper gives no number.
    """

    tokens: int
    batch: int
    rank: int
    memory: int = 100
    directions: int = 1


STEPS = {"language": Step(1024, 4, 8), "vision": Step(197, 192, 10)}


@dataclass(frozen=True)
class Counts:
    """What is counted of one architecture; operations are per sequence unless said otherwise.

    Attributes:
        parameters: of the network, without adapters and without a classifier on vision.
        width: of its tokens.
        adapter: parameters of one LoRA adapter.
        matrices: adapted ones.
        widest: adapter parameters of the largest adapted matrix, to which TreeLoRA pads.
        whole: passes with all weights trained.
        frozen: passes of the frozen network that LoRA needs: no gradients of its weights.
        lora: passes of the adapter itself.
        past: what a finished task's frozen adapter adds to them in O-LoRA.
        orthogonality: its term for one finished task, forward and backward, per step.
        prompted: passes of the frozen network with L2P's prompts before the sequence.
    """

    modality: str
    parameters: int
    width: int
    adapter: int
    matrices: int
    widest: int
    whole: Passes
    frozen: Passes
    lora: Passes
    past: Passes
    orthogonality: int
    prompted: Passes


def count(backbone: Backbone) -> Counts:
    """Build an architecture several times and count.

    All that LoRA adds is linear in its rank, so passes at two ranks tell it from the network's.
    """
    model, modality = network(backbone), backbone.modality
    step = STEPS[modality]
    of = modality, step.tokens
    parameters = sum(p.numel() for p in model.parameters())
    whole = passes(model, *of)
    prompted = passes(model.requires_grad_(False), *of, prompts=POOL.top_k * POOL.prompt_length)
    once = add_lora(model, LoraSettings(rank=step.rank))
    sizes: dict[str, int] = {}
    for n, p in once.named_parameters():
        if p.requires_grad and p.numel():
            matrix = n.partition(".lora_")[0]
            sizes[matrix] = sizes.get(matrix, 0) + p.numel()
    single = passes(once, *of)
    double = passes(add_lora(network(backbone), LoraSettings(rank=2 * step.rank)), *of)
    lora = double.minus(single)

    setting = Setting(modality, 2, torch.empty(0), step.batch, 1e-4, device="meta")
    method = OLoRA(network(backbone), OLoRA.Config(rank=step.rank), setting)
    with torch.device("meta"):
        method.begin(Task(1, "second", [], 1))
    with FlopCounterMode(display=False) as counter:
        method.penalty(torch.zeros(())).backward()
    return Counts(
        modality,
        parameters,
        model.width if modality == "vision" else model.config.hidden_size,
        sum(sizes.values()),
        len(sizes),
        max(sizes.values()),
        whole,
        single.minus(lora),
        lora,
        passes(method.model, *of).minus(single),
        counter.get_total_flops(),
        prompted,
    )


class Added(NamedTuple):
    """What a method adds to the adapter's passes at a step, and what it stores.

    Attributes:
        operations: of the method's own, per step.
        stored: values that have to be there after the task, beyond the network.
        samples: stored of finished tasks, apart from `stored`.
        table8: Table 8's parameter complexity with the sizes put in, one multiply-add each.
    """

    operations: int
    stored: int
    samples: int = 0
    table8: int | None = None


def added(c: Counts, method: str, task: int) -> Added:
    """The method's own work at a step of a task, and what is stored when the task is learnt."""
    step, old, one = STEPS[c.modality], task - 1, c.adapter
    match method:
        case "seqlora":
            return Added(0, one, table8=one)
        case "ewc":
            # For each entry, once there is a finished task: difference, square, weight, sum; in the
            # gradient weight, double, product, sum. Stored: the adapter, the Fishers' sum, a mean.
            return Added(8 * one if old else 0, 3 * one)
        case "gem":
            # A pass over each finished task's memory, and its gradient's product with the step's.
            # The projection, made where one is negative, is left out.
            each = sum(c.frozen) + sum(c.lora)
            return Added(old * (step.memory * each + 2 * one), one, samples=step.memory * task)
        case "l2p":
            # The query, a forward pass without prompts, and its products with all keys, which
            # recur in the keys' gradient.
            query = c.frozen.forward + 2 * 2 * POOL.pool_size * c.width
            return Added(step.batch * query, POOL.pool_size * (POOL.prompt_length + 1) * c.width)
        case "olora":
            passes = step.batch * sum(c.past)
            return Added(old * (passes + c.orthogonality), one * task, table8=one * task)
        case "treelora":
            # Equation 3 for each entry of the padded stack: difference, size, sum; in the gradient
            # sign and scale, then the sum with the loss's. Equation 2: at most 10 for each matrix
            # and node of a tree with a leaf per finished task. Both are absent at the first task.
            penalty = 5 * c.matrices * c.widest + one
            search = 10 * c.matrices * (2 * old - 1)
            table8 = one + c.matrices * step.rank * task
            return Added(penalty + search if old else 0, one * (1 + task), table8=table8)
        case "ogd":
            # For each stored gradient of all weights a product and a subtraction.
            directions = step.directions * c.parameters
            stored = c.parameters + directions * task
            return Added(4 * directions * old, stored, table8=c.parameters)


def row(name: str, c: Counts, method: str, task: int) -> dict:
    """All quantities of a method on a model at a task, with their units; bytes in two precisions.

    Operations per token are those of a step divided by its tokens, prompts left aside.
    """
    step, more = STEPS[c.modality], added(c, method, task)
    base = {"ogd": c.whole, "l2p": c.prompted}.get(method, c.frozen)
    adapter = Passes(0, 0) if method in ("ogd", "l2p") else c.lora
    own = more.operations / (step.batch * step.tokens)
    per_token = {
        "network_forward": base.forward / step.tokens,
        "network_backward": base.backward / step.tokens,
        "adapter_forward": adapter.forward / step.tokens,
        "adapter_backward": adapter.backward / step.tokens,
        "method": own,
        "step": (sum(base) + sum(adapter)) / step.tokens + own,
    }
    trainable = {"ogd": c.parameters, "l2p": more.stored}.get(method, c.adapter)
    # A byte for each of a pixel's three values, four for a token's number.
    sample = 3 * 224 * 224 if c.modality == "vision" else 4 * step.tokens
    tree = c.matrices * c.widest if method == "treelora" else None
    return {
        "model": name,
        "modality": c.modality,
        "method": method,
        "task": task,
        "network_parameters": c.parameters,
        "adapter_parameters": c.adapter,
        "trainable_parameters": trainable,
        "stored_parameters": more.stored,
        "stored_samples": more.samples,
        "disk_bytes_bfloat16": 2 * more.stored + sample * more.samples,
        "disk_bytes_float32": 4 * more.stored + sample * more.samples,
        # the finished tasks' signatures, padded, which the search and the penalty look at
        "tree_device_bytes_float32": tree and 4 * tree * (task - 1),
        "table8_multiply_adds_per_token": more.table8,
        **{f"{key}_flops_per_token": value for key, value in per_token.items()},
    }


@as_exit()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.json", help="where the counts are written"
    )
    models = list(MODELS)
    parser.add_argument("--models", nargs="+", choices=models, default=models, help="default all")
    parser.add_argument(
        "--tasks", nargs="+", type=int, default=[1, 2, 8, 10, 15], help="from 1 (1 2 8 10 15)"
    )
    o = parser.parse_args()
    if min(o.tasks) < 1:
        parser.error(f"--tasks count from 1, but are {o.tasks}")
    check_writable(o.out.absolute().parent)
    rows = []
    progress = Progress("accounting", len(o.models), "models")
    for name in o.models:
        counts = count(backbones.find(MODELS[name]))
        rows += [row(name, counts, method, n) for method in METHODS for n in o.tasks]
        progress.advance()
    settings = {
        "targets": "query and value projections",
        "steps": {modality: dataclasses.asdict(step) for modality, step in STEPS.items()},
        "l2p": dataclasses.asdict(POOL),
    }
    data = {"schema": 1, "kind": "accounting", "provenance": provenance()}
    write_json(o.out, data | {"settings": settings, "rows": rows})


if __name__ == "__main__":
    main()
