"""CUDA graphs, which record a training step once and replay it."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Protocol
from weakref import WeakSet

import torch
from torch import Tensor

from sftn.errors import InputError

WARM = 3
"""Steps taken before one is recorded, in which libraries choose their algorithms and allocate memory."""
Seen = tuple[Tensor, Tensor]
"""What a step leaves for the sentinel: `Sentinel.see`'s return value."""


class HostSync(Exception):
    """A step makes the host wait for the device, so it cannot be recorded."""


class Graph(Protocol):
    """Records a function of tensors with fixed addresses, and replays its effect on them."""

    def warm(self, function: Callable[[], Seen]) -> None:
        """Call the function `WARM` times.

        Raises:
            HostSync: the function waits for the device.
        """

    def record(self, function: Callable[[], Seen]) -> Seen:
        """Record the function; returns the tensors that every replay writes its results to."""

    def replay(self) -> None:
        """Repeat the recorded function."""


class CudaGraph:
    """A `torch.cuda.CUDAGraph`.

    Graphs of one process, as in a cohort, share their memory: each writes everything there before it reads it, and its
    results are copied before another graph runs.
    """

    _alive: ClassVar[WeakSet[CudaGraph]] = WeakSet()

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    def warm(self, function: Callable[[], Seen]) -> None:
        """Call the function on a side stream, as recording requires; the last call must not wait for the device."""
        with _aside():
            for _ in range(WARM - 1):
                function()
            with _no_waiting():
                function()

    def record(self, function: Callable[[], Seen]) -> Seen:
        """Capture the function.

        Raises:
            InputError: the function cannot be captured.
        """
        other = next(iter(CudaGraph._alive), None)
        pool = None if other is None else other._graph.pool()
        gc.collect()  # no other graph may be destroyed during a capture
        with _aside() as stream:
            failed: list[RuntimeError] = []  # ending a failed capture raises another error
            try:
                with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                    try:
                        seen = function()
                    except RuntimeError as error:
                        failed.append(error)
                        raise
            except RuntimeError as error:
                cause = (failed or [error])[0]
                if isinstance(cause, torch.OutOfMemoryError):
                    raise cause from None
                raise InputError(f"a step cannot be captured ({line(cause)}): leave --cuda-graphs out") from cause
        CudaGraph._alive.add(self)
        return seen

    def replay(self) -> None:
        """Launch the recorded kernels."""
        self._graph.replay()


GRAPHS: dict[str, Callable[[], Graph]] = {"cuda": CudaGraph}
"""Graph implementations by kind of device."""


_STREAMS: dict[int, torch.cuda.Stream] = {}


@contextmanager
def _aside() -> Iterator[torch.cuda.Stream]:
    """Work on a side stream, the same one for all graphs, because they share their memory."""
    device, current = torch.cuda.current_device(), torch.cuda.current_stream()
    stream = _STREAMS.setdefault(device, torch.cuda.Stream())
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield stream
    current.wait_stream(stream)


@contextmanager
def _no_waiting() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns that this debug mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    except RuntimeError as error:
        if "synchroniz" not in str(error):  # PyTorch gives this error no type of its own
            raise
        raise HostSync(line(error)) from error
    finally:
        torch.cuda.set_sync_debug_mode(before)


def line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
