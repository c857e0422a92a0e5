"""torch.compile for the training loop: is there a compiler, and how long did it take.

A run that is killed while it compiles may leave half a file in torch's cache, on which later runs
fail ("file too short"): delete the folder that the error names, or TORCHINDUCTOR_CACHE_DIR's.
"""

from __future__ import annotations

import time

import torch

BACKEND = "inductor"


class NoCompiler(RuntimeError):
    """`compile: true` on a machine that cannot."""


class _Stopwatch:
    seconds = 0.0

    def start(self, _) -> None:
        self._started = time.perf_counter()

    def stop(self, _) -> None:
        self.seconds += time.perf_counter() - self._started


_stopwatch = _Stopwatch()


def reset() -> None:
    """Forget what was compiled, and with it how often: torch recompiles only so many times."""
    from torch._dynamo.callback import callback_handler

    torch.compiler.reset()  # which forgets the stopwatch as well
    callback_handler.register_start_callback(_stopwatch.start)
    callback_handler.register_end_callback(_stopwatch.stop)


def seconds() -> float:
    """How long this process has compiled since the first `reset`."""
    return _stopwatch.seconds


def check(device: str) -> None:
    """Compile and run one operation; NoCompiler says what is missing, before any training."""
    reset()
    try:
        torch.compile(torch.sin, backend=BACKEND)(torch.ones(2, device=device))
    except Exception as error:
        cause = getattr(error, "inner_exception", error)  # what the backend said
        reason = str(cause).strip().splitlines()[0]
        raise NoCompiler(
            f"compile needs a C++ compiler with Python's headers, on a GPU Triton as well, but "
            f"torch.compile stopped ({reason}): install them or leave compile out"
        ) from error
