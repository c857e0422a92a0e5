"""TreeLoRA inside HiDe's task decomposition, as the paper uses it on vision.

Qian et al., "TreeLoRA" (ICML 2025), appendix A.3, which gives no details. Here it is HiDeLoRA (see
`baselines.hidelora`) whose stage 1 adds TreeLoRA's search and penalty to the task's adapter while
that is trained. Signatures of earlier tasks are their stored adapters, after the momentum: factors
on key and value projections, where `baselines.treelora` has query and value. With `strength: 0` the
method is HiDeLoRA.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from baselines.base import Setting, Task
from baselines.hidelora import HiDeLoRA
from treelora import PRESETS, Options, TreeRegulariser
from treelora.signature import Layout, adapted_parameters


class HiDeTreeLoRA(HiDeLoRA):
    """HiDeLoRA with each task's adapter pulled towards that of a similar earlier task."""

    presets = PRESETS

    @dataclass(frozen=True)
    class Config(HiDeLoRA.Config, Options):
        """Settings of HiDeLoRA and the choices of TreeLoRA, see `treelora.Options`."""

        def __post_init__(self):
            HiDeLoRA.Config.__post_init__(self)
            Options.__post_init__(self)

        def check(self, adapted_matrices: int) -> None:
            super().check(adapted_matrices)
            adapted = self.adapted_matrices(adapted_matrices)
            if self.depth is not None and self.depth > adapted:
                raise ValueError(
                    f"depth must lie between 1 and the number of adapted matrices, {adapted}, "
                    f"but is {self.depth}: lower it or adapt more layers"
                )

    def __init__(self, backbone: nn.Module, config: Config, setting: Setting):
        super().__init__(backbone, config, setting)
        names = [field.name for field in dataclasses.fields(Options)]
        options = Options(**{name: getattr(config, name) for name in names})
        self.model.stage = 1
        self.select()
        self.regulariser = TreeRegulariser(self.model, options, setting.seed)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in self._learnt)
        self._trees: list[dict] = []
        self._pulls: list[list[list[int]]] = []

    def begin(self, task: Task) -> None:
        super().begin(task)
        if self.model.stage == 1:
            regulariser, options = self.regulariser, self.regulariser.options
            factors = adapted_parameters(self.model, options.factors)
            regulariser.layout = Layout(factors, options.depth)
            regulariser.start_task(math.ceil(len(task.train) / self.setting.batch_size))

    def penalty(self, loss: Tensor) -> Tensor | float:
        return self.regulariser.penalty(loss) if self.model.stage == 1 else 0.0

    def end(self, task: Task) -> None:
        super().end(task)
        if self.model.stage == 1:
            self._pulls.append(self.regulariser.pulls())
            self.regulariser.end_task()
            self._trees.append(self.regulariser.tree.to_dict(self.regulariser.members))

    def state_dict(self) -> dict:
        return super().state_dict() | {
            "regulariser": self.regulariser.state_dict(),
            "trees": self._trees,
            "pulls": self._pulls,
        }

    def load_state_dict(self, state: Mapping) -> None:
        super().load_state_dict(state)
        self.regulariser.load_state_dict(state["regulariser"])
        self._trees = list(state["trees"])
        self._pulls = list(state["pulls"])

    def diagnostics(self) -> dict:
        """With the tree after each task and, per task, how often each earlier one was chosen."""
        return super().diagnostics() | {"trees": self._trees, "pulls": self._pulls}
