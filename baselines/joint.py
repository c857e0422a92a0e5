"""Joint training on all tasks at once: the upper reference, not a continual learner.

The same adapter, settings and number of passes over each sample as the sequential methods, on the
shuffled union of the stream. Departure: the logits of all classes compete in the loss whatever the
run's mask says, since no class is unseen.
"""

from dataclasses import replace

from torch import nn

from baselines.base import Setting
from baselines.lora import LoraMethod, LoraSettings


class Joint(LoraMethod):
    """One adapter, trained on the union of all tasks."""

    offline = True

    def __init__(self, backbone: nn.Module, config: LoraSettings, setting: Setting):
        mask = "all" if setting.modality == "vision" else None
        super().__init__(backbone, config, replace(setting, mask=mask))
