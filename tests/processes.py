"""Modules of the project in processes that need not import large packages first.

They are forked from a server that has imported these and nothing of the project. It finds this
module by its own name, as there is another `tests` among the installed packages.
"""

import atexit
import functools
import gc
import json
import multiprocessing
import os
import runpy
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
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

# What a `python` runs. Its standard output and error are those of the process that is forked.
_CLIENT = """
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b" "], [1, 2])
    asked = sys.argv[1:], os.getcwd(), dict(os.environ)
    server.sendall(json.dumps(asked).encode() + b"\\n")
    sys.exit(int(server.recv(9) or 1))
"""


def fork(module: str, options: tuple[str, ...], out: Path, cwd: Path, env: dict) -> BaseProcess:
    """Start `python -m module` in `cwd` as the leader of a group; what it prints goes to `out`.

    It has `interpreter` for its own interpreter.
    """
    with open(out, "wb") as file:
        return _start(["-m", module, *options], cwd, env, [file.fileno()] * 2, interpreter())


def start(module: str, *options: str, out: Path = Path(os.devnull)) -> BaseProcess:
    """The same in the folder and the environment of this process."""
    return fork(module, options, out, Path.cwd(), dict(os.environ))


@functools.cache
def interpreter() -> str:
    """The path of a `python` that is forked from the server too, and is killed where it is.

    It knows `-m MODULE` and `SCRIPT`, each with options.
    """
    with mock.patch.dict(os.environ, _environment, clear=True):
        forkserver.ensure_running()
    folder = tempfile.mkdtemp(prefix="python-", dir="/tmp")  # paths of sockets are short
    atexit.register(shutil.rmtree, folder)
    python, client, address = (f"{folder}/{name}" for name in ("python", "client.py", "socket"))
    Path(client).write_text(_CLIENT.format(address=address))
    Path(python).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -IS {client} "$@"\n')
    Path(python).chmod(0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    Thread(target=_listen, args=(listener, python), daemon=True).start()
    return python


def _listen(listener, python):
    while True:
        client, _ = listener.accept()
        Thread(target=_answer, args=(client, python), daemon=True).start()


def _answer(client, python):
    with client:
        _, out, *_ = socket.recv_fds(client, 1, 2)
        process = _start(*json.loads(client.makefile().readline()), out, python)
        for number in out:
            os.close(number)
        if client in connection.wait([process.sentinel, client]):  # it was killed
            os.killpg(process.pid, signal.SIGKILL)
            return
        process.join()
        client.sendall(str(process.exitcode % 256).encode())


def _start(command, cwd, env, out, python):
    ends = [connection.Connection(os.dup(number)) for number in out]  # which reach the server
    process = _context.Process(target=_run, args=(command, cwd, env, ends, python))
    process.start()
    return process


def _run(command, cwd, env, out, python):
    gc.freeze()  # what the server has imported
    os.setsid()
    for number, end in enumerate(out, 1):
        os.dup2(end.fileno(), number)
        end.close()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None  # what the server has imported has asked for its own
    folders = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    installed = [path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix))]
    sys.path[:] = [str(cwd), *folders, *installed]
    sys.executable = python
    as_module = command[0] == "-m"
    sys.argv = command[as_module:]
    run = functools.partial(runpy.run_module, alter_sys=True) if as_module else runpy.run_path
    run(sys.argv[0], run_name="__main__")
