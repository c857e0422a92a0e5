"""The user's folder of data and weights, which is searched before any download."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

DATA_DIR_VARIABLE = "TREELORA_DATA"


def add_data_dir_option(parser: argparse.ArgumentParser) -> None:
    """`--data-dir`, or the environment variable TREELORA_DATA."""
    default = data_dir()
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=default,
        help=f"folder searched before any download (default: ${DATA_DIR_VARIABLE})",
    )


def data_dir() -> Path | None:
    """The data directory of the environment; None if there is none."""
    value = os.environ.get(DATA_DIR_VARIABLE)
    return Path(value) if value else None
