"""Runs that are being carried out, as seen from outside: their callbacks, and how far all of them are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

from sftn.experiments.grid import Planned
from sftn.experiments.pace import Pace
from sftn.training.callback import Callback

logger = logging.getLogger(__name__)
Watch = Callable[[str], AbstractContextManager[Callback]]
"""Gives the callback of a group of runs, from its title."""


class Told:
    """Follows the pace of all runs, and tells it."""

    def __init__(self, pace: Pace, overall: Callable[[str], None] | None) -> None:
        self.pace, self._overall = pace, overall

    def begin(self, group: Sequence[Planned]) -> None:
        """A group begins to train."""
        self.pace.begin([item.run.id for item in group])

    def __call__(self, group: Sequence[Planned], kind: str, content: Sequence[Any]) -> None:
        """A group reports a `start`, `step` or `epoch`."""
        if kind != "step":
            self.pace.tell([item.run.id for item in group], kind, content)
            if self._overall is not None:
                self._overall(str(self.pace))


class Group:
    """Runs that a worker is at, and whoever watches them."""

    def __init__(self, items: list[Planned], watch: Watch | None, ends: ExitStack, told: Told) -> None:
        self.items, self.began, self._told = items, False, told
        self._watched = nullcontext() if watch is None else watch(title_of(items))
        self._callback = self._watched.__enter__()
        ends.callback(self.close)
        self._open = True

    def told(self, kind: str, content: Any) -> bool:
        """Hand on what a worker tells; whether that was the last."""
        if kind == "log":
            logger.log(*content)
        elif kind in ("done", "died"):
            return True
        else:
            if not self.began:
                self._told.begin(self.items)
            self.began = True
            self._told(self.items, kind, content)
            if self._callback is not None:
                getattr(self._callback, kind)(*content)
        return False

    def close(self) -> None:
        """Nobody watches any more."""
        if self._open:
            self._open = False
            self._watched.__exit__(None, None, None)


class Noted:
    """A callback that notes whether this process trained anything, and passes everything on."""

    def __init__(self, told: Told, group: Sequence[Planned]) -> None:
        self.began, self._told, self._group = False, told, group
        self._other: Callback | None = None

    def beside(self, other: Callback | None) -> Noted:
        """Pass everything on to `other`."""
        self._other = other
        return self

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        """A phase begins."""
        if not self.began:
            self._told.begin(self._group)
        self.began = True
        self._told(self._group, "start", (phase, epochs, steps, done))
        if self._other is not None:
            self._other.start(phase, epochs, steps, done)

    def step(self, step: int) -> None:
        """So many steps of the epoch are done."""
        if self._other is not None:
            self._other.step(step)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is over."""
        self._told(self._group, "epoch", (row,))
        if self._other is not None:
            self._other.epoch(row)


def title_of(group: Sequence[Planned]) -> str:
    """The title of runs that are carried out together."""
    more = f" and {len(group) - 1} more" * (len(group) > 1)
    return f"{group[0].title}, seed {group[0].run.seed}{more}"
