"""What torch can compute on."""

from unittest.mock import Mock

import pytest
import torch

from benchmarks.common import devices
from benchmarks.common.errors import DataError


def test_a_promised_gpu_is_one_that_torch_can_use(monkeypatch):
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda n, device: ones(n))
    devices.require_gpu()
    for error in (RuntimeError("CUDA error: out of order\nat a place"), AssertionError()):
        monkeypatch.setattr(torch, "ones", Mock(side_effect=error))
        with pytest.raises(DataError, match="(out of order|AssertionError)[)]"):
            devices.require_gpu()


def test_a_cpu_has_a_name_and_a_peak():
    assert devices.find() == "cpu" and devices.name("cpu").startswith("CPU")
    devices.reset_peak("cpu")
    before = devices.peak_bytes("cpu")
    filled = torch.ones(2**26)  # 256 MiB
    assert devices.peak_bytes("cpu") >= before + filled.nbytes // 2
    assert devices.tf32("cpu") is None
