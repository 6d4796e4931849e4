"""Training as a person sees it: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Display:
    """A callback for people. Use it as a context manager around one or more runs.

    Args:
        console: where to write; its `is_terminal` decides between a live bar and plain lines.
        seconds: the least time between two plain lines of a phase.
    """

    def __init__(self, console: Console, seconds: float = 15.0) -> None:
        self.console = console
        self.seconds = seconds
        self.title = ""
        self._bar: Progress | None = None
        self._task: Any = None
        self._steps = self._epochs = self._epoch = 0
        self._spoke = 0.0

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        """A phase begins."""
        self._steps, self._epochs, self._epoch = steps, epochs, done
        self._spoke = time.monotonic()
        if done:
            self.console.print(f"  {phase}: going on after epoch {done} of {epochs}", highlight=False)
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(
                f"{self.title} {phase}".strip(), total=epochs * steps, completed=done * steps, note=""
            )

    def step(self, step: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=self._epoch * self._steps + step)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Say what the epoch brought."""
        self._epoch = row["epoch"]
        note = f"loss {row['loss']:.3f}"
        if "test_accuracy" in row:
            note += f", test {row['test_accuracy']:.1f} %"
        note += f", {row['images_per_second']:.0f} images/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=self._epoch * self._steps, note=note)
        elif time.monotonic() - self._spoke >= self.seconds:
            self._spoke = time.monotonic()
            left = (self._epochs - self._epoch) * row["seconds"]
            line = f"  {row['phase']} epoch {self._epoch}/{self._epochs}: {note}, {_duration(left)} left"
            self.console.print(line, highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
