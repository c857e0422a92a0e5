"""What each method costs on the paper's models: operations, parameters, bytes, without any weights.

`python -m benchmarks.accounting --out FILE.json` instantiates the real architectures on the meta
device from `benchmarks/architectures`, adds LoRA to query and value projections as `baselines.lora`
does, and counts the floating-point operations of forward and backward passes as they are
dispatched. A multiply-add is two operations. Matrix products count, causal attention in full, and
of elementwise work only the methods' own; what a method adds to a step is written out in `extras`.
"""

from __future__ import annotations

import argparse
import gc
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from baselines.lora import LoraSettings, add_lora
from benchmarks.files import write_json
from benchmarks.progress import Progress
from benchmarks.results import provenance

ARCHITECTURES = Path(__file__).parent / "architectures"
METHODS = ("seqlora", "ewc", "gem", "olora", "treelora", "ogd")
SCHEMA = 1
# Tokens of a sequence and sequences of a step, as in appendix A.3: a prompt of at most 1,024 tokens
# in batches of 4, an image of 197 in batches of 192.
SHAPES = {"language": (1024, 4), "vision": (197, 192)}


def names() -> list[str]:
    """The architectures there are, smallest file name first."""
    return sorted(path.stem for path in ARCHITECTURES.glob("*.json"))


def build(name: str) -> tuple[nn.Module, str]:
    """A model on the meta device with separate projections, and its modality."""
    spec = json.loads((ARCHITECTURES / f"{name}.json").read_text(encoding="utf-8"))
    kind = spec.pop("model_type")
    with torch.device("meta"):
        if kind == "timm":
            import timm
            from timm.layers import set_fused_attn

            from benchmarks.models import VisionModel

            set_fused_attn(False)  # so that attention's products are dispatched one by one
            network = timm.create_model(spec.pop("architecture"), **spec)
            return VisionModel(network, n_classes=0, mean=0.5, std=0.5).split_qkv(), "vision"
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.for_model(kind, attn_implementation="eager", **spec)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32), "language"


def run_forward(model: nn.Module, modality: str) -> Tensor:
    """One sequence through a model on its device."""
    device = next(model.parameters()).device
    if modality == "vision":
        return model(torch.zeros(1, 3, 224, 224, device=device))
    length = SHAPES["language"][0]
    tokens = torch.zeros(1, length, dtype=torch.long, device=device)
    mask = torch.zeros(1, 1, length, length, device=device)  # given, as none is derived on meta
    return model(input_ids=tokens, attention_mask=mask, use_cache=False).logits


def flops(model: nn.Module, modality: str, backward: bool) -> int:
    """Operations of a forward pass over one sequence, and of the backward pass behind it."""
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        out = run_forward(model, modality)
        if backward:
            out.sum().backward()
    return counter.get_total_flops()


def adapted(model: nn.Module, rank: int, adapter: str = "default") -> nn.Module:
    """With LoRA of that rank on its query and value projections, all else frozen."""
    return add_lora(model, LoraSettings(rank=rank, alpha=float(rank)), adapter)


