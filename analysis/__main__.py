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
            _check_exhibit(name)
        suites = [read_suite(path) for path in options.runs]
        if options.readme:
            return readme(options.readme, suites, options.check)
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


def readme(path: Path, suites: list[Suite], check: bool) -> int:
    """Replaces the text between the markers of a file, or with `check` only compares: 0 or 1."""
    from analysis import claims, tables

    sections = {
        (BEGIN, END): lambda: tables.compact(suites),
        (CLAIMS_BEGIN, CLAIMS_END): lambda: claims.compact(claims.judge(suites)),
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
    write(path, new.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
