"""The command line: `python -m analysis RUNS.jsonl ... --out DIR` (see `--help`)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analysis.draw import NAMES, draw
from analysis.terminal import ends_in_one_sentence
from analysis.text import quoted, suggest

HELP = f"""\
Draws tables, figures and the report from result records. Needs no torch.

  python -m analysis results/demo/runs.jsonl --out results/demo
  python -m analysis benchmarks/published/*.runs.jsonl.xz --out results/published
  python -m analysis results/demo/runs.jsonl --out results/demo --exhibits accuracy fig4a
  python -m analysis results/demo/runs.jsonl --out results/demo --reference seqlora

One file is drawn in DIR itself, several each in DIR/SUITE:
  summary.csv, tables/*.{{md,tex,csv}}, figures/*.{{pdf,svg}}, claims.{{md,tex,csv}},
  report/index.html
Figures are 3.25 or 6.75 inches wide, a column of print or two; so are tables, of which NAME.tex has
all columns and NAME.column.tex those that fit into one column.
Several files are also judged together, in DIR/claims.{{md,tex,csv}} and DIR/index.html, which
shows the published experiments without suite as well: the search's regret, operations and bytes.
The same records give the same bytes. All files are read and checked before anything is
written; one beside a SHA256SUMS must have the digest that is listed there.

Exhibits: {", ".join(NAMES)}."""


@ends_in_one_sentence
def main(arguments: list[str] | None = None) -> int:
    """Runs the command: 0, or 2 for unusable input."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS.jsonl", help="collected runs")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="where to draw")
    parser.add_argument(
        "--exhibits", nargs="+", default=NAMES, metavar="NAME", help="draw only these"
    )
    parser.add_argument(
        "--reference", metavar="LABEL", help="the row that differences are taken to"
    )
    options = parser.parse_args(arguments)
    for name in options.exhibits:
        if name not in NAMES:
            raise ValueError(f"There is no exhibit {quoted(name)}: {suggest(name, NAMES)}")
    draw(options.runs, options.out, options.exhibits, reference=options.reference)
    return 0


if __name__ == "__main__":
    sys.exit(main())
