"""Reports out-of-memory errors as one line with a remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from sftn.errors import InputError

_UNTYPED = re.compile(r"DefaultCPUAllocator|out of memory|_STATUS_ALLOC_FAILED")
"""Texts of memory errors that are plain RuntimeErrors: from PyTorch's CPU allocator; from MPS, and CUDA outside of
PyTorch's allocator; from cuBLAS and cuDNN. All others are MemoryError or torch.OutOfMemoryError."""


@contextmanager
def memory(device: str, where: Callable[[], str], advice: str) -> Iterator[None]:
    """A context that turns an out-of-memory error, on a GPU or the host, into an `InputError`.

    The batch is never reduced silently: batch norms and losses that compare images see the whole batch, so half of it
    at a time would train differently.

    Args:
        device: the device that computes.
        where: returns how far training has come.
        advice: what to change.

    Raises:
        InputError: in place of PyTorch's or Python's error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not _UNTYPED.search(str(error)):
            raise
        wanted = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
        more = f", {wanted[1]} more were needed" if wanted else ""
        raise InputError(
            f"out of memory on {device}, {where()}: {_allocated(device)}{more}; {advice}; saved state is kept, and the "
            "same command resumes from it"
        ) from error


def _allocated(device: str) -> str:
    if device.startswith("cuda"):
        used, there = torch.cuda.memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
        return f"this process uses {used / 2**30:.1f} of {there / 2**30:.1f} GiB"
    try:
        import resource
    except ImportError:  # Windows
        return "this process cannot allocate more"
    return f"this process used up to {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"
