"""What records a step and repeats it: a CUDA graph."""

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
"""Steps before one is recorded, in which libraries choose their algorithms and make room."""
Seen = tuple[Tensor, Tensor]
"""What a step leaves for the sentinel."""


class HostSync(Exception):
    """A step makes the host wait for the device, so it cannot be recorded."""


class Graph(Protocol):
    """Records a function of tensors that stay where they are, and repeats what it did to them."""

    def warm(self, function: Callable[[], Seen]) -> None:
        """Call it `WARM` times.

        Raises:
            HostSync: it waits for the device.
        """

    def record(self, function: Callable[[], Seen]) -> Seen:
        """Record it; gives the tensors that each replay will leave its results in."""

    def replay(self) -> None:
        """Do what it did."""


class CudaGraph:
    """A `torch.cuda.CUDAGraph`.

    Graphs of one process, as a cohort has them, share their memory: each writes all that it reads there, and what it
    leaves is copied before another one runs.
    """

    _alive: ClassVar[WeakSet[CudaGraph]] = WeakSet()

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    def warm(self, function: Callable[[], Seen]) -> None:
        """On another stream, as recording needs it; at last with an eye on whatever waits."""
        with _aside():
            for _ in range(WARM - 1):
                function()
            with _no_waiting():
                function()

    def record(self, function: Callable[[], Seen]) -> Seen:
        """Capture.

        Raises:
            InputError: it cannot be captured.
        """
        other = next(iter(CudaGraph._alive), None)
        pool = None if other is None else other._graph.pool()
        gc.collect()  # destroying another graph meanwhile would not be allowed
        with _aside() as stream:
            failed: list[RuntimeError] = []  # ending a capture that failed fails as well
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
        """Launch."""
        self._graph.replay()


GRAPHS: dict[str, Callable[[], Graph]] = {"cuda": CudaGraph}
"""What records steps, by kind of device."""


_STREAMS: dict[int, torch.cuda.Stream] = {}


@contextmanager
def _aside() -> Iterator[torch.cuda.Stream]:
    """On a stream of its own, the same for all graphs, which is what sharing memory asks for."""
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
        warnings.simplefilter("ignore")  # that this way of finding out is a prototype
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
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
