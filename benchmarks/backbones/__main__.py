"""Find or fetch a backbone's weights, check them and write `manifest.json`."""

import argparse
import json
from pathlib import Path

from benchmarks import backbones
from benchmarks.common.data_dir import add_data_dir_option
from benchmarks.common.errors import as_exit
from benchmarks.common.files import write_json


@as_exit()
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backbones", description=__doc__)
    parser.add_argument("name", help="one of " + ", ".join(backbones.BACKBONES))
    parser.add_argument("--out", type=Path, required=True, help="folder of the manifest")
    add_data_dir_option(parser)
    options = parser.parse_args()
    manifest = backbones.find(options.name).prepare(options.out, options.data_dir)
    write_json(options.out / "manifest.json", manifest)
    print(json.dumps(manifest, indent=1))


if __name__ == "__main__":
    main()
