"""The command line: `python -m analysis RUNS.jsonl ... --out DIR` (see `--help`)."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from analysis.exhibits import NAMES, claims_files, experiment_files, experiments, make
from analysis.records import EXPERIMENTS
from analysis.runs import Suite, read_suite
from analysis.text import quoted, suggest, visible

HELP = f"""\
Draws tables, figures and the report from result records. Needs no torch.

  python -m analysis results/demo/runs.jsonl --out results/demo
  python -m analysis benchmarks/published/*.jsonl --out results/published
  python -m analysis results/demo/runs.jsonl --out results/demo --exhibits accuracy fig4a

One file is drawn in DIR itself, several each in DIR/SUITE:
  summary.csv, tables/*.{{md,tex,csv}}, figures/*.{{pdf,svg}}, claims.{{md,tex,csv}},
  report/index.html
Several files are also judged together, in DIR/claims.{{md,tex,csv}} and DIR/index.html, which
shows the published experiments without suite as well: the search's regret, operations and bytes.
The same records give the same bytes. All files are read and checked before anything is
written; one beside a SHA256SUMS must have the digest that is listed there.

Exhibits: {", ".join(NAMES)}."""


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
    options = parser.parse_args(arguments)
    try:
        for name in options.exhibits:
            _check_exhibit(name)
        suites = [read_suite(path) for path in options.runs]
        draw(suites, options.out, options.exhibits)
    except OSError as error:
        said = f"{error.filename}: {error.strerror}; what was there is kept."
        print(visible(said), file=sys.stderr)
        return 2
    except ValueError as error:
        print(visible(str(error)), file=sys.stderr)
        return 2
    return 0


def _check_exhibit(name: str) -> None:
    if name not in NAMES:
        raise ValueError(f"There is no exhibit {quoted(name)}: {suggest(name, NAMES)}")


def draw(suites: list[Suite], out: Path, names: list[str]) -> None:
    """Draws each suite in `out`, or in a folder of its own there if there are several."""
    suite_names = [suite.name for suite in suites]
    if len(set(suite_names)) < len(suites):
        raise ValueError(f"Every file must hold another suite, but these are {suite_names}.")
    for suite in suites:
        folder = out / suite.name if len(suites) > 1 else out
        made = make(suite, folder, names)
        for path, content in made.items():
            write(path, content)
        print(f"{suite.name}: {len(made)} files from {len(suite.runs)} runs in {folder}")
        if folder / "report/index.html" in made:
            print(f"report: {folder / 'report/index.html'}")
    if len(suites) > 1:
        made = _together(suites, names)
        for name, content in made.items():
            write(out / name, content)
        if made:
            print(f"all suites: {', '.join(str(out / name) for name in made)}")


def _together(suites: list[Suite], names: list[str]) -> dict[str, bytes]:
    """What several suites lead to together: the claims, what belongs to no suite, and a page."""
    from analysis import claims, report

    made = claims_files(suites) if "claims" in names else {}
    if made and "report" in names:
        own = experiments(path for path in EXPERIMENTS if path.is_file())
        made |= experiment_files(own)
        table = claims.table(claims.judge(suites))
        made["index.html"] = report.overview(suites, table, own, made).encode()
    return made


def write(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


if __name__ == "__main__":
    sys.exit(main())
