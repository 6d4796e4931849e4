"""What records a step: a CUDA graph, or where there is none something that does it again."""

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


class Waits(Exception):
    """A step waits for the device."""


class Graph(Protocol):
    """Records a function of tensors that stay where they are, and repeats what it did to them."""

    def warm(self, function: Callable[[], Seen]) -> None:
        """Call it `WARM` times.

        Raises:
            Waits: it waits for the device.
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
                raise InputError(f"a step cannot be captured ({line(cause)}): use --step eager") from cause
        CudaGraph._alive.add(self)
        return seen

    def replay(self) -> None:
        """Launch."""
        self._graph.replay()


class Rerun:
    """Calls the function again: stands in for a graph where there is none, to see that nothing else than static tensors
    carries over from step to step."""

    def warm(self, function: Callable[[], Seen]) -> None:
        """Call it."""
        for _ in range(WARM):
            function()

    def record(self, function: Callable[[], Seen]) -> Seen:
        """Call it once more."""
        self._function, self._seen = function, function()
        return self._seen

    def replay(self) -> None:
        """Call it, and leave what it gives where `record` left it."""
        for static, value in zip(self._seen, self._function()):
            static.copy_(value)


GRAPHS: dict[str, type[CudaGraph] | type[Rerun]] = {"cuda": CudaGraph}
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
        if "synchroniz" not in str(error):
            raise
        raise Waits(line(error)) from error
    finally:
        torch.cuda.set_sync_debug_mode(before)


def line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
