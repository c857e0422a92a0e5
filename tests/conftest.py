"""Options of the test run."""

from pathlib import Path


def pytest_addoption(parser):
    parser.addoption(
        "--released-trace",
        type=Path,
        default=Path(__file__).parent / "released_trace.npz",
        metavar="FILE.npz",
        help="a recorded trace of the authors' code, with its trees beside it in FILE_trees.json",
    )
