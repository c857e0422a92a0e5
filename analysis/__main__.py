"""The command line: `python -m analysis RUNS.jsonl ... --out DIR` (see `--help`)."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import BrokenExecutor
from pathlib import Path

from analysis.draw import NAMES, draw, findings, write
from analysis.records.runs import Suite, read_suite
from analysis.text import quoted, suggest, visible

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
CLAIMS_BEGIN, CLAIMS_END = "<!-- claims:begin -->", "<!-- claims:end -->"
HELP = f"""\
Draws tables, figures and the report from result records. Needs no torch.

  python -m analysis results/demo/runs.jsonl --out results/demo
  python -m analysis benchmarks/published/*.jsonl --out results/published
  python -m analysis results/demo/runs.jsonl --out results/demo --exhibits accuracy fig4a
  python -m analysis benchmarks/published/*.jsonl --readme README.md [--check]

One file is drawn in DIR itself, several each in DIR/SUITE:
  summary.csv, tables/*.{{md,tex,csv}}, figures/*.{{pdf,svg}}, claims.{{md,tex,csv}},
  report/index.html
Several files are also judged together, in DIR/claims.{{md,tex,csv}} and DIR/index.html, which
shows the published experiments without suite as well: the search's regret, operations and bytes.
The same records give the same bytes. All files are read and checked before anything is
written; one beside a SHA256SUMS must have the digest that is listed there.

Exhibits: {", ".join(NAMES)}."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command: 0, or 1 if --check found an outdated file, or 2 for unusable input."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS.jsonl", help="collected runs")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, metavar="DIR", help="draw in this folder")
    target.add_argument(
        "--readme",
        type=Path,
        metavar="FILE",
        help=f"put the scores between {BEGIN} and {END} and the claims between {CLAIMS_BEGIN} and "
        f"{CLAIMS_END}, where it has them",
    )
    parser.add_argument(
        "--exhibits", nargs="+", default=NAMES, metavar="NAME", help="with --out: only these"
    )
    parser.add_argument("--check", action="store_true", help="with --readme: only compare")
    options = parser.parse_args(arguments)
    try:
        for name in options.exhibits:
            if name not in NAMES:
                raise ValueError(f"There is no exhibit {quoted(name)}: {suggest(name, NAMES)}")
        if options.readme:
            suites = [read_suite(path) for path in options.runs]
            return readme(options.readme, suites, options.check)
        draw(options.runs, options.out, options.exhibits)
    except OSError as error:
        said = f"{error.filename}: {error.strerror}; what was there is kept."
        print(visible(said), file=sys.stderr)
        return 2
    except ValueError as error:
        print(visible(str(error)), file=sys.stderr)
        return 2
    except BrokenExecutor:
        print("A process that drew was killed: is there too little memory?", file=sys.stderr)
        return 2
    return 0


def readme(path: Path, suites: list[Suite], check: bool) -> int:
    """Replaces the text between the markers of a file, or with `check` only compares: 0 or 1."""
    from analysis.claims.judge import compact, judge, measure
    from analysis.tables import accuracy

    sections = {
        (BEGIN, END): lambda: accuracy.compact(suites),
        (CLAIMS_BEGIN, CLAIMS_END): lambda: compact(
            judge([measure(suite) for suite in suites], findings())
        ),
    }
    text = new = path.read_text(encoding="utf-8")
    there = {marks: text_of for marks, text_of in sections.items() if marks[0] in text}
    if not there:
        raise ValueError(f"{path} must hold the line {BEGIN} and after it {END}: add them.")
    for (begin, end), text_of in there.items():
        head, _, rest = new.partition(begin)
        _, found, tail = rest.partition(end)
        if not found:
            raise ValueError(f"{path} must hold the line {end} after {begin}: add it.")
        new = f"{head}{begin}\n\n{text_of()}\n\n{end}{tail}"
    return replace(path, new, check)


def replace(path: Path, new: str, check: bool) -> int:
    """Writes a generated text, or with `check` only compares it with what is there: 0 or 1."""
    if path.is_file() and path.read_text(encoding="utf-8") == new:
        return 0
    if check:
        print(f"{path} differs from the records: run this again without --check.", file=sys.stderr)
        return 1
    write(path.parent, {path.name: new.encode()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
