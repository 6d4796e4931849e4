"""Callbacks that keep what they are told."""

from __future__ import annotations

from typing import Any


class Rows:
    """A callback that keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.steps = 0

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        self.started = (phase, epochs, steps, done)

    def step(self, step: int) -> None:
        self.steps += 1

    def epoch(self, row: Any) -> None:
        self.rows.append(row)