def with_past(model: nn.Module, rank: int) -> nn.Module:
    """A frozen adapter of finished tasks beside a trainable one, as O-LoRA has them."""
    from peft.tuners.lora import LoraLayer

    adapted(adapted(model, 8, "current"), rank, "past")
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.set_adapter(["past", "current"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".current." in name)
    return model


@dataclass(frozen=True)
class Model:
    """What is counted of one architecture, per sequence.

    Attributes:
        parameters: of the network, without adapters or a classifier.
        adapter: LoRA parameters.
        factor_a: those of them in A alone; its matrices map the input to rank r.
        matrices: adapted ones.
        forward, full: operations of the frozen network's forward pass, and of forward and backward
            with all parameters trained.
        lora: operations of forward and backward with LoRA trained.
        branch: what a frozen adapter beside it adds to that for each unit of rank.
    """

    modality: str
    parameters: int
    adapter: int
    factor_a: int
    matrices: int
    forward: int
    full: int
    lora: int
    branch: int


def count(name: str, rank: int) -> Model:
    """Build an architecture several times and count."""
    model, modality = build(name)
    parameters = sum(p.numel() for p in model.parameters())
    forward, full = (flops(model, modality, backward) for backward in (False, True))
    adapted(model, rank)
    trained = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
    lora = flops(model, modality, True)
    with_branch = flops(with_past(build(name)[0], rank), modality, True)
    alone = flops(adapted(build(name)[0], 8, "current"), modality, True)
    gc.collect()
    in_a = [n for n in trained if ".lora_A." in n]
    return Model(
        modality,
        parameters,
        sum(trained.values()),
        sum(trained[n] for n in in_a),
        len(in_a),
        forward,
        full,
        lora,
        (with_branch - alone) // rank,
    )


def extras(model: Model, method: str, task: int, rank: int) -> float:
    """Operations that a method adds to one step of LoRA while it learns a task, counted from 1.

    ewc (one quadratic term per finished task, as in Avalanche): difference, square, product, sum
        and three in the gradient, for each adapter entry and finished task.
    gem: a forward and backward pass over the memory of each finished task, of a batch's size, and
        its products with the gradient.
    olora: |A_i A'| for all finished tasks, a product forward and two backward.
    treelora: difference, size, sum, sign and scale for each adapter entry; 10 for the bound of each
        node of a tree with a leaf per finished task, in each matrix.
    ogd: product with and subtraction of each stored direction, over all parameters.
    """
    old = task - 1
    batch = SHAPES[model.modality][1]
    match method:
        case "ewc":
            return 7 * model.adapter * old
        case "gem":
            return old * (model.lora * batch + 2 * model.adapter)
        case "olora":
            return 3 * 2 * model.factor_a * rank * old
        case "treelora":
            return (5 * model.adapter + 10 * model.matrices * max(2 * old - 1, 0)) if old else 0
        case "ogd":
            return 4 * model.parameters * old
    return 0


def row(name: str, model: Model, method: str, task: int, rank: int) -> dict:
    """All quantities of one method on one model while it learns a task, counted from 1."""
    old = task - 1
    tokens, batch = SHAPES[model.modality]
    whole = method == "ogd"
    sequence = model.full if whole else model.lora
    if method == "olora":
        sequence += old * rank * model.branch
    trainable = model.parameters if whole else model.adapter
    # what has to be there, beyond the network, once the task is finished
    stored = {
        "seqlora": model.adapter,
        "ewc": model.adapter * (1 + 2 * task),
        "gem": model.adapter,  # and the samples of its memory
        "olora": model.adapter * task,
        "treelora": model.adapter * (1 + task),
        "ogd": model.parameters * (1 + task),
    }[method]
    by_step = extras(model, method, task, rank)
    return {
        "model": name,
        "method": method,
        "task": task,
        "network_parameters": model.parameters,
        "trainable_parameters": trainable,
        "stored_parameters": stored,
        "stored_bytes_bfloat16": 2 * stored,
        "stored_bytes_float32": 4 * stored,
        "forward_flops_per_token": model.forward / tokens,
        "step_flops_per_token": sequence / tokens + by_step / (tokens * batch),
        "method_flops_per_token": by_step / (tokens * batch),
        "adapter_multiply_adds_per_token": None
        if whole
        else model.adapter * (task if method == "olora" else 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--models", nargs="+", choices=names(), default=names(), metavar="NAME")
    parser.add_argument(
        "--tasks", type=int, nargs="+", default=[1, 2, 10, 15], help="counted from 1"
    )
    parser.add_argument("--rank", type=int, default=8, help="of LoRA (default 8)")
    options = parser.parse_args()
    if min(options.tasks) < 1 or options.rank < 1:
        parser.error(f"tasks and rank count from 1, but are {options.tasks} and {options.rank}")
    rows = []
    warnings.filterwarnings("ignore", message="Already found a `peft_config`|Initializing zero")
    progress = Progress("accounting", len(options.models), "models")
    for name in options.models:
        model = count(name, options.rank)
        rows += [
            row(name, model, method, task, options.rank)
            for method in METHODS
            for task in options.tasks
        ]
        progress.advance()
    settings = {"rank": options.rank, "targets": "query and value", "tokens_and_batch": SHAPES}
    data = {"schema": SCHEMA, "kind": "accounting", "provenance": provenance()}
    write_json(options.out, data | {"settings": settings, "rows": rows})


if __name__ == "__main__":
    main()
