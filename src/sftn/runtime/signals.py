"""SIGTERM and Ctrl-C: deferred during training; at other times they end a command at once, with the same exit codes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from sftn.errors import Stopped

HANDED_ON = 5.0
"""Seconds within which a launcher forwards a Ctrl-C that its processes got from the terminal as well."""


class Stop:
    """The signal that this process received, if any, while signals are deferred; several users can share one object."""

    def __init__(self) -> None:
        self.number = 0
        self._minding = 0
        self._sent = 0.0
        self._before: dict[int, Any] = {}

    @contextmanager
    def minded(self) -> Iterator[None]:
        """While any such context is open, SIGTERM and the first Ctrl-C are only noted; a second one ends everything."""
        if not self._minding:
            try:
                self._before = {which: signal.signal(which, self._ask) for which in (signal.SIGTERM, signal.SIGINT)}
            except ValueError:  # not the main thread, which alone may set handlers
                self._before = {}
        self._minding += 1
        try:
            yield
        finally:
            self._minding -= 1
            if not self._minding:
                for which, handler in self._before.items():
                    signal.signal(which, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        from sftn.runtime.processes import handed_on  # imports torch, loaded by now; `sftn --help` must not load it

        if not self.number:
            self.number, self._sent = number, time.monotonic()
        elif not handed_on() or time.monotonic() - self._sent > HANDED_ON:
            raise KeyboardInterrupt


@contextmanager
def sigterm() -> Iterator[None]:
    """A context, outside of training, in which SIGTERM and Ctrl-C end the work at once.

    Raises:
        Stopped: on SIGTERM.
        KeyboardInterrupt: on Ctrl-C.
    """
    came: list[Stopped | KeyboardInterrupt] = []

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(Stopped(number) if number == signal.SIGTERM else KeyboardInterrupt())
        raise came[-1]

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    except Exception as error:  # C code may have replaced the exception with its own
        if came:
            raise came[0] from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
