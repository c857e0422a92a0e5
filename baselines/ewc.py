"""EWC: a quadratic pull towards earlier solutions, weighted by the Fisher information.

Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks" (PNAS 2017), by
Avalanche's EWCPlugin on the adapter and classifier. The penalty is

    strength * sum_k sum_p F_k,p (theta_p - theta*_k,p)^2

with F the mean squared gradient of the loss of single samples, at the end of a task. Its terms of
all tasks are one,

    sum_p S_p (theta_p - m_p)^2 + c,   S = sum_k F_k,   m = sum_k F_k theta*_k / S,

with a constant c, so that memory and time do not grow with the tasks. Avalanche keeps and adds them
one by one; from the third task on the two differ by rounding. Avalanche's own F squares the
gradient of a training batch's mean loss, near an optimum about 1 / batch size of it, so that
`strength` would depend on the batch: `fisher_batch_size` restores that.

Departures from the paper:
1. no factor 1/2, so `strength` counts double (Avalanche);
2. labels are the training labels (empirical Fisher);
3. F is estimated from at most `fisher_samples` samples of the task.
The TreeLoRA paper gives strength 50 on vision and neither estimator nor trainable set. Its released
code sums the squared gradients of all training steps, the penalty's own included, without dividing
by their number, at strength 400 with the factor 1/2.

On language the loss of a sample is the mean over its answer's tokens. With `trained: all` there is
no adapter: the whole network is trained, in float32 (full fine-tuning). S and m are then two copies
of the network, beside its weights, their gradient and Adam's two moments, and in a step the penalty
holds one more.

Checked against an independent reference over three tasks (`tests/references`); Fisher and penalty
are Avalanche's own code. No other was run beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from baselines.common import checks
from baselines.common.base import Needs
from baselines.common.lora import LoraMethod, LoraSettings

TRAINED = ("adapter", "all")


class Chosen(Dataset):
    """Some samples of a task for Avalanche's own loader, without padding in vain."""

    def __init__(self, samples: Dataset, positions: Tensor):
        self.samples, self.positions = samples, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, i: int) -> Tensor:
        return self.positions[i]

    def collate_fn(self, positions: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        positions = torch.stack(positions)
        return *self.samples.batch(positions), torch.zeros_like(positions)  # no task labels


class EWC(LoraMethod):
    """Elastic weight consolidation on a sequentially trained adapter, or on the whole network."""

    version = 3

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
            checks.at_least_1(self, "fisher_samples", "fisher_batch_size")
            checks.not_negative(self, "strength")
            checks.one_of(self, trained=TRAINED)
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

    @classmethod
    def needs(cls, config, needs: Needs) -> Needs:
        """S and m, and the distance to m in a step or the task's F at its end; float32."""
        needs = super().needs(config, needs)
        if config.trained == "all":
            everything = sum(p.numel() for p in needs.backbone.parameters())
            needs = dataclasses.replace(needs, trained=everything)
        copy = 4 * needs.trained
        return dataclasses.replace(needs, kept_bytes=2 * copy, made_bytes=copy)

    def adapt(self, backbone: nn.Module) -> nn.Module:
        if self.config.trained == "all":
            return backbone.float().requires_grad_(True)  # small steps vanish in bfloat16
        return super().adapt(backbone)

    def plugins(self) -> list:
        from avalanche.training.plugins import EWCPlugin

        config = self.config

        class Plugin(EWCPlugin):
            constant = 0.0  # c

            def before_backward(self, strategy, **kwargs):
                super().before_backward(strategy, **kwargs)
                strategy.loss += self.ewc_lambda * self.constant

            def after_training_exp(self, strategy, **kwargs):
                super().after_training_exp(strategy, **kwargs)
                self.join(strategy.clock.train_exp_counter)

            def compute_importances(
                self, model, criterion, optimizer, dataset, device, batch_size, num_workers=0
            ):
                chosen = torch.randperm(len(dataset))[: config.fisher_samples]
                importances = super().compute_importances(
                    *(model, criterion, optimizer, Chosen(dataset, chosen), device),
                    *(config.fisher_batch_size, num_workers),
                )
                optimizer.zero_grad()  # its memory is free for the anchors
                return importances

            @torch.no_grad()
            def join(self, task: int):
                """Make one term of that of a task and that of all tasks before it.

                The mean moves by its share of the way to the new anchor, so that no large sums are
                subtracted from one another.
                """
                if task == 0:
                    return
                old, old_mean = self.importances.pop(task - 1), self.saved_params.pop(task - 1)
                for name, importance in self.importances[task].items():
                    fisher, mean = importance.data, old_mean[name].data
                    way = self.saved_params[task][name].data - mean
                    total = old[name].data + fisher
                    share = torch.where(total > 0, fisher / total, 1.0)
                    self.constant += (old[name].data * share * way.square()).sum().item()
                    anchor = self.saved_params[task][name].data
                    # exact where only one of the two counts: Adam makes steps of a rounding error
                    self.saved_params[task][name].data = mean.lerp(anchor, share)
                    importance.data = total

        self._ewc = Plugin(ewc_lambda=config.strength, mode="separate")
        return [self._ewc]

    def state_dict(self) -> dict:
        def tensors(tasks):
            return {t: {n: p.data for n, p in kept.items()} for t, kept in tasks.items()}

        return super().state_dict() | {
            "importances": tensors(self._ewc.importances),
            "anchors": tensors(self._ewc.saved_params),
            "constant": self._ewc.constant,
        }

    def load_state_dict(self, state: Mapping) -> None:
        from avalanche.training.utils import ParamData

        super().load_state_dict(state)
        self._ewc.constant = state["constant"]
        for kept, tasks in (
            (self._ewc.importances, state["importances"]),
            (self._ewc.saved_params, state["anchors"]),
        ):
            for task, values in tasks.items():
                kept[task] = {
                    n: ParamData(n, init_tensor=v.to(self.setting.device), device=v.device)
                    for n, v in values.items()
                }
