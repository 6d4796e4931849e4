"""The terminal that all commands write to."""

from __future__ import annotations

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
    console.print(printable(line), soft_wrap=True, markup=False)
