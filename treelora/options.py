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
    "penalty_scale": ("loss", "mean", "signed_loss"),
}


@dataclass(frozen=True)
class Options:
    """The choices that make up the method; the defaults are the preset `paper`.

    They can be combined freely. "Released" below is the authors' code at commit c6a9b6d, as it
    behaves; each of its deviations can be switched off alone.

    Attributes:
        strength: lambda of equation 3; 0.1 on vision and 0.5 on language in the paper.
        depth: adapted matrices that the tree and the penalty look at, from the first; None takes
            all (section 3.3: 5 on vision; 64, all of a 7B model's, on language).
        signature: what stands for a task's expected gradient (section 3.1). `adapter` is the
            low-rank weights, the sum of all updates (section 3.3, "practical implementation");
            `gradient` the running mean of the loss's gradient with respect to them. With
            `gradient`, search and tree compare gradients, which are constants: only the penalty is
            differentiated, and it compares adapters, as a gradient cannot be pulled without second
            derivatives.
        factors: the LoRA factors that count; `A` is the released choice.
        average: the signature `adapter` accumulates the adapter over the steps, 1/T of it at each
            of an epoch's T, instead of being its last state (released).
        accumulator_factor: `levels` accumulates the number of matrices, L, times as much: the
            released accumulator adds each whole stack once for every matrix.
        differences: the tree looks at what changed since the task before (released).
        similarity: of tasks to their mean in the tree, and of the adapter to the chosen task in the
            penalty: `l1` distance (equations 1 and 3) or `inner` product (released).
        search: `lcb` bounds on the tree (equation 2), `lcb_flat` the same bounds without the tree,
            `softmax` draws (released), `random` draws (Table 5), `none` leaves out search and
            penalty (Table 5).
        distance_sign: the tasks `softmax` prefers. The released code prefers those `far` away.
        branch_weight: `softmax` first draws a branch of the root and weights its tasks by the
            branch's threshold, at most 1.5 (released).
        schedule: `constant`, or a `ramp` from 0 to the strength within every epoch (released).
        restart: when the statistics of the search and the accumulator start anew.
        penalty_scale: the paper does not say how the norm is scaled. `loss` rescales it to the size
            of the loss; `mean` averages it over the entries of each matrix and sums over matrices,
            and with the paper's lambda of 0.1 does next to nothing beside the loss. `signed_loss`
            is the released form of `loss`: divided by the value with its sign, so that a negative
            inner product is made more negative.
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

    @property
    def needs_epochs(self) -> bool:
        """Whether something depends on the number of steps in an epoch."""
        by_epoch = self.average or self.schedule == "ramp" or self.restart == "epoch"
        return by_epoch or self.search == "softmax"


PRESETS = {
    "paper": {},
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
