"""Prepare one stream: python -m benchmarks.streams NAME --out DIR [--data-dir DIR]"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks import streams
from benchmarks.files import add_data_dir_option


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__)
    parser.add_argument("name", help=f"one of {', '.join(streams.names())}")
    parser.add_argument("--out", type=Path, required=True, help="folder for data and manifest")
    add_data_dir_option(parser)
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    try:
        manifest = streams.prepare(options.name, options.out, options.data_dir)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    seconds = time.perf_counter() - start
    print(
        f"{options.name}: {manifest['n_bytes'] / 1e6:.1f} MB in {seconds:.0f} s, "
        f"from {manifest['source']}"
    )


if __name__ == "__main__":
    main()
