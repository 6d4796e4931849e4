"""Progress of training: a live bar per run on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

WIDE = 140
"""Columns of a terminal from which bars are drawn, and losses and speeds shown."""


class Display:
    """The progress display shared by all runs of a process: bars on a terminal, or plain lines.

    Args:
        console: where to write; its `is_terminal` decides between live bars and plain lines.
        seconds: minimum time between two plain lines of a run.
    """

    def __init__(self, console: Console, seconds: float = 15.0) -> None:
        self.console, self.seconds = console, seconds
        self._bars: Progress | None = None
        self._open = 0
        self.all = ""
        """How far all runs are, in words; empty for a single run."""

    @contextmanager
    def watch(self, title: str) -> Iterator[Line]:
        """A context in which a run is shown; several runs can be shown at once."""
        if self._bars is None and self.console.is_terminal:
            self._bars = _Bars(self)
            self._bars.start()
        self._open += 1
        line = Line(self, title)
        try:
            yield line
        finally:
            line.clear()
            self._open -= 1
            if not self._open and self._bars is not None:
                self._bars.stop()
                self._bars = None

    def overall(self, text: str) -> None:
        """Show how far all runs are, beside their bars or lines."""
        self.all = text

    @property
    def bars(self) -> Progress | None:
        """The live bars; None without a terminal."""
        return self._bars


class _Bars(Progress):
    """A bar per run, and below them how far all runs are; where space is short, titles are cut, never numbers."""

    def __init__(self, display: Display) -> None:
        self._display = display
        number = Column(no_wrap=True, justify="right")
        columns: list[ProgressColumn] = [_Title(table_column=Column(overflow="ellipsis", ratio=1))]
        if display.console.width >= WIDE:
            columns.append(BarColumn(bar_width=24, table_column=Column(no_wrap=True)))
        columns.append(TextColumn("{task.fields[note]}", markup=False, table_column=number))
        columns.append(TimeRemainingColumn(table_column=number))
        super().__init__(*columns, console=display.console, transient=True, expand=True)

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bars and the line below them."""
        yield self.make_tasks_table(self.tasks)
        if self._display.all:
            yield Text(self._display.all)


class _Title(ProgressColumn):
    def render(self, task: Task) -> Text:
        """The run's title, on one line."""
        return Text(task.description, no_wrap=True, overflow="ellipsis")


class Line:
    """A training callback that shows the progress of one run."""

    def __init__(self, display: Display, title: str) -> None:
        self.display, self.title = display, title
        self._task: Any = None
        self._steps = self._epochs = self._epoch = 0
        self._spoke = 0.0

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        """Start the bar of a phase."""
        self._steps, self._epochs, self._epoch = steps, epochs, done
        self._spoke = time.monotonic()
        if done:
            self._say(f"  {self.title}: {phase} resumes after epoch {done} of {epochs}")
        self.clear()
        if self.display.bars is not None:
            what = f"{self.title} {phase}".strip()
            self._task = self.display.bars.add_task(what, total=epochs * steps, completed=done * steps, note="")

    def step(self, step: int) -> None:
        """Advance the bar."""
        if self.display.bars is not None and self._task is not None:
            self.display.bars.update(self._task, completed=self._epoch * self._steps + step)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Report an epoch's loss, accuracy and speed."""
        self._epoch = row["epoch"]
        accuracy = f"test {row['test_accuracy']:.1f} %" if "test_accuracy" in row else ""
        loss, speed = f"loss {row['loss']:.3f}", f"{row['images_per_second']:.0f} images/s"
        wide = self.display.bars is None or self.display.console.width >= WIDE
        note = ", ".join(filter(None, (loss, accuracy, speed) if wide else (accuracy or loss,)))
        if self.display.bars is not None:
            note += f", epoch {self._epoch}/{self._epochs}"
        if self.display.bars is not None and self._task is not None:
            self.display.bars.update(self._task, completed=self._epoch * self._steps, note=note)
        elif time.monotonic() - self._spoke >= self.display.seconds:
            self._spoke = time.monotonic()
            left = (self._epochs - self._epoch) * row["seconds"]
            overall = f" ({self.display.all})" if self.display.all else ""
            at = f"{row['phase']} epoch {self._epoch}/{self._epochs}"
            self._say(f"  {self.title}: {at}: {note}, {_duration(left)} left{overall}")

    def clear(self) -> None:
        """Remove the bar."""
        if self._task is not None and self.display.bars is not None:
            self.display.bars.remove_task(self._task)
        self._task = None

    def _say(self, line: str) -> None:
        self.display.console.print(Text(line), soft_wrap=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
