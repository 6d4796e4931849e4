"""What is called while a phase is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Callback(Protocol):
    """Hears of a phase's start, of every step and of every epoch."""

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        """A phase begins, `done` of its epochs are already there."""

    def step(self, step: int) -> None:
        """So many steps of the epoch are done."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is over; `row` is its line of the log."""
