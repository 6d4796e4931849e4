"""SIGTERM and Ctrl-C where nothing is being trained: a command ends with the same codes as in the middle of a run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sftn.errors import Stopped


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
