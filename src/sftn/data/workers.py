"""Worker processes that carry orders out one after the other, by torch's DataLoader; what becomes of them in a line."""

from __future__ import annotations

import errno
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from sftn.errors import InputError

PREFETCH = 2
"""Results that wait for each worker."""


class Failed(NamedTuple):
    """An `InputError` of a worker: as an exception it would come with the worker's traceback."""

    message: str


class Pool:
    """Carries orders out, in order, by worker processes that stay until it is gone; by none if `workers` is 0.

    Args:
        maker: `maker[order]` is the result, or `Failed`; it is sent to every worker.
        workers: how many.
        context: how they start (fork, spawn, forkserver); None for the system's way.

    Raises:
        InputError: a negative number of workers.
    """

    def __init__(self, maker: Any, workers: int, context: str | None = None) -> None:
        if workers < 0:
            raise InputError(f"workers {workers}: give at least 0")
        self._maker, self._workers, self._context = maker, workers, context
        self._orders = _Orders()
        self._loader: DataLoader[Any] | None = None

    def made(self, orders: Iterable[Any]) -> Iterator[Any]:
        """What comes of each order.

        Raises:
            InputError: an image cannot be read, a worker died, or files cannot be opened any more.
        """
        here = (self._maker[order] for order in orders)
        for one in self._by_workers(orders) if self._workers else here:
            if isinstance(one, Failed):
                raise InputError(one.message)
            yield one

    def _by_workers(self, orders: Iterable[Any]) -> Iterator[Any]:
        self._orders.now = orders
        try:
            if self._loader is None:
                self._loader = _loader(self._maker, self._orders, self._workers, self._context)
            yield from _begun(self._loader)
        except (RuntimeError, OSError, EOFError) as error:
            self._loader = None
            said = _explained(error)
            if said is None:
                raise
            raise InputError(said) from error


class _Orders:
    """What a DataLoader takes for its sampler: the orders of the moment."""

    now: Iterable[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.now)

    def __len__(self) -> int:
        raise TypeError("nobody knows how many orders will come")


def _as_it_is(made: Any) -> Any:
    return made


def _loader(maker: Any, orders: _Orders, workers: int, context: str | None) -> DataLoader[Any]:
    with _silent():
        return DataLoader(
            maker,
            batch_size=None,
            sampler=orders,
            num_workers=workers,
            prefetch_factor=PREFETCH,
            persistent_workers=True,
            collate_fn=_as_it_is,
            multiprocessing_context=context,
            generator=torch.Generator(),  # or it would draw from the global one
        )


def _begun(loader: DataLoader[Any]) -> Iterator[Any]:
    """An iterator over what workers make, without torch's handler of SIGCHLD.

    It would raise wherever the main thread is when a worker dies. The iterator notices by itself, within seconds.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    try:
        with _silent():
            return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)


@contextmanager
def _silent() -> Iterator[None]:
    """Without torch's warning of more workers than cores: their number was asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        yield


def _explained(error: Exception) -> str | None:
    """What has become of the workers, in a line; None if it is something else."""
    text = str(error)
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE) or "open files" in text or "ancdata" in text:
        return "too many files are open to talk with the workers: raise the limit (ulimit -n) or give fewer --workers"
    if getattr(error, "errno", None) in (errno.EAGAIN, errno.ENOMEM):
        return f"no worker can be started ({getattr(error, 'strerror', '')}): give fewer --workers"
    gone = isinstance(error, ConnectionError | EOFError) or "exited unexpectedly" in text or "killed by signal" in text
    if gone:
        return (
            "a worker that reads images died (killed, or out of memory or of /dev/shm): "
            "the same command goes on from the last checkpoint; fewer --workers take less memory, 0 takes none"
        )
    return None
