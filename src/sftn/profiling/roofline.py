"""The machine's peak arithmetic speed and memory bandwidth, with which the speed of training is compared."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from sftn.runtime.device import HALVES, make_fabric, wait


@dataclass(frozen=True)
class Ceiling:
    """The machine's peak speed, measured with all threads."""

    product: float
    """GFLOP/s of large matrix products."""
    convolution: float
    """GFLOP/s of large 3×3 convolutions; they use another library than matrix products, and either may be faster."""
    bandwidth: float
    """GB/s of a large copy, counting bytes read and written."""

    @property
    def arithmetic(self) -> float:
        """Peak arithmetic speed in GFLOP/s: the higher of the two."""
        return max(self.product, self.convolution)


def measure_ceiling(precision: str = "float32", device: str = "auto", largest: int = 2048) -> Ceiling:
    """Measure the peak speed, as the best of a few sizes and repetitions; takes a few seconds at most."""
    where = make_fabric(device, "float32").device
    dtype = HALVES.get(precision, torch.float32)
    products, convolutions = [], []
    for size in {largest // 4, largest // 2, largest}:
        a, b = torch.randn(2, size, size, device=where).to(dtype)
        products.append(2 * size**3 / _best(partial(torch.matmul, a, b), where))
        width, side = max(8, size // 16), 16
        x = torch.randn(64, width, side, side, device=where).to(dtype, memory_format=torch.channels_last)
        w = torch.randn(width, width, 3, 3, device=where).to(dtype, memory_format=torch.channels_last)
        flop = 2 * 9 * 64 * width**2 * side**2
        convolutions.append(flop / _best(partial(F.conv2d, x, w, padding=1), where))
    source = torch.zeros(4 * largest**2, device=where)  # larger than any cache
    target = torch.empty_like(source)
    copied = 2 * source.numel() * 4 / _best(lambda: target.copy_(source), where)
    return Ceiling(max(products) / 1e9, max(convolutions) / 1e9, copied / 1e9)


def machine() -> str:
    """A description of the machine, with threads, torch version and date, for the record of a measurement."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"


def _best(function: Callable[[], Any], device: torch.device, repeats: int = 6) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        wait(device)
        times.append(time.perf_counter() - began)
    return min(times)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
