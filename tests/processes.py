"""Modules of the project in processes that need not import large packages first.

They are forked from a server that has imported these and nothing of the project. It finds this
module by its own name, as there is another `tests` among the installed packages.
"""

import multiprocessing
import os
import runpy
import sys
import tempfile
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        *("torch", "timm", "transformers.models.llama.modeling_llama"),
        *("avalanche.training.templates", "snakemake.cli", "matplotlib.backends.backend_pdf"),
        *("pandas", "scipy.special", "jinja2", "pydantic", "peft"),
    ]
)
_environment = dict(os.environ)  # at collection: no test's own, whichever comes first


def fork(module: str, options: tuple[str, ...], out: Path, cwd: Path, env: dict) -> BaseProcess:
    """Start `python -m module` in `cwd` as the leader of a group; what it prints goes to `out`."""
    with mock.patch.dict(os.environ, _environment, clear=True):
        forkserver.ensure_running()
    process = _context.Process(target=_run, args=(module, options, out, cwd, env))
    process.start()
    return process


def start(module: str, *options: str, out: Path = Path(os.devnull)) -> BaseProcess:
    """The same in the folder and the environment of this process."""
    return fork(module, options, out, Path.cwd(), dict(os.environ))


def _run(module, options, out, cwd, env):
    os.setsid()
    with open(out, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None  # what the server has imported has asked for its own
    folders = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    installed = [path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix))]
    sys.path[:] = [str(cwd), *folders, *installed]
    sys.argv = [module, *options]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
