"""Growth of the regret, and Theorem 1's bound."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis.records import regret as analysis


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "other.json"
    path.write_text('{"kind": "speed", "schema": 1}')
    with pytest.raises(ValueError, match="no regret file"):
        analysis.load(path)


def test_fits_recover_known_exponents():
    t, rng = np.array([100, 1000, 10_000]), np.random.default_rng(0)
    curves = 3 * t[:, None] ** 0.6 * rng.uniform(0.9, 1.1, (3, 20))
    found = analysis.fitted(pd.Series(list(curves), index=t))
    assert found.low < 0.6 < found.high and found.high - found.low < 0.1
    exact = analysis.fitted(pd.Series(list(np.ones(20) * t[:, None] ** 0.5), index=t))
    assert exact.mean == pytest.approx(0.5) and exact.high - exact.low == pytest.approx(0)


def test_the_bound_is_the_smallest_over_eta():
    eta, leaves = [0.4, 0.1], [8, 1]
    terms = [
        math.sqrt(1000 * j * math.log(16 * 1000 / j)) + 0.8 / e**3 * math.log(16 * 1000 / e**2)
        for e, j in zip(eta, leaves, strict=True)
    ]
    found = analysis.theorem_bound(1000, 16, 0.5, 0.8, eta, leaves)
    assert found == pytest.approx(min(terms))
