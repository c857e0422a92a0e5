"""DER++ beyond what its reference covers: texts of unequal answers, and augmented images."""

import torch
import torch.nn.functional as F

from baselines.derpp import DERpp
from tests import tiny


def test_kept_logits_are_matched_where_an_answer_is_asked_for():
    """Whatever is padded to the longest of the answers that are drawn together."""
    config = DERpp.Config(buffer=2, logit_weight=1.0, label_weight=0.0)
    method = DERpp(tiny.network("language"), config, tiny.setting("language"))
    x, y = tiny.samples("language", 0).batch(torch.arange(2))
    y[0, -2] = -100  # an answer of one token beside one of two
    kept = torch.rand(2, 2, method.backbone.vocabulary)
    method._buffer.add(x, y, kept)
    now = method.loop.model(x)
    asked = y[:, -2:] != -100
    assert asked.sum() == 3
    loss = method.batch_loss(x, y, now, torch.arange(2))
    torch.testing.assert_close(loss, F.mse_loss(now[asked], kept[asked]))
