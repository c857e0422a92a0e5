"""Joint training on all tasks at once: the upper reference, not a continual learner.

The same adapter, settings and number of passes over each sample as the sequential methods, on the
shuffled union of the stream. The logits of all classes compete in the loss whatever the suite's
mask says, since no class is unseen; the run's record states it.

Checked against an independent reference over three tasks (`tests/references`); no public code was
run beside it.
"""

from baselines.common.lora import LoraMethod


class Joint(LoraMethod):
    """One adapter, trained on the union of all tasks."""

    offline = True
