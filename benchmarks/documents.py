"""The generated documents, made of the published records: `python -m benchmarks.documents`."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path

from analysis import fidelity, pages
from analysis.claims.judge import judge, measure
from analysis.draw import findings
from analysis.figures.accuracy import fig4a
from analysis.figures.canvas import render
from analysis.records.runs import read_suite
from benchmarks import backbones
from benchmarks.common.errors import as_exit
from benchmarks.common.files import read_json, write_bytes
from benchmarks.experiments import timing_page
from benchmarks.runs.record import PUBLISHED

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"
MADE = "<!-- Made by `make docs`: edits here are lost. -->\n\n"
BACKBONES = """\
# Backbones from outside

A suite names one in `backbone: {name: ...}`. Labels: those that the weights have seen in training.
Pixels: the normalisation, `unit` for none. How they are found and what else can be named is in
[data.md](data.md#backbones).

"""


def documents() -> dict[str, bytes]:
    """Each by its path. Whole files, but for the README's table."""
    suites = [read_suite(path) for path in sorted(PUBLISHED.glob("*.jsonl"))]
    verdicts = judge([measure(suite) for suite in suites], findings())
    remarks = tomllib.loads((PUBLISHED / "remarks.toml").read_text(encoding="utf-8"))
    head, _, rest = (ROOT / "README.md").read_text(encoding="utf-8").partition(BEGIN)
    tail = rest.partition(END)[2]
    readme = f"{head}{BEGIN}\n\n{pages.headlines(verdicts, suites)}\n\n{END}{tail}"
    (demo,) = (suite for suite in suites if suite.name == "demo")
    (glyphs,) = (panel for panel in demo.panels if panel.stream == "glyphs")
    whole = {
        "docs/claims.md": pages.claims_page(verdicts, suites, remarks["claims"]),
        "docs/results.md": pages.results_page(suites, remarks["suites"]),
        "docs/fidelity.md": fidelity.document(suites),
        "docs/speed.md": timing_page.as_markdown(
            [read_json(file) for file in sorted(PUBLISHED.glob("timing*.json"))]
        ),
        "docs/backbones.md": BACKBONES + backbones.overview(),
    }
    return {
        "README.md": readme.encode(),
        "docs/accuracy.svg": render(fig4a(glyphs), "accuracy")["svg"],
        **{path: (MADE + text).encode() for path, text in whole.items()},
    }


def outdated(made: dict[str, bytes]) -> list[str]:
    """The paths of those that differ from what is there."""
    there = {path: (ROOT / path).is_file() and (ROOT / path).read_bytes() for path in made}
    return [path for path, content in made.items() if there[path] != content]


@as_exit()
def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.documents", description=__doc__).parse_args()
    made = documents()
    for path in outdated(made):
        write_bytes(ROOT / path, made[path])
        print(path)


if __name__ == "__main__":
    main()
