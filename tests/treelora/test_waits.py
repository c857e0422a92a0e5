"""Search and penalty give Python no value, so that they never wait for a GPU; seen on the CPU."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests import tiny
from treelora import PRESETS, Options, TreeRegulariser

VALUES = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select")


class Values(TorchDispatchMode):
    """Lists operations whose result, or the size of it, Python must know."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        name = op._schema.name
        indices = args[1] if name in ("aten::index", "aten::index_put_") else ()
        if name in VALUES or any(i is not None and i.dtype == torch.bool for i in indices):
            self.asked.append(name)
        return op(*args, **(kwargs or {}))


SEARCHES = ["lcb", "lcb_flat", "random", "softmax"]
SCALES = ["loss", "mean", "constant"]


@pytest.mark.parametrize(
    "options",
    [{"search": search, "penalty_scale": scale} for search in SEARCHES for scale in SCALES]
    + list(PRESETS.values()),
)
def test_no_step_asks_for_a_value(options):
    model = tiny.Adapters(3, 4)
    tree = TreeRegulariser(model, Options(**options))
    tree.load_state_dict({"signatures": torch.randn(5, 12), "members": [[n] for n in range(5)]})
    tree.start_task(steps_per_epoch=4)
    with Values() as values:
        for _ in range(4):
            tree.penalty(torch.ones(())).backward()
    assert values.asked == []
    with values:
        float(tree.penalty(torch.ones(())).detach())
    assert values.asked
