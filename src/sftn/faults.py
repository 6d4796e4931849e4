"""What goes wrong around training and a person can mend: files that cannot be written, memory that is not there."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sftn.errors import InputError

_REMEDIES = {
    errno.EROFS: "make it writable or choose another --out",
    errno.EACCES: "make it writable or choose another --out",
    errno.EPERM: "make it writable or choose another --out",
    errno.EMFILE: "raise the limit on open files, e.g. ulimit -n 4096",
    errno.ENFILE: "close other programs or raise the system's limit on open files",
    errno.EIO: "look after the disk",
}
_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED"
)


def cannot(verb: str, path: Path, error: OSError) -> InputError:
    """The error that names a file or folder and what to do about it.

    Args:
        verb: what was tried, such as "write".
        path: of what.
        error: what the system said.
    """
    remedy = _REMEDIES.get(error.errno or 0, "free space there or choose another --out")
    return InputError(f"cannot {verb} {path}: {error.strerror or error}; {remedy}, the same command then goes on")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever cannot be written while this lasts.

    Raises:
        InputError: in place of the system's error.
    """
    try:
        yield
    except OSError as error:
        raise cannot("write", path, error) from error


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
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not _MEMORY.search(str(error)):
            raise
        wanted = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
        more = f", {wanted[1]} more were wanted" if wanted else ""
        raise InputError(
            f"out of memory on {device}, {where()}: {_allocated(device)}{more}; {advice}; what was saved stays, and "
            "the same command goes on from there"
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
