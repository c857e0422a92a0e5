"""EWC: a quadratic pull towards earlier solutions, weighted by the Fisher information.

Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks" (PNAS 2017), by
Avalanche's EWCPlugin on the adapter and classifier. The penalty is

    strength * sum_k sum_p F_k,p (theta_p - theta*_k,p)^2

Departures from the paper, all Avalanche's:
1. no factor 1/2, so `strength` counts double;
2. F is the mean over mini-batches of the squared gradient of the batch's mean loss, not of each
   sample's: near an optimum it is about 1/batch_size of the paper's, so `strength` depends on the
   batch size;
3. labels are the training labels (empirical Fisher).
The TreeLoRA paper gives strength 50 on vision and neither estimator nor trainable set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from baselines.lora import LoraMethod, LoraSettings


class EWC(LoraMethod):
    """Elastic weight consolidation on a sequentially trained adapter."""

    @dataclass(frozen=True)
    class Config(LoraSettings):
        """`strength`: the factor of the penalty, lambda."""

        strength: float = 50.0

    def plugins(self) -> list:
        from avalanche.training.plugins import EWCPlugin

        self._ewc = EWCPlugin(ewc_lambda=self.config.strength, mode="separate")
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
