"""What a page of own runs is made of, and the two forms of it: HTML that needs no other file, and Markdown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TypeAlias

from sftn.report import html

STYLE = """
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0 2rem; }
.columns > div { min-width: 0; } .columns h3 { font-size: 1rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
.scroll table { width: auto; } .scroll td, .scroll th { white-space: nowrap; }
.scroll table { display: table; } .scroll tbody { display: table-row-group; }
.scroll thead { display: table-header-group; } .scroll tr { display: table-row; }
.scroll td { display: table-cell; border-bottom: 1px solid #ddd; padding: .35rem .4rem; text-align: right; }
.scroll { margin-bottom: 1rem; } .scroll th:first-child { text-align: left; }
.scroll td:first-child { text-align: left; font-weight: 400; } .scroll td::before { display: none !important; }
.matrix td, .matrix th { padding: .2rem .35rem; min-width: 2rem; border: 1px solid #eee; }
.matrix th { font-weight: 400; } .matrix thead th { writing-mode: vertical-rl; text-align: left; min-width: 0; }
.matrix tbody th:first-child { text-align: right; white-space: nowrap; }
.thumbs { display: flex; flex-wrap: wrap; gap: .8rem; }
.thumbs figure { margin: 0; width: 7rem; } .thumbs img { width: 6rem; height: 6rem; object-fit: contain;
  background: #eee; display: block; } .thumbs .small { image-rendering: pixelated; }
.thumbs figcaption { font-size: .75rem; line-height: 1.3; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Heading:
    """Of a part of the page: level 2, or 3 within it."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph; `kind` is note or warning."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Rows:
    """A table, its header first."""

    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Matrix:
    """Counts by true class (rows) and answer (columns)."""

    names: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Drawing:
    """A figure in an SVG file."""

    caption: str
    path: Path


@dataclass(frozen=True)
class Pictures:
    """Images with a caption each; the Markdown page shows them on one sheet."""

    title: str
    pngs: Sequence[bytes]
    captions: Sequence[str]
    sheet: Path
    small: bool
    """Their pixels are to be seen."""


@dataclass(frozen=True)
class Columns:
    """Parts side by side, as far as the screen is wide enough: (title, blocks)."""

    parts: Sequence[tuple[str, Sequence[Block]]]


Block: TypeAlias = Heading | Text | Bullets | Rows | Matrix | Drawing | Pictures | Columns


def page(title: str, blocks: Sequence[Block]) -> str:
    """The whole page in HTML."""
    return html.document(title, [f"<style>{STYLE}</style><h1>{escape(title)}</h1>", *map(_html, blocks)])


def text(title: str, blocks: Sequence[Block]) -> str:
    """The whole page in Markdown; figures and sheets lie beside it."""
    return "\n\n".join([f"# {title}", *(part for part in map(_markdown, blocks) if part)]) + "\n"


def _html(block: Block) -> str:
    match block:
        case Heading(words, level):
            return f"<h{level}>{escape(words)}</h{level}>"
        case Text(words, kind):
            return html.paragraph(words, kind)
        case Bullets(lines):
            return html.bullets(lines)
        case Rows(rows):
            return f"<div class=scroll>{html.simple_table(rows)}</div>"
        case Matrix(names, counts):
            return _matrix(names, counts)
        case Drawing(caption, path):
            return html.figure(caption, path)
        case Pictures():
            shown = "".join(_thumb(*one, block.small) for one in zip(block.pngs, block.captions))
            return f"<p class=note>{escape(block.title)}</p><div class=thumbs>{shown}</div>"
        case Columns(parts):
            divs = (f"<div><h3>{escape(name)}</h3>{''.join(map(_html, blocks))}</div>" for name, blocks in parts)
            return f"<div class=columns>{''.join(divs)}</div>"


def _thumb(png: bytes, caption: str, small: bool) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img{" class=small" if small else ""} src="data:image/png;base64,{data}" '
        f'alt="{escape(caption, quote=True)}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def _matrix(names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in names)
    rows = []
    for true, (name, row) in enumerate(zip(names, counts)):
        cells = "".join(_count(count, sum(row), true == answer) for answer, count in enumerate(row))
        rows.append(f"<tr><th scope=row>{escape(name)}</th>{cells}</tr>")
    return (
        "<p class=note>A row a true class, a column an answer; blue is right.</p>"
        f"<div class='scroll matrix'><table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
        "</table></div>"
    )


def _count(count: int, of: int, right: bool) -> str:
    """Blue and orange, the more the larger its share; an error is seen from one in a hundred on."""
    if not count:
        return "<td></td>"
    share = count / of
    strength = 0.6 * share if right else min(0.85, 0.15 + 2 * share)
    colour = "0,114,178" if right else "213,94,0"
    return f'<td style="background:rgba({colour},{strength:.2f})">{count}</td>'


def _markdown(block: Block) -> str:
    match block:
        case Heading(words, level):
            return f"{'#' * level} {words}"
        case Text(words, kind):
            return f"> **{words}**" if kind == "warning" and words else words
        case Bullets(lines):
            return "\n".join(f"- {line}" for line in lines)
        case Rows(rows):
            return _table(rows)
        case Matrix(names, counts):
            rows = [["true \\ answer", *names]]
            rows += [[name, *(str(count or "") for count in row)] for name, row in zip(names, counts)]
            return _table(rows)
        case Drawing(caption, path):
            return f"![{caption}]({path.name})"
        case Pictures():
            listed = "\n".join(f"{number}. {caption}" for number, caption in enumerate(block.captions, 1))
            return f"{block.title}, row by row:\n\n![{block.title}]({block.sheet.name})\n\n{listed}"
        case Columns(parts):
            shown = [[f"### {name}", *map(_markdown, blocks)] for name, blocks in parts]
            return "\n\n".join(part for one in shown for part in one if part)


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([head, "|---|" + "---:|" * (len(rows[0]) - 1), *body])
