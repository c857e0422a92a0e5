"""Options of the test run."""

import functools
import gc
import json
import os
import shlex
import tarfile
from pathlib import Path

import pytest

PACK = "llm_cl_benchmark_500"


def pytest_addoption(parser):
    parser.addoption(
        "--released-trace",
        type=Path,
        default=Path(__file__).parent / "released_trace.npz",
        metavar="FILE.npz",
        help="a recorded trace of the authors' code, with its trees beside it in FILE_trees.json",
    )
    parser.addoption(
        "--method",
        metavar="METHOD",
        help="ask the contract of this method alone: a name, a module or the path of a file",
    )
    parser.addoption("--stream", metavar="STREAM", help="the same for a stream")


def pytest_configure(config):
    """What cannot be loaded is one sentence, and not one for each test."""
    gc.disable()  # or collecting the tests takes a third longer
    try:
        if method := config.getoption("method"):
            import baselines

            baselines.load(method)
        if stream := config.getoption("stream"):
            from benchmarks import streams

            streams.load(shlex.split(stream)[0])
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_collection_modifyitems(config, items):
    """The longest file first and small ones last, or one worker waits for the other in the end.

    Of a contract that is asked of one method or stream, what is not asked of all is left out.
    """
    size = functools.cache(lambda path: path.stat().st_size)
    items.sort(key=lambda item: (item.path.name != "test_workflow.py", -size(item.path)))
    if config.getoption("method") or config.getoption("stream"):
        asked = [item for item in items if "case" in " ".join(item.fixturenames)]
        items[:] = [item for item in asked if not item.get_closest_marker("skip")]  # of no case


def pytest_collection_finish(session):
    """Runs ask for garbage to be collected, which is not among what was imported for all tests."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def pretended_gpu():
    """A context in which there seems to be a GPU; None on a machine that has one.

    It is made before any test, as torch counts its devices at the first backward pass.
    """
    import torch

    if torch.cuda.is_available():
        return None
    from tests.pretend_cuda import pretended

    return pretended


@pytest.fixture(autouse=True)
def gpu(request, pretended_gpu):
    """A GPU for tests marked gpu, pretended where there is none. Others never see one.

    Of a pretended one it is the set of places in the code, (file, line), that asked torch.cuda.
    """
    import torch

    if not request.node.get_closest_marker("gpu"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CUDA_VISIBLE_DEVICES", "")
            patch.setattr(torch.cuda, "is_available", lambda: False)
            yield
    elif pretended_gpu:
        with pretended_gpu() as places:
            yield places
    else:
        yield


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data directory that the environment names, and a working directory beside it."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("TREELORA_DATA", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture(scope="session")
def prepared_stream(tmp_path_factory):
    """A function that gives the folder of an embedded stream, which the first worker makes."""
    from filelock import FileLock

    from benchmarks import streams

    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    @functools.cache
    def folder(name):
        out = shared / f"stream {name}"
        with FileLock(f"{out}.lock"):
            if not (out / "manifest.json").exists():
                streams.prepare(name, out)  # checks the digest
        return out

    return folder


@pytest.fixture(scope="session")
def real_items():
    """A function that gives the items of a real language task's part, "train" or "test"."""
    file = Path(os.environ.get("TREELORA_DATA") or "nowhere") / f"{PACK}.tar.xz"
    if not file.is_file():
        pytest.skip(f"TREELORA_DATA names no folder with {file.name}")
    with tarfile.open(file) as archive:
        texts = {
            member.name: archive.extractfile(member).read()
            for member in archive
            if member.name.endswith(".json")
        }
    return functools.cache(lambda task, part: json.loads(texts[f"{PACK}/{task}/{part}.json"]))
