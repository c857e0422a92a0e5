"""What the LoRA methods share: PEFT's adapters on projections of the attention, or where asked."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

import torch
from torch import nn

from baselines.common import checks
from baselines.common.base import LowRank, Method, Needs

PER_BLOCK = 2  # matrices that a backbone counts in each block: query and value projection
BLOCKS = ("blocks", "layers", "h")  # what networks call the list of them


@dataclass(frozen=True)
class BranchSettings(Method.Config):
    """Where low-rank branches B A are added to the backbone.

    Attributes:
        rank: r; HiDeLoRA and TreeLoRA's appendix A.3 use 10 on vision, the released code 8.
        layers: how many transformer blocks are adapted, from the first; None adapts all.
    """

    rank: int = 8
    layers: int | None = None

    def __post_init__(self):
        checks.at_least_1(self, "rank", "layers")

    def check(self, adapted_matrices: int) -> None:
        blocks = adapted_matrices // PER_BLOCK
        if self.layers is not None and self.layers > blocks:
            raise ValueError(
                f"layers must lie between 1 and the backbone's {blocks}, but is {self.layers}"
            )


@dataclass(frozen=True)
class LoraSettings(BranchSettings):
    """Settings of PEFT's adapters; see also `BranchSettings`.

    Attributes:
        alpha: the adapter's output is scaled by alpha / r.
        dropout: on the adapter's input.
        targets: the adapted projections of a block, letters of "qkv": query, key, value.
        target_modules: the adapted matrices of a block by name in place of `targets`, as PEFT knows
            them: ["qkv_proj", "mlp.down_proj"]. Each is the end of one matrix's name in each block.
    """

    alpha: float = 16.0
    dropout: float = 0.0
    targets: str = "qv"
    target_modules: list[str] | None = None

    def __post_init__(self):
        super().__post_init__()
        checks.positive(self, "alpha")
        checks.below_1(self, "dropout")
        if not self.targets or self.targets != "".join(c for c in "qkv" if c in self.targets):
            raise ValueError(f"targets must be letters of qkv in this order, not {self.targets!r}")
        if self.target_modules is not None:
            if self.targets != type(self).targets:
                raise ValueError(
                    f"targets, {self.targets!r}, and target_modules, {self.target_modules!r}, say "
                    "the same in two ways: leave one out"
                )
            if not self.target_modules or len(set(self.target_modules)) < len(self.target_modules):
                raise ValueError(
                    "target_modules must be names of matrices, each once, but is "
                    f"{self.target_modules!r}"
                )

    @property
    def modules(self) -> list[str]:
        """Ends of the names of a block's adapted matrices."""
        return self.target_modules or [f"{letter}_proj" for letter in self.targets]

    def adapted_matrices(self, available: int) -> int:
        """How many matrices are adapted where the query and value projections are `available`."""
        blocks = available // PER_BLOCK if self.layers is None else self.layers
        return blocks * len(self.modules)


def add_lora(backbone: nn.Module, settings: LoraSettings, adapter: str = "default") -> nn.Module:
    """Freeze the backbone, add a trainable adapter by PEFT, keep a classifier trainable."""
    from peft import LoraConfig, inject_adapter_in_model  # seconds to import

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.modules,
        layers_to_transform=None if settings.layers is None else list(range(settings.layers)),
        layers_pattern=None if settings.layers is None else list(BLOCKS),
    )
    model = inject_adapter_in_model(config, backbone, adapter_name=adapter)
    for name, parameter in model.named_parameters():
        in_adapter = f".lora_A.{adapter}." in name or f".lora_B.{adapter}." in name
        if in_adapter:
            parameter.data = parameter.data.float()  # whatever precision the frozen weights have
        parameter.requires_grad_(in_adapter or name.startswith("head."))
    return model


def adapted_matrices(backbone: nn.Module, settings: LoraSettings) -> dict[str, nn.Linear]:
    """The matrices that are to be adapted, by name in the order of the network."""
    found = {}
    for name, module in backbone.named_modules():
        block = block_of(name)
        if block is None or (settings.layers is not None and block >= settings.layers):
            continue
        if any(ends_with(name, asked) for asked in settings.modules):
            found[name] = module
    return found


def block_of(name: str) -> int | None:
    """In which of a network's blocks a module of that name lies; None if it is in none."""
    found = re.search(rf"(?:^|[.])(?:{'|'.join(BLOCKS)})[.](\d+)[.]", name)
    return int(found[1]) if found else None


def ends_with(name: str, asked: str) -> bool:
    """Whether PEFT takes the module of that name for the one that is asked for."""
    return f".{name}".endswith(f".{asked}")


def adapter_sizes(backbone: nn.Module, settings: LoraSettings) -> list[int]:
    """Parameters of the adapter of each matrix that is to be adapted."""
    matrices = adapted_matrices(backbone, settings).values()
    return [settings.rank * (m.in_features + m.out_features) for m in matrices]


class LoraMethod(Method):
    """A method that trains one adapter (and, on vision, the classifier) through the stream.

    Attributes:
        copies: of the adapter that it keeps beside it, for estimates of memory (`needs`).
    """

    Config = LoraSettings
    copies = 0

    @classmethod
    def needs(cls, config, needs: Needs) -> Needs:
        trained = sum(adapter_sizes(needs.backbone, config))
        return dataclasses.replace(needs, trained=trained, kept_bytes=4 * cls.copies * trained)

    def adapt(self, backbone: nn.Module) -> nn.Module:
        return add_lora(backbone, self.config)

    @torch.no_grad()
    def adapter(self) -> LowRank | None:
        """The active adapters side by side, unless they are not in the backbone itself."""
        from peft.tuners.lora import LoraLayer

        if self.model is not self.backbone:
            return None
        factors, scale = {}, self.config.alpha / self.config.rank
        for name, layer in self.model.named_modules():
            if isinstance(layer, LoraLayer):
                active = [n for n in layer.active_adapters if n in layer.lora_A]
                weights = [layer.lora_B[n].weight * (layer.scaling[n] / scale) for n in active]
                A = torch.cat([layer.lora_A[n].weight for n in active])
                factors[name] = A, torch.cat(weights, dim=1)
        return LowRank(factors, scale) if factors else None
