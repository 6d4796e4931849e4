"""Memory that is not there, told in one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from sftn.errors import InputError

_UNTYPED = re.compile(r"DefaultCPUAllocator|out of memory|_STATUS_ALLOC_FAILED")
"""Memory errors that are bare RuntimeErrors: PyTorch's CPU allocator; MPS, and CUDA outside of PyTorch's allocator;
cuBLAS and cuDNN. The rest is MemoryError or torch.OutOfMemoryError."""


@contextmanager
def memory(device: str, where: Callable[[], str], advice: str) -> Iterator[None]:
    """Memory that is not there, on a GPU or beside it.

    Nothing is made smaller behind anybody's back: batch norms and losses that compare images see the whole batch, so
    half of it at a time would be another training.

    Args:
        device: on which one it runs.
        where: how far it has come.
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
        more = f", {wanted[1]} more were wanted" if wanted else ""
        raise InputError(
            f"out of memory on {device}, {where()}: {_allocated(device)}{more}; {advice}; what was saved stays, and "
            "the same command resumes from there"
        ) from error


def _allocated(device: str) -> str:
    if device.startswith("cuda"):
        used, there = torch.cuda.memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
        return f"{used / 2**30:.1f} of its {there / 2**30:.1f} GiB are in use here"
    try:
        import resource
    except ImportError:  # Windows
        return "the process cannot get more"
    return f"the process had up to {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"
