"""The experiments of no suite: fits and bounds of the regret, and the paper's tables beside."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from analysis.catalogue import FIGURES, TABLES, about
from analysis.draw import EXPERIMENTS, PUBLISHED
from analysis.errors import DataError
from analysis.records import accounting, regret


@pytest.fixture(scope="module")
def published():
    return {name: load(PUBLISHED / f"{name}.json") for name, _, load, _ in EXPERIMENTS}


@pytest.mark.parametrize("name", [name for name, *_ in EXPERIMENTS])
def test_every_table_has_rows_and_every_form(published, name, monkeypatch):
    monkeypatch.setattr(regret, "RESAMPLES", 20)
    facts = published[name]
    made = [table.draw(facts) for table in about(TABLES, type(facts)).values()]
    assert made and all(figure.draw(facts) for figure in about(FIGURES, type(facts)).values())
    for table in made:
        assert table.rows and table.markdown() and table.latex() and table.csv()


def test_the_accounting_leads_to_the_papers_tables(published):
    facts = published["accounting"]
    found = accounting.findings(facts)
    assert found["flops"]["llama-2-7b"].keys() >= {"seqlora", "olora", "treelora"}
    rows = facts.rows.query("model == 'llama-2-7b' and task == 10 and method == 'olora'")
    (cells,) = (row for row in TABLES["operations"].draw(facts).rows if row["method"] == "olora")
    assert cells["paper"].mean == 4.2e7
    ours = rows["table8_multiply_adds_per_token"].item()
    assert cells["times"].mean == pytest.approx(4.2e7 / ours)
    disk = {row["model"]: row for row in TABLES["disk"].draw(facts).rows}
    assert disk["llama-2-7b"]["peak"].mean == 40
    assert found["disk"]["llm-7b"] == disk["llama-2-7b"]["after 10"].mean


@pytest.mark.parametrize(("name", "load"), [(name, load) for name, _, load, _ in EXPERIMENTS])
def test_another_file_or_another_digest_is_refused(tmp_path, name, load):
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps({"kind": "speed", "schema": 1}))
    with pytest.raises(DataError, match=f"no {name} file"):
        load(path)
    (tmp_path / "SHA256SUMS").write_text(f"odd line\n{'0' * 64}  {name}.json\n")
    with pytest.raises(DataError, match="changed after it was published"):
        load(path)


def test_fits_recover_known_exponents():
    t, rng = np.array([100, 1000, 10_000]), np.random.default_rng(0)
    curves = 3 * t[:, None] ** 0.6 * rng.uniform(0.9, 1.1, (3, 20))
    found = regret.fitted(pd.Series(list(curves), index=t))
    assert found.low < 0.6 < found.high and found.high - found.low < 0.1
    exact = regret.fitted(pd.Series(list(np.ones(20) * t[:, None] ** 0.5), index=t))
    assert exact.mean == pytest.approx(0.5) and exact.high - exact.low == pytest.approx(0)


def test_the_bound_is_the_smallest_over_eta():
    eta, leaves = [0.4, 0.1], [8, 1]
    terms = [
        math.sqrt(1000 * j * math.log(16 * 1000 / j)) + 0.8 / e**3 * math.log(16 * 1000 / e**2)
        for e, j in zip(eta, leaves, strict=True)
    ]
    found = regret.theorem_bound(1000, 16, 0.5, 0.8, eta, leaves)
    assert found == pytest.approx(min(terms))
