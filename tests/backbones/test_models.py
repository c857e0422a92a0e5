"""What methods ask of the two kinds of network."""

import torch

from benchmarks.backbones import build_vision
from tests import tiny


def test_split_projections_compute_what_the_fused_one_did():
    torch.manual_seed(0)
    model = build_vision(tiny.VISION, 5)
    x = torch.rand(2, 3, 16, 16)
    fused = model(x)
    torch.testing.assert_close(model.split_qkv()(x), fused, atol=1e-6, rtol=1e-5)


def test_only_the_logits_that_predict_an_answer_are_computed():
    model = tiny.network("language").eval()
    x = tiny.samples("language", 0).x[:3]
    every = model.network.lm_head(model.hidden(model.embed(x[:, 0]), x[:, 1]))
    torch.testing.assert_close(model(x), every[:, -3:-1])  # answers are two tokens long
    x[1:, 1, -2] = 1  # a shorter answer beside a longer one
    torch.testing.assert_close(model(x), every[:, -3:-1])
    torch.testing.assert_close(model(x[1:]), every[1:, -2:-1])
