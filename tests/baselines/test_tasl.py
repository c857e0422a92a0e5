"""TaSL against worked examples, and where it is SeqLoRA."""

import pytest
import torch

from baselines.tasl import Importance, scaled, weights_of_previous
from tests import tiny


def float64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_sensitivity_and_its_spread_are_smoothed():
    unit = torch.nn.Parameter(torch.tensor([-1.0, 1.0]))
    importance = Importance([unit], 0.85, 0.85)
    expected = [(0.15, 0.1275), (0.1275, 0.1275), (0.408375, 0.347119)]
    for gradient, (mean, spread) in zip((1.0, 0.0, 2.0), expected, strict=True):
        unit.grad = torch.full((2,), gradient)
        importance.update()
        torch.testing.assert_close(importance.mean[0], torch.full((2,), mean))
        torch.testing.assert_close(
            importance.spread[0], torch.full((2,), spread), atol=1e-6, rtol=0
        )
    assert importance.scores().tolist() == pytest.approx([0.408375 * 0.347119], rel=1e-5)


def test_the_score_of_a_unit_is_the_average_over_its_entries():
    units = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(1))]
    importance = Importance(units, 0.5, 0.5)
    units[0].grad = torch.arange(6.0).reshape(2, 3)
    units[1].grad = torch.full((1,), 3.0)
    importance.update()  # means are half, spreads a quarter of the sensitivity
    assert importance.scores().tolist() == pytest.approx([55 / 8 / 6, 9 / 8])


def test_units_are_merged_by_whom_they_matter_to():
    current = float64(0, 0.25, 0.5, 0.75, 1)
    history = float64(1, 0, 0.2, 0.4, 0.6)
    assert current.quantile(0.8) == pytest.approx(0.8)  # those that the example has
    assert history.quantile(0.8) == pytest.approx(0.68)
    weights = weights_of_previous(current, history, 0.2, 0.7)
    assert weights.tolist() == [1, 0.5, 0.5, 0.5, 0]
    new = scaled(0.3 * current + 0.7 * history)
    assert new.tolist() == pytest.approx([0.96899, 0, 0.33333, 0.66667, 1], abs=1e-5)
    both = weights_of_previous(current, current, 0.2, 0.7)
    assert both.tolist() == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.7])


def test_thresholds_are_strict_and_equal_scores_are_important_to_none():
    equal = scaled(torch.full((4,), 3.0, dtype=torch.float64))
    assert equal.tolist() == [0, 0, 0, 0]
    assert weights_of_previous(equal, equal, 0.2, 0.7).tolist() == [0.5] * 4


def adapter(method) -> dict:
    return {n: p.detach().clone() for n, p in method.model.named_parameters() if ".lora_" in n}


def test_the_classifier_stays_as_trained():
    tasl, plain = (tiny.method(name, "vision") for name in ("tasl", "seqlora"))
    first, second, _ = tiny.tasks("vision")
    tiny.learn(tasl, first)
    tiny.learn(plain, first)
    tiny.learn(tasl, second)
    tiny.learn(plain, second)
    assert torch.equal(tasl.model.head.weight, plain.model.head.weight)
    assert any(not torch.equal(v, adapter(plain)[n]) for n, v in adapter(tasl).items())


def test_a_single_step_says_nothing_about_importance():
    method = tiny.method("tasl", "language", shared={"batch_size": 12})
    before = None
    for task in tiny.tasks("language", 2, epochs=1):
        before = adapter(method)
        tiny.learn(method, task)
    plain = tiny.method("seqlora", "language", shared={"batch_size": 12})
    for task in tiny.tasks("language", 2, epochs=1):
        tiny.learn(plain, task)
    for name, value in adapter(plain).items():  # the mean of both
        torch.testing.assert_close(adapter(method)[name], (before[name] + value) / 2)
    assert set(method.diagnostics()["importance"].values()) == {0.0}
