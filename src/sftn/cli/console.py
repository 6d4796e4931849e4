"""The terminal that all commands write to: one console, plain lines, and what the package logs."""

from __future__ import annotations

import logging

from rich.console import Console

from sftn.cli.progress import Display
from sftn.errors import printable
from sftn.runtime.processes import leads

console = Console(highlight=False, quiet=not leads())


watch = Display(console).watch
"""Show a run's training while it lasts, as a context manager that gives its callback."""


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
