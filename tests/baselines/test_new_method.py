"""The README's worked example: one new file, named in a suite, and everything follows."""

import re
import subprocess
import sys

import pytest
import yaml
from tests.test_workflow import ROOT, Checkout

SUITE = {
    "label": "the README's example",
    "seeds": [0],
    "experiments": [
        {
            "stream": {"name": "glyphs", "n_tasks": 2, "train_per_class": 4, "test_per_class": 2},
            "backbone": {"name": "micro-vit"},
            "train": {"epochs": 1, "mask": "current"},
            "methods": {"seqlora": {}, "anchor": {}},
        }
    ],
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("method"))
    example, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(example.splitlines()) <= 40
    (checkout.folder / "baselines/anchor.py").write_text(example)
    (checkout.folder / "mine.yaml").write_text(yaml.safe_dump(SUITE))
    return checkout


def test_a_new_method_is_trained_tabulated_and_drawn(checkout):
    checkout.snakemake(suite="mine.yaml")
    for table in checkout.files("results/mine/tables/accuracy-*.md"):
        assert "anchor" in table.read_text()
    figures = checkout.files("results/mine/figures/*.svg")
    assert figures and all("anchor" in path.read_text() for path in figures)
    assert "anchor" in (checkout.folder / "results/mine/report/index.html").read_text()


def test_a_new_method_is_contract_tested(checkout):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "tests/test_contract.py", "tests/test_three_tasks.py", "-k", "anchor"],
        cwd=checkout.folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 14
