"""Worker processes that carry out orders in sequence, on top of torch's DataLoader, with one-line errors."""

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
"""Results that are queued per worker."""


class Failed(NamedTuple):
    """The message of a worker's `InputError`, which as an exception would carry the worker's traceback."""

    message: str


class Pool:
    """Carries out orders in sequence, in worker processes that live as long as the pool.

    Args:
        maker: `maker[order]` is the result, or `Failed`; it is sent to every worker.
        workers: number of processes; 0 to work in this one.
        context: start method of the workers (fork, spawn, forkserver); None for the system's default.

    Raises:
        InputError: the number of workers is negative.
    """

    def __init__(self, maker: Any, workers: int, context: str | None = None) -> None:
        if workers < 0:
            raise InputError(f"workers {workers}: give at least 0")
        self._maker, self._workers, self._context = maker, workers, context
        self._orders = _Orders()
        self._loader: DataLoader[Any] | None = None

    def made(self, orders: Iterable[Any]) -> Iterator[Any]:
        """Yield the result of each order.

        Raises:
            InputError: an image cannot be read, a worker died, or too many files are open.
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
    """A sampler for the DataLoader that yields the current orders."""

    now: Iterable[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.now)

    def __len__(self) -> int:
        raise TypeError("the number of orders is unknown")


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
            generator=torch.Generator(),  # else it draws from the global one
        )


def _begun(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start iterating over the workers' results, without torch's handler of SIGCHLD.

    That handler raises wherever the main thread is when a worker dies; the iterator itself notices within seconds.
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
    """Suppress torch's warning about more workers than cores, because the user chose their number."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        yield


def _explained(error: Exception) -> str | None:
    """Explain in one line what happened to the workers; None for unrelated errors."""
    text = str(error)
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE) or "open files" in text or "ancdata" in text:
        return "too many files are open to talk to the workers: raise the limit (ulimit -n) or give fewer --workers"
    if getattr(error, "errno", None) in (errno.EAGAIN, errno.ENOMEM):
        return f"no worker can be started ({getattr(error, 'strerror', '')}): give fewer --workers"
    gone = isinstance(error, ConnectionError | EOFError) or "exited unexpectedly" in text or "killed by signal" in text
    if gone:
        return (
            "a worker that reads images died (killed, or out of memory or of /dev/shm): "
            "the same command resumes from the last checkpoint; fewer --workers take less memory, 0 takes none"
        )
    return None
