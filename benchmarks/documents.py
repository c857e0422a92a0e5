"""The generated documents, made of the published records: `python -m benchmarks.documents`."""

from __future__ import annotations

import argparse
import tomllib

from analysis import fidelity, pages
from analysis.claims.judge import judge, measure
from analysis.claims.summary import counts
from analysis.draw import findings
from analysis.forest import forest
from analysis.records.reading import PUBLISHED, published
from analysis.records.runs import read_suite
from benchmarks import backbones
from benchmarks.common.errors import as_exit
from benchmarks.common.files import ROOT, read_json, write_bytes
from benchmarks.experiments import timing_page

MADE = "<!-- Made by `make docs`: edits here are lost. -->\n\n"
BACKBONES = """\
# Backbones from outside

A suite names one in `backbone: {name: ...}`. Labels: those that the weights have seen in training.
Pixels: the normalisation, `unit` for none. How they are found and what else can be named is in
[data.md](data.md#backbones).

"""


def documents() -> dict[str, bytes]:
    """Each by its path. Whole files, but for the README's parts."""
    suites = [read_suite(file) for file in published().values()]
    measured = [measure(suite) for suite in suites]
    verdicts = judge(measured, findings())
    main = [verdict for verdict in verdicts if verdict.claim.id in pages.HEADLINES]
    remarks = tomllib.loads((PUBLISHED / "remarks.toml").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = {
        "counts": counts(verdicts, measured),
        "claims": pages.headlines(verdicts),
        "findings": pages.found(verdicts),
    }
    for name, text in parts.items():
        head, begin, rest = readme.partition(f"<!-- {name}:begin -->")
        _, end, tail = rest.partition(f"<!-- {name}:end -->")
        readme = f"{head}{begin}\n\n{text}\n\n{end}{tail}"
    whole = {
        "docs/claims.md": pages.claims_page(verdicts, measured, suites, remarks["claims"]),
        "docs/results.md": pages.results_page(suites, remarks["suites"]),
        "docs/fidelity.md": fidelity.document(suites),
        "docs/speed.md": timing_page.as_markdown(
            [read_json(file) for file in sorted(PUBLISHED.glob("timing*.json"))]
        ),
        "docs/backbones.md": BACKBONES + backbones.overview(),
    }
    return {
        "README.md": readme.encode(),
        "docs/claims.svg": forest(verdicts, alone=True).encode(),
        "docs/headlines.svg": forest(main, alone=True).encode(),
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
