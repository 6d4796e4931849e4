"""Terminal output of all commands: one console for plain lines, progress and log messages."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.table import Table

from sftn.cli.progress import Display
from sftn.errors import printable
from sftn.report.terminal import WIDE
from sftn.runtime.leader import leads

console = Console(markup=False, emoji=False, highlight=False, quiet=not leads())
"""Prints text as it is: names of folders, files, classes and runs are a person's, and mean nothing as markup."""

display = Display(console)
"""The progress of all runs of this process."""


def say(line: str) -> None:
    """Print text as one line, without wrapping, markup or control characters."""
    console.print(printable(line), soft_wrap=True)


def show_table(table: Table) -> None:
    """Print a table: as wide as the terminal, with long names folded, or in a file or pipe as wide as its rows."""
    for column in table.columns:
        column.overflow = "fold"
    width = console.width
    if not console.is_terminal:
        console.width = max(width, WIDE)
    try:
        console.print(table)
    finally:
        console.width = width


def starting() -> AbstractContextManager[object]:
    """A context in which a terminal shows that PyTorch is being loaded, which takes seconds."""
    return console.status("loading PyTorch") if console.is_terminal else nullcontext()


class Lines(logging.Handler):
    """A logging handler that prints each record's message as a plain line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record's message."""
        say(record.getMessage())


def show_log() -> None:
    """Print what the package logs, from level INFO up, to the console."""
    logger = logging.getLogger("sftn")
    if not any(isinstance(handler, Lines) for handler in logger.handlers):
        logger.addHandler(Lines())
    logger.setLevel(logging.INFO)
    logger.propagate = False
