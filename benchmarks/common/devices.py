"""The device that a process trains on: its name, clock, memory and precision."""

from __future__ import annotations

import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from benchmarks.common.errors import FaultyGPU

# In errors of CUDA and its libraries: what any GPU would say.
ASKED = ("device-side assert", "out of memory", "ALLOC_FAILED", "INVALID_VALUE")
ASKED += ("NOT_SUPPORTED", "BAD_PARAM")
TEST_BATCH_SIZE = 128  # items tested at a time where a suite says none


def find() -> str:
    """The GPU where torch sees one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def require_gpu() -> None:
    """Start CUDA, for a process that was promised a GPU.

    Raises:
        FaultyGPU: torch cannot compute on it.
    """
    try:
        torch.ones(1, device="cuda").item()
    except (AssertionError, RuntimeError) as error:  # without CUDA torch asserts
        reason = str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise FaultyGPU(
            f"this run was promised a GPU, but torch cannot use one ({reason}): it did not start "
            f"and lost nothing, mend the driver or run it on another machine"
        ) from error


def is_fault(error: BaseException) -> bool:
    """Whether an error tells of the GPU or its driver, and not of what it was asked to do.

    An index out of range stops a GPU, too, but does so on every machine; memory that does not
    suffice is a fault of the run, and leaves the GPU usable.
    """
    text = str(error)
    asked = isinstance(error, torch.OutOfMemoryError) or any(words in text for words in ASKED)
    said = any(words in text for words in ("CUDA error", "CUDA driver error", "_STATUS_"))
    return not asked and (isinstance(error, torch.AcceleratorError) or said)


def synchronise(device: str) -> None:
    """Wait until a GPU has done what it was asked, before a clock is read."""
    if device == "cuda":
        torch.cuda.synchronize()


def release() -> None:
    """Give back the memory of what this process no longer uses."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def reset_peak(device: str) -> None:
    """Peak memory counts from here on."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):  # then the peak is that of the whole process
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: str) -> int:
    """Peak memory since the last reset: allocated on the GPU, resident on the CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def tf32(device: str) -> dict | None:
    """Where float32 work may lose 13 bits of precision to TF32 on this GPU: torch's defaults."""
    if device == "cpu":
        return None
    return {
        "matmul": torch.get_float32_matmul_precision() != "highest",
        "convolution": torch.backends.cudnn.allow_tf32,
    }


def name(device: str) -> str:
    """The GPU's or the CPU's, as its maker calls it; nothing of the machine around it."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"CPU, {line.partition(':')[2].strip()}"
    return "CPU"
