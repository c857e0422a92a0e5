"""EWC: a quadratic pull towards earlier solutions, weighted by the Fisher information.

Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks" (PNAS 2017), by
Avalanche's EWCPlugin on the adapter and classifier. The penalty is

    strength * sum_k sum_p F_k,p (theta_p - theta*_k,p)^2

with F the mean squared gradient of the loss of single samples, at the end of a task. Avalanche's
own F squares the gradient of a training batch's mean loss, near an optimum about 1 / batch size of
it, so that `strength` would depend on the batch: `fisher_batch_size` restores that.

Departures from the paper:
1. no factor 1/2, so `strength` counts double (Avalanche);
2. labels are the training labels (empirical Fisher);
3. F is estimated from at most `fisher_samples` samples of the task.
The TreeLoRA paper gives strength 50 on vision and neither estimator nor trainable set. Its released
code sums the squared gradients of all training steps, the penalty's own included, without dividing
by their number, at strength 400 with the factor 1/2.

On language the loss of a sample is the mean over its answer's tokens. With `trained: all` there is
no adapter: the whole network is trained, in float32 (full fine-tuning). After t tasks F and theta*
are then 2 t copies of the network, beside its weights, their gradient and Adam's two moments, and
in a step the penalty holds t more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import Subset

from baselines.lora import LoraMethod, LoraSettings

TRAINED = ("adapter", "all")


class EWC(LoraMethod):
    """Elastic weight consolidation on a sequentially trained adapter, or on the whole network."""

    version = 2

    @dataclass(frozen=True)
    class Config(LoraSettings):
        """Settings of the penalty.

        Attributes:
            strength: the factor of the penalty, lambda.
            fisher_samples: random samples of a task from which its F is estimated, at most.
            fisher_batch_size: samples whose mean loss gives one gradient; 1 is the paper's F.
            trained: the "adapter" and classifier, or "all" parameters of the network.
        """

        strength: float = 50.0
        fisher_samples: int = 2000
        fisher_batch_size: int = 1
        trained: str = "adapter"

        def __post_init__(self):
            super().__post_init__()
            for name in ("fisher_samples", "fisher_batch_size"):
                if getattr(self, name) < 1:
                    raise ValueError(f"{name} must be at least 1, but is {getattr(self, name)}")
            if self.strength < 0:
                raise ValueError(f"strength must not be negative, but is {self.strength}")
            if self.trained not in TRAINED:
                raise ValueError(
                    f"trained must be one of {', '.join(TRAINED)}, not {self.trained!r}"
                )
            for field in dataclasses.fields(LoraSettings):
                value = getattr(self, field.name)
                if self.trained == "all" and value != field.default:
                    raise ValueError(
                        f"{field.name} is the adapter's and trained: all has none, "
                        f"but it is {value!r}: leave it out"
                    )

    @classmethod
    def passes(cls, config, task: int, n: int, epochs: int, batch_size: int) -> tuple:
        """The loop's, and one of each sample that F is estimated from.

        The gradients of all weights cost as many operations as a forward pass and are counted so.
        """
        forward, backward = super().passes(config, task, n, epochs, batch_size)
        estimated = min(n, config.fisher_samples)
        forward, backward = forward + estimated, backward + estimated
        return forward + (backward if config.trained == "all" else 0), backward

    def adapt(self, backbone: nn.Module) -> nn.Module:
        if self.config.trained == "all":
            return backbone.float().requires_grad_(True)  # small steps vanish in bfloat16
        return super().adapt(backbone)

    def plugins(self) -> list:
        from avalanche.training.plugins import EWCPlugin

        config = self.config

        class Plugin(EWCPlugin):
            def compute_importances(
                self, model, criterion, optimizer, dataset, device, batch_size, num_workers=0
            ):
                chosen = torch.randperm(len(dataset))[: config.fisher_samples].tolist()
                return super().compute_importances(
                    *(model, criterion, optimizer, Subset(dataset, chosen), device),
                    *(config.fisher_batch_size, num_workers),
                )

        self._ewc = Plugin(ewc_lambda=config.strength, mode="separate")
        return [self._ewc]

    def state_dict(self) -> dict:
        def tensors(tasks):
            return {t: {n: p.data for n, p in kept.items()} for t, kept in tasks.items()}

        return super().state_dict() | {
            "importances": tensors(self._ewc.importances),
            "anchors": tensors(self._ewc.saved_params),
        }

    def load_state_dict(self, state: Mapping) -> None:
        from avalanche.training.utils import ParamData

        super().load_state_dict(state)
        for kept, tasks in (
            (self._ewc.importances, state["importances"]),
            (self._ewc.saved_params, state["anchors"]),
        ):
            for task, values in tasks.items():
                kept[task] = {
                    n: ParamData(n, init_tensor=v.to(self.setting.device), device=v.device)
                    for n, v in values.items()
                }
