"""The callback protocol of the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Callback(Protocol):
    """Called at a phase's start, after every step and after every epoch."""

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        """Called when a phase begins or resumes; `done` of its epochs are already trained."""

    def step(self, step: int) -> None:
        """Called after a step; `step` of them are done in this epoch."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Called after an epoch; `row` is its line of the log."""
