"""Prepare one stream: python -m benchmarks.streams NAME [OPTION=VALUE ...] --out DIR"""

import argparse
import json
import time
import typing
from contextlib import suppress
from pathlib import Path

from analysis.text import quoted
from benchmarks import streams
from benchmarks.common.data_dir import add_data_dir_option
from benchmarks.common.errors import DataError, as_exit
from benchmarks.common.options import check_names


@as_exit()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__)
    parser.add_argument("name", help=f"one of {', '.join(streams.names())}")
    parser.add_argument(
        "options", nargs="*", metavar="OPTION=VALUE", help="as in a suite file: path=/my/images"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for data and manifest")
    add_data_dir_option(parser)
    o = parser.parse_args(arguments)
    start = time.perf_counter()
    manifest = streams.prepare(o.name, o.out, o.data_dir, **_options(o.name, o.options))
    seconds = time.perf_counter() - start
    print(
        f"{o.name}: {manifest['n_bytes'] / 1e6:.1f} MB in {seconds:.0f} s, "
        f"from {manifest['source']}"
    )
    for kind, count in manifest.get("converted", {}).items():
        print(f"  {count} images: {kind}")
    for defect in manifest.get("defects", ()):
        print(f"  {defect['task']}: {defect['kind']}, {defect['count']} ({defect['note']})")


def _options(name: str, assignments: list[str]) -> dict:
    """The stream's options; values of those that are no text are JSON."""
    hints = typing.get_type_hints(streams.load(name).Options)
    options = {}
    for assignment in assignments:
        option, separator, value = assignment.partition("=")
        if not separator:
            raise DataError(f"an option is given as option=value, but found {quoted(assignment)}")
        if hints.get(option, str) not in (str, str | None):
            with suppress(ValueError):  # what it should be is said where it is checked
                value = json.loads(value)
        if option in options:
            raise DataError(f"the option {quoted(option)} is given twice: leave one out")
        options[option] = value
    check_names(options, hints.keys() - {"name"})
    return options


if __name__ == "__main__":
    main()
