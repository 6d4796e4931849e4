"""SIGTERM and Ctrl-C: noted while something is trained; elsewhere a command ends at once, with the same codes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from sftn.errors import Stopped

HANDED_ON = 5.0
"""Seconds in which a launcher hands on the Ctrl-C that its processes had from the terminal themselves."""


class Stop:
    """Which signal this process was sent, if any, since somebody has been minding: all that mind can share one."""

    def __init__(self) -> None:
        self.number = 0
        self._minding = 0
        self._sent = 0.0
        self._before: dict[int, Any] = {}

    @contextmanager
    def minded(self) -> Iterator[None]:
        """While this lasts for anybody, SIGTERM and the first Ctrl-C are only noted; a second one ends all at once."""
        if not self._minding:
            try:
                self._before = {which: signal.signal(which, self._ask) for which in (signal.SIGTERM, signal.SIGINT)}
            except ValueError:  # not the main thread: whoever owns that one decides
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
        from sftn.runtime.processes import handed_on  # with torch, which is there by now; `sftn --help` does without

        if not self.number:
            self.number, self._sent = number, time.monotonic()
        elif not handed_on() or time.monotonic() - self._sent > HANDED_ON:
            raise KeyboardInterrupt


@contextmanager
def sigterm() -> Iterator[None]:
    """While this lasts, outside of training, SIGTERM and Ctrl-C end what is going on at once.

    Raises:
        Stopped: SIGTERM came.
        KeyboardInterrupt: Ctrl-C did.
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
    except Exception as error:  # C code may have taken the end for an error of its own
        if came:
            raise came[0] from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
