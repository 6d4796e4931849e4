"""How much of a list of runs is done, and how long the rest takes at the pace so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sftn.spec.run import Run

MAIN = {"train", "distil"}
"""Phases whose epochs count; first stages are a part of the time that their run takes."""


class Pace:
    """Follows runs that are carried out side by side or one by one.

    Args:
        runs: all runs.
        seconds: of each run by its id, as estimated before; without an estimate, runs cost as much as their epochs.
        at_once: how many are carried out at once.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        seconds: Mapping[str, float] | None = None,
        at_once: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.ended = len(runs), 0
        self._estimated = bool(seconds)
        self._costs = {run.id: (seconds or {}).get(run.id, 0.0 if seconds else run.schedule.epochs) for run in runs}
        self._base = dict.fromkeys(self._costs, 0.0)
        self._now = dict.fromkeys(self._costs, 0.0)
        self._epochs = dict.fromkeys(self._costs, 1)
        self._running: set[str] = set()
        self._at_once, self._clock, self._began = at_once, clock, clock()

    def begin(self, runs: Collection[str]) -> None:
        """Some runs begin."""
        self._running |= set(runs)

    def tell(self, runs: Collection[str], kind: str, content: Sequence[Any]) -> None:
        """A group of runs reports the `start` of a phase or the end of an `epoch`, as to a callback."""
        for run in runs:
            if kind == "start" and content[0] in MAIN:
                _, self._epochs[run], _, done = content
                self._base[run] = self._now[run] = done / self._epochs[run]
            elif kind == "epoch" and content[0]["phase"] in MAIN:
                self._now[run] = content[0]["epoch"] / self._epochs[run]

    def end(self, run: str, *, trained: bool) -> None:
        """A run is done, whoever trained it, or has failed."""
        self.ended += 1
        self._running.discard(run)
        self._now[run] = 1.0
        if not trained:
            self._base[run] = 1.0

    def left(self) -> float | None:
        """Seconds until all runs are done; None as long as nothing tells."""
        rest = sum(cost * (1 - self._now[run]) for run, cost in self._costs.items())
        trained = sum(cost * (self._now[run] - self._base[run]) for run, cost in self._costs.items())
        spent = self._clock() - self._began
        if trained > 0 and spent > 0:
            return rest * spent / trained
        return rest / self._at_once if self._estimated else None

    def __str__(self) -> str:
        """In words: `run 3 of 15, 14 min left in all`."""
        first, last = self.ended + 1, self.ended + max(1, len(self._running))
        which = f"run {first}" if first == last else f"runs {first} to {last}"
        left = self.left()
        return f"{which} of {self.total}" + ("" if left is None else f", {_words(left)} left in all")


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
