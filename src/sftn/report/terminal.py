"""Pages in the terminal: text, tables, and the paths of figures and pictures."""

from __future__ import annotations

from collections.abc import Sequence

from rich import text
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sftn.errors import printable
from sftn.report.document import (
    Block,
    Bullets,
    Columns,
    Comparison,
    Drawing,
    Heading,
    Matrix,
    Page,
    Pictures,
    Rows,
    Text,
)

ROOMY = 100
"""Width of a terminal from which a table's columns are two spaces apart instead of one."""
WIDE = 250
"""Width of output to a file or pipe, large enough that rows of tables are not wrapped."""


def show(page: Page, console: Console) -> None:
    """Print a page to a console."""
    width = console.width
    if not console.is_terminal:
        console.width = max(width, WIDE)
    try:
        console.print(_text(page.title, "bold"), soft_wrap=True)
        for block in page.blocks:
            _show(block, console)
    finally:
        console.width = width


def _show(block: Block, console: Console) -> None:
    match block:
        case Heading(words):
            console.print(_text(words, "bold"), soft_wrap=True)
        case Text(words, kind) if words:
            console.print(_text(words, "bold" * (kind == "warning")), soft_wrap=not console.is_terminal)
        case Bullets(lines):
            for line in lines:
                console.print(_text(f"- {line}"), soft_wrap=not console.is_terminal)
        case Rows(rows, words):
            _print_table(rows, console, words)
        case Comparison(columns, rows):
            brief = [place for place, column in enumerate(columns) if column.brief]
            body = [[label, *(cells[place].brief or cells[place].text for place in brief)] for label, cells in rows]
            _print_table([["", *(columns[place].label for place in brief)], *body], console)
        case Matrix(names, counts):
            head = ["true \\ predicted", *names]
            _print_table([head, *([name, *(str(n or "") for n in row)] for name, row in zip(names, counts))], console)
        case Drawing(caption, path):
            console.print(_text(f"{caption}: {path}"), soft_wrap=True)
        case Pictures(title, sheet=path):
            console.print(_text(f"{title}: {path}"), soft_wrap=True)
        case Columns(parts):
            for title, blocks in parts:
                for inner in (Heading(title, 3), *blocks):
                    _show(inner, console)


def _print_table(rows: Sequence[Sequence[str]], console: Console, words: int = 1) -> None:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, int(console.width >= ROOMY), 0, 0))
    head, *body = rows
    for place, name in enumerate(head):
        table.add_column(_text(name), justify="left" if place < words else "right", overflow="fold")
    for row in body:
        table.add_row(*map(_text, row))
    console.print(table)
    console.print()


def _text(words: str, style: str = "") -> text.Text:
    """Text without markup, because names come from users and files."""
    return text.Text(printable(words), style)
