"""Device and precision: sets up Lightning Fabric, with `auto` resolved to a name once."""

from __future__ import annotations

import ctypes
import functools
import inspect
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from sftn.errors import InputError, unknown
from sftn.runtime import processes

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PRECISIONS = {"float32": "32-true", "bf16": "bf16-mixed", "float16": "16-mixed"}
"""Precisions by our names, with Fabric's; losses are float32 in all of them."""
HALVES = {"bf16": torch.bfloat16, "float16": torch.float16}
"""Dtypes of the half precisions, in which autocast computes."""


def settle_precision(precision: str, device: str = "auto") -> str:
    """Resolve `auto` to bf16 if the hardware supports it and to float32 if not; other names are checked and returned.

    Raises:
        InputError: the name is unknown, or float16 is combined with a CPU.
    """
    if precision == "auto":
        return "bf16" if _has_bf16(device) else "float32"
    if precision not in PRECISIONS:
        raise unknown("precision", precision, ["auto", *PRECISIONS])
    if precision == "float16" and accelerator(device) == "cpu":
        raise InputError("precision float16 needs a GPU: use bf16 or float32")
    return precision


def join(device: str, devices: int, nodes: int) -> None:
    """Start the processes that train together, or connect to them if a launcher did; further calls do nothing.

    Without a launcher, each new process repeats this program's command line from its beginning up to this call.

    Args:
        device: auto, cpu, cuda or mps.
        devices: processes on each machine, one per device.
        nodes: number of machines.

    Raises:
        InputError: there are too few devices, a launcher started another number of processes, or they cannot connect.
    """
    processes.check(accelerator(device), devices, nodes)
    if devices * nodes > 1 and not dist.is_initialized():
        make_fabric(device, "float32", devices, nodes)


def make_fabric(device: str = "auto", precision: str = "auto", devices: int = 1, nodes: int = 1) -> Fabric:
    """A launched Fabric for this process's device, and for its share of the work if `join` has started several.

    Args:
        device: auto, cpu, cuda or mps.
        precision: auto, float32, bf16 or float16.
        devices: processes on each machine.
        nodes: number of machines.

    Raises:
        InputError: the device is unknown or not available, or the precision is unknown.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # its announcements repeat our own messages

    several = devices * nodes > 1
    # Buffers are equal anyway, and CRD's banks would be sent at every step. A parameter that the loss does not use, as
    # a foreign network may have, is no error: the unused ones are the same at every step.
    new = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters  # PyTorch 2.13 and later
    how: dict[str, Any] = {"forward_sync_buffers" if new else "broadcast_buffers": False, "static_graph": True}
    averaged = DDPStrategy(timeout=timedelta(seconds=processes.SILENCE), **how)
    fabric = Fabric(
        accelerator=accelerator(device),
        strategy=averaged if several else "auto",
        devices=devices,
        num_nodes=nodes,
        precision=PRECISIONS[settle_precision(precision, device)],  # type: ignore[arg-type]
    )
    if several:
        processes.start(fabric)
    else:
        fabric.launch()
    if fabric.device.type == "cpu":
        _keep_freed_memory()
    return fabric


@contextmanager
def repeatable(asked: bool = True) -> Iterator[None]:
    """A context in which a GPU, too, computes the same bits from the same seed on the same machine, more slowly.

    A CPU does so anyway, with the same number of threads. cuBLAS reads its setting when it first computes: enter this
    context before anything else has used the GPU.

    Raises:
        InputError: PyTorch has no deterministic implementation of an operation.
    """
    if not asked:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):  # PyTorch gives this error no type of its own
            raise
        what = str(error).split(". ")[0]
        raise InputError(f"{what}: leave --deterministic out, or train on --device cpu") from error
    finally:
        torch.use_deterministic_algorithms(before)


def wait(device: torch.device) -> None:
    """Wait until a CUDA device has finished its work; other devices are not waited for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@functools.cache
def _keep_freed_memory() -> None:
    """Let glibc keep the memory of freed activations for the next step instead of returning it to the system.

    By default, blocks above 32 MB are mapped again at each step and every page is faulted in: a step of
    wrn_40_2→wrn_16_2 on 256 images took 1.4 times as long. With this, the process keeps its peak memory.
    """
    if platform.libc_ver()[0] == "glibc":
        no_mmap, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
        libc = ctypes.CDLL(None)
        libc.mallopt(no_mmap, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def accelerator(device: str) -> str:
    """Resolve a device name to its kind: cpu, cuda or mps.

    Raises:
        InputError: the device is unknown or not available.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return "cuda" if there["cuda"] else "mps" if there["mps"] else "cpu"
    if device not in there:
        raise unknown("device", device, ["auto", *there])
    if not there[device]:
        raise InputError(f"device {device} is not available: use --device auto or cpu")
    return device


def _has_bf16(device: str) -> bool:
    kind = accelerator(device)
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and _cpu_has_bf16()


def _cpu_has_bf16() -> bool:
    """Whether the CPU supports bf16 in hardware (AVX512-BF16 or AMX); emulation is slower than float32."""
    capabilities = torch.backends.cpu.get_cpu_capability()
    return capabilities.startswith("AVX512") and torch.cpu._is_avx512_bf16_supported()
