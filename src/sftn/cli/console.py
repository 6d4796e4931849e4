"""The terminal that all commands write to: one console, plain lines, and what the package logs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from sftn.cli.progress import Display
from sftn.errors import printable
from sftn.runtime.processes import leads

console = Console(highlight=False, quiet=not leads())


@contextmanager
def watch(title: str) -> Iterator[Display]:
    """Show a run's training while it lasts."""
    with Display(console) as display:
        display.title = title
        yield display


def say(line: str) -> None:
    """Write a line, however long and whatever is in it, as one line."""
    console.print(printable(line), soft_wrap=True, markup=False, emoji=False)


class Lines(logging.Handler):
    """Writes what the package logs for people, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's message."""
        say(record.getMessage())


def show_log() -> None:
    """From now on, let people see what the package logs."""
    logger = logging.getLogger("sftn")
    if not any(isinstance(handler, Lines) for handler in logger.handlers):
        logger.addHandler(Lines())
    logger.setLevel(logging.INFO)
    logger.propagate = False
