"""Vision transformers as methods see them: pixels, positions, projections."""

import numpy as np
import torch

from benchmarks import backbones
from tests import tiny


def test_a_normalisation_is_per_channel_or_for_all():
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for name, (mean, std) in backbones.NORMALISATIONS.items():
        torch.manual_seed(0)
        model = tiny.VISION.build(2, normalisation=name)
        mean, std = (np.broadcast_to(v, 3).astype("f")[:, None, None] for v in (mean, std))
        given = torch.from_numpy((x.numpy() - mean) / std)
        with torch.no_grad():
            expected = model.head(model.network.forward_features(given)[:, 0])
            torch.testing.assert_close(model(x), expected)
        assert not {"_mean", "_std"} & model.state_dict().keys()


def test_split_projections_compute_what_the_fused_one_did():
    torch.manual_seed(0)
    model = tiny.VISION.build(5)
    x = torch.rand(2, 3, 16, 16)
    fused = model(x)
    torch.testing.assert_close(model.split_qkv()(x), fused, atol=1e-6, rtol=1e-5)
