"""Where and how precisely to compute: Lightning Fabric, with `auto` settled once and by name."""

from __future__ import annotations

import ctypes
import functools
import logging
import platform
from typing import TYPE_CHECKING

import torch

from sftn.errors import InputError, unknown

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PRECISIONS = {"float32": "32-true", "bf16": "bf16-mixed", "float16": "16-mixed"}
"""Our names and Fabric's; losses are float32 in all of them."""
HALVES = {"bf16": torch.bfloat16, "float16": torch.float16}
"""What autocast computes in."""


def settle_precision(precision: str, device: str = "auto") -> str:
    """`auto` -> bf16 where the hardware computes in it, else float32; other names are checked and kept.

    Raises:
        InputError: the name is unknown, or float16 is asked of a CPU.
    """
    if precision == "auto":
        return "bf16" if _has_bf16(device) else "float32"
    if precision not in PRECISIONS:
        raise unknown("precision", precision, ["auto", *PRECISIONS])
    if precision == "float16" and _accelerator(device) == "cpu":
        raise InputError("precision float16 needs a GPU: use bf16 or float32")
    return precision


def make_fabric(device: str = "auto", precision: str = "auto") -> Fabric:
    """A launched Fabric on one device.

    Args:
        device: auto, cpu, cuda or mps.
        precision: auto, float32, bf16 or float16.

    Raises:
        InputError: the device is unknown or not there, or the precision is unknown.
    """
    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces what our own lines already say

    fabric = Fabric(
        accelerator=_accelerator(device),
        devices=1,
        precision=PRECISIONS[settle_precision(precision, device)],  # type: ignore[arg-type]
    )
    fabric.launch()
    if fabric.device.type == "cpu":
        _keep_freed_memory()
    return fabric


@functools.cache
def _keep_freed_memory() -> None:
    """Let glibc keep the memory of freed activations for the next step instead of giving it back to the system.

    Blocks above 32 MB are otherwise mapped, and every page of them faulted in, anew at each step: a step of
    wrn_40_2→wrn_16_2 on 256 images took 1.4 times as long. The process then keeps what it once needed.
    """
    if platform.libc_ver()[0] == "glibc":
        no_mmap, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
        libc = ctypes.CDLL(None)
        libc.mallopt(no_mmap, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def _accelerator(device: str) -> str:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return "cuda" if there["cuda"] else "mps" if there["mps"] else "cpu"
    if device not in there:
        raise unknown("device", device, ["auto", *there])
    if not there[device]:
        raise InputError(f"device {device} is not there: use --device auto or cpu")
    return device


def _has_bf16(device: str) -> bool:
    accelerator = _accelerator(device)
    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return accelerator == "cpu" and _cpu_has_bf16()


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 itself (AVX512-BF16 or AMX); emulated it is slower than float32."""
    capabilities = torch.backends.cpu.get_cpu_capability()
    return capabilities.startswith("AVX512") and torch.cpu._is_avx512_bf16_supported()
