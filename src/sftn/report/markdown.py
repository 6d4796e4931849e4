"""Pages as Markdown, with figures and sheets of pictures beside the file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from sftn.report.document import (
    Block,
    Bullets,
    Cell,
    Column,
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
from sftn.storage.escapes import markdown as plain


def render(page: Page) -> str:
    """Render a page as Markdown."""
    return _joined([f"# {plain(page.title)}", *map(_block, page.blocks)]) + "\n"


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part)


def _block(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {plain(text)}"
        case Text(text, kind):
            return f"> **{plain(text)}**" if kind == "warning" and text else plain(text)
        case Bullets(lines):
            return "\n".join(f"- {plain(line)}" for line in lines)
        case Rows(rows, words):
            return _table([list(map(plain, row)) for row in rows], words)
        case Comparison(columns, rows):
            head = ["", *map(plain, _heads(columns))]
            return _table([head, *([plain(label), *map(_cell, cells)] for label, cells in rows)])
        case Matrix(names, counts):
            head = ["true \\\\ predicted", *map(plain, names)]
            return _table([head, *([plain(name), *(str(n or "") for n in row)] for name, row in zip(names, counts))])
        case Drawing(caption, path):
            return f"![{plain(caption)}]({path.name})"
        case Pictures(title, _, captions, sheet):
            listed = "\n".join(f"{number}. {plain(caption)}" for number, caption in enumerate(captions, 1))
            return f"{plain(title)}, row by row:\n\n![{plain(title)}]({sheet.name})\n\n{listed}"
        case Columns(parts):
            return _joined(_joined([f"### {plain(title)}", *map(_block, blocks)]) for title, blocks in parts)


def _heads(columns: Sequence[Column]) -> list[str]:
    """Headers in one line, as Markdown requires: the first column of a group names the group."""
    groups = ["", *(column.group for column in columns)]
    new = (before != after for before, after in pairwise(groups))
    return [f"{column.group}: {column.name}" if first else column.name for column, first in zip(columns, new)]


def _cell(cell: Cell) -> str:
    text = f"**{plain(cell.text)}**" if cell.kind else plain(cell.text)
    return f"{text}<br>{plain(cell.below)}" if cell.below else text


def _table(rows: Sequence[Sequence[str]], words: int = 1) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * words + "---:|" * (len(rows[0]) - words), *body])
