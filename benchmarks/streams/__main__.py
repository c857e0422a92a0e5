"""Prepare one stream: python -m benchmarks.streams NAME [OPTION=VALUE ...] --out DIR"""

import argparse
import json
import sys
import time
import typing
from contextlib import suppress
from pathlib import Path

from benchmarks import streams
from benchmarks.common.files import DataError, add_data_dir_option, shown
from benchmarks.runs.config import StreamOptions, stream_options


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__)
    parser.add_argument("name", help=f"one of {', '.join(streams.names())}")
    parser.add_argument(
        "options", nargs="*", metavar="OPTION=VALUE", help="as in a suite file: path=/my/images"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for data and manifest")
    add_data_dir_option(parser)
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    try:
        own = _own(options.name, options.options)
        manifest = streams.prepare(options.name, options.out, options.data_dir, **own)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {shown(str(error))}")
    seconds = time.perf_counter() - start
    print(
        f"{options.name}: {manifest['n_bytes'] / 1e6:.1f} MB in {seconds:.0f} s, "
        f"from {manifest['source']}"
    )
    for kind, count in manifest.get("converted", {}).items():
        print(f"  {count} images: {kind}")
    for defect in manifest.get("defects", ()):
        print(f"  {defect['task']}: {defect['kind']}, {defect['count']} ({defect['note']})")


def _own(name: str, assignments: list[str]) -> dict:
    """The stream's options, checked and converted as those in a suite file are.

    Values of options that are no text are JSON: numbers, true and false, mappings.
    """
    streams.load(name)
    hints = typing.get_type_hints(StreamOptions)
    mapping = {}
    for assignment in assignments:
        option, separator, value = assignment.partition("=")
        if not separator:
            raise DataError(f"an option is given as option=value, but found {assignment!r}")
        if str not in typing.get_args(hints.get(option, str | None)):
            with suppress(ValueError):  # what it should be is said below
                value = json.loads(value)
        mapping[option] = value
    return stream_options({"name": name, **mapping}, "the command line")[1]


if __name__ == "__main__":
    main()
