"""Every choice that TreeLoRA leaves open, by name, and the two presets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from difflib import get_close_matches

CHOICES = {
    "signature": ("adapter", "gradient"),
    "factors": ("AB", "A"),
    "accumulator_factor": ("one", "levels"),
    "similarity": ("l1", "inner"),
    "search": ("lcb", "lcb_flat", "softmax", "random", "none"),
    "distance_sign": ("near", "far"),
    "schedule": ("constant", "ramp"),
    "restart": ("task", "epoch"),
    "penalty_scale": ("loss", "constant", "mean", "sum", "signed_loss"),
    "residual_scale": ("largest", "sum"),
}


@dataclass(frozen=True)
class Options:
    """The choices that make up the method.

    They can be combined freely. The defaults read the text but for two things, which it leaves open
    and the released code settles: the penalty is rescaled to each step's loss, for all matrices
    together, and residuals to the largest seen. The preset `paper` is the reading nearest to the
    text there: a pull that is the same near the target and far from it and falls with no number of
    matrices, as equation 3 has it, at a size that the loss sets once, as lambda to the letter
    (`penalty_scale: sum`) would swamp the loss; and residuals as the sum of equation 2. "Released"
    below is the authors' code at commit c6a9b6d, as it behaves; each of its deviations can be
    switched off alone.

    Attributes:
        strength: lambda of equation 3; 0.1 on vision and 0.5 on language in the paper.
        depth: adapted matrices that the tree and the penalty look at, from the first; None takes
            all. The paper has 64 on language, all matrices of a 7B model, and 5 on vision (section
            3.3), where HiDe's code, in whose frame that is, counts blocks of two matrices each:
            `depth: 10`, or None where five blocks are adapted.
        signature: what stands for a task's expected gradient (section 3.1). `adapter` is the
            low-rank weights, the sum of all updates (section 3.3, "practical implementation");
            `gradient` the running mean of the loss's gradient with respect to them, as a backward
            pass leaves it: losses are not scaled, activations not checkpointed reentrantly. With
            `gradient`, search and tree compare gradients, which are constants: only the penalty is
            differentiated, and it compares adapters, as a gradient cannot be pulled without second
            derivatives.
        factors: the LoRA factors that count; `A` is the released choice.
        average: the signature `adapter` accumulates the adapter over the steps, 1/T of it at each
            of an epoch's T, instead of being its last state. With `restart: epoch` that is the mean
            over the last epoch (released), with `restart: task` as many times as much as there were
            epochs, and so is what the penalty pulls to. It is as precise as the adapter.
        accumulator_factor: `levels` accumulates the number of matrices, L, times as much: the
            released accumulator adds each whole stack once for every matrix.
        differences: the tree looks at what changed since the task before (released).
        similarity: of tasks to their mean in the tree, and of the adapter to the chosen task in the
            penalty: `l1` distance (equations 1 and 3) or `inner` product (released). The tree's
            thresholds are of this kind, though residuals are always distances: with `inner` the
            bounds of `lcb`, into which thresholds enter as delta, are wider than these differ.
        search: `lcb` bounds on the tree (equation 2), `lcb_flat` the same bounds without the tree,
            `softmax` draws (released), `random` draws (Table 5), `none` leaves out search and
            penalty (Table 5).
        distance_sign: the tasks `softmax` prefers. The released code prefers those `far` away.
        branch_weight: `softmax` first draws a branch of the root and weights its tasks by the
            branch's threshold, at most 1.5 (released, with `inner`; a mean distance of entries, as
            thresholds are with `l1`, is so small that it takes the scores away).
        schedule: `constant`, or a `ramp` from 0 to the strength within every epoch (released).
        restart: when the statistics of the search and the accumulator start anew.
        penalty_scale: the paper does not say how the norm of equation 3 is scaled.

            - `loss`: each step's norm, the sum over matrices of the mean over their entries, is
              rescaled to that step's loss, which is positive. The gradient is strength * loss *
              grad log of the norm: it holds near the target and lets go far away. Where matrices
              differ in size, entries of the smaller ones are pulled harder.
            - `constant`: one factor for the whole task, so that as in equation 3 the pull is as
              strong near the target as far from it: the loss of its first step with a penalty,
              divided by that norm of the finished tasks' adapters, ||g_k||, in the mean (by
              <g_k, g_k> with `inner`). The distance itself is no measure: it starts from 0 where
              the adapter is trained on.
            - `mean`: averaged over the entries of each matrix and summed over matrices. With the
              paper's lambda of 0.1 it does next to nothing beside the loss.
            - `sum`: equation 3 to the letter, summed over all entries. The gradient of each is
              lambda whatever the loss, whose own is some hundred times smaller; what the optimiser
              makes of both is its step.
            - `signed_loss`: the released form of `loss`, divided by the value with its sign, so
              that a negative inner product is made more negative.
        layerwise: rescale each matrix by itself, not the sum over all. The sum's pull on one matrix
            falls with the number of matrices, so that depth and strength are confounded; with this
            it does not depend on the others, and is about as many times stronger as there are
            matrices. Not with `mean` and `sum`, which rescale nothing.
        residual_scale: of the residuals of `lcb` and `lcb_flat`. `largest` divides them by the
            largest seen in their matrix, as the bounds presume [0, 1]; the bonus then exceeds the
            differences between tasks for hundreds of steps, and tasks are pulled in turn. `sum` is
            the norm of equation 2 to the letter, summed over all entries and not divided. A task
            further away than the nearest by more than the bonus can be, 2 sqrt(log t), is then
            pulled once only. Whether tasks are depends on the number of entries and how far they
            move: with 4,000 in a matrix and 30 steps at 0.001 they are not.
        budget: the most adapters stored; beyond it the two closest are merged into their mean,
            weighted by their numbers of tasks (section 3.3). None stores all.
    """

    strength: float = 0.1
    depth: int | None = None
    signature: str = "adapter"
    factors: str = "AB"
    average: bool = False
    accumulator_factor: str = "one"
    differences: bool = False
    similarity: str = "l1"
    search: str = "lcb"
    distance_sign: str = "near"
    branch_weight: bool = False
    schedule: str = "constant"
    restart: str = "task"
    penalty_scale: str = "loss"
    layerwise: bool = False
    residual_scale: str = "largest"
    budget: int | None = None

    def __post_init__(self):
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                near = get_close_matches(str(value), allowed, n=1)
                hint = f": did you mean {near[0]}?" if near else ""
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}, but is {value!r}{hint}"
                )
        if not math.isfinite(self.strength):
            raise ValueError(f"strength must be a finite number, but is {self.strength}")
        if self.strength < 0:
            raise ValueError(f"strength must not be negative, but is {self.strength}")
        if self.depth is not None and self.depth < 1:
            raise ValueError(f"depth must be at least 1, but is {self.depth}")
        if self.budget is not None and self.budget < 1:
            raise ValueError(f"budget must be at least 1, but is {self.budget}")
        if self.average and self.signature == "gradient":
            raise ValueError("average is for the signature adapter: a gradient is always averaged")
        if self.layerwise and self.penalty_scale in ("mean", "sum"):
            raise ValueError(
                f"layerwise is for a penalty that is rescaled, but penalty_scale is "
                f"{self.penalty_scale}: leave it out"
            )

    @property
    def needs_epochs(self) -> bool:
        """Whether something depends on the number of steps in an epoch."""
        by_epoch = self.average or self.schedule == "ramp" or self.restart == "epoch"
        return by_epoch or self.search == "softmax"


PRESETS = {
    "paper": {"penalty_scale": "constant", "layerwise": True, "residual_scale": "sum"},
    "released": {
        "strength": 0.5,
        "factors": "A",
        "average": True,
        "accumulator_factor": "levels",
        "differences": True,
        "similarity": "inner",
        "search": "softmax",
        "distance_sign": "far",
        "branch_weight": True,
        "schedule": "ramp",
        "restart": "epoch",
        "penalty_scale": "signed_loss",
    },
}
