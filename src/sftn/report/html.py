"""Pages as one self-contained HTML file each: no scripts, no network, readable on a phone."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from itertools import groupby

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

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 74rem; margin: 0 auto;
  padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin-top: 2.5rem; } h3 { margin: 2rem 0 .5rem; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
.note { color: #444; font-size: .9rem; }
.warning { background: #7a1f00; color: #fff; padding: .6rem .8rem; border-radius: 4px; font-weight: 600;
  max-width: none; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .88rem; }
th, td { padding: .35rem .4rem; white-space: nowrap; text-align: right; vertical-align: top;
  border-bottom: 1px solid #ddd; }
td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #444; font-weight: 600; }
thead .group { text-align: center; border-bottom: 1px solid #999; }
.begin { border-left: 1px solid #bbb; }
td:first-child, .partial { white-space: normal; }
.best { display: block; color: #444; font-size: .8em; }
.missing { color: #7a1f00; font-style: italic; background: #f6ebe6; }
.partial { background: #ffe9b8; font-weight: 600; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; } figcaption { font-size: .85rem; color: #444; }
@media (max-width: 48rem) {
  thead { display: none; }
  table, tbody { display: block; }
  tr { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 0 .4rem; padding: .6rem 0;
    border-bottom: 2px solid #444; }
  td { border: 0; padding: .2rem .15rem; text-align: left; white-space: normal; }
  td:first-child { grid-column: 1 / -1; font-weight: 700; }
  td.empty { display: none; }
  td[data-label]::before { content: attr(data-label); display: block; font-size: .72rem; color: #555; font-weight: 400;
    font-style: normal; }
  .begin { border-left: 0; grid-column: 1; }
  .scroll .words:first-child { white-space: normal; min-width: 7rem; max-width: 11rem; overflow-wrap: anywhere; }
  .drawing { margin-left: 0; margin-right: 0; } .drawing img { max-width: none; width: 42rem; }
  .drawing figcaption { position: sticky; left: 0; max-width: calc(100vw - 2rem); }
}
@media print { .warning { color: #000; background: none; border: 2px solid #000; } }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0 2rem; }
.columns > div { min-width: 0; } .columns h3 { font-size: 1rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; scrollbar-width: thin; scrollbar-color: #767676 #eee;
  background: linear-gradient(to right, #fff 30%, #fff0) 0 0 / 3rem 100%,
    linear-gradient(to left, #fff 30%, #fff0) 100% 0 / 3rem 100%,
    linear-gradient(to right, #0006, #0000) 0 0 / 1rem 100%, linear-gradient(to left, #0006, #0000) 100% 0 / 1rem 100%;
  background-repeat: no-repeat; background-attachment: local, local, scroll, scroll; }
.scroll:focus-visible { outline: 2px solid #0072b2; }
.scroll table { width: auto; } .scroll td, .scroll th { white-space: nowrap; }
.scroll table { display: table; } .scroll tbody { display: table-row-group; }
.scroll thead { display: table-header-group; } .scroll tr { display: table-row; }
.scroll td { display: table-cell; border-bottom: 1px solid #ddd; padding: .35rem .4rem; text-align: right; }
.scroll { margin-bottom: 1rem; } .scroll .words { text-align: left; font-weight: 400; }
.matrix td, .matrix th { padding: .2rem .35rem; min-width: 2rem; border: 1px solid #eee; }
.matrix th { font-weight: 400; } .matrix thead th { writing-mode: vertical-rl; text-align: left; min-width: 0; }
.matrix tbody th:first-child { text-align: right; white-space: nowrap; }
.thumbs { display: flex; flex-wrap: wrap; gap: .8rem; }
.thumbs figure { margin: 0; width: 7rem; } .thumbs img { width: 6rem; height: 6rem; object-fit: contain;
  background: #eee; display: block; } .thumbs .small { image-rendering: pixelated; }
.thumbs figcaption { font-size: .75rem; line-height: 1.3; overflow-wrap: anywhere; }
"""


def render(page: Page) -> str:
    """Render a page as HTML."""
    title = escape(page.title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>\n'
        + "\n".join([f"<h1>{title}</h1>", *map(_block, page.blocks)])
        + "\n</body></html>\n"
    )


def _block(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Text(text, kind):
            return f'<p class="{kind}">{escape(text)}</p>' if text else ""
        case Bullets(lines):
            return f"<ul class=note>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
        case Rows(rows, words):
            return _rows(rows, words)
        case Comparison():
            return _comparison(block)
        case Matrix(names, counts):
            return _matrix(names, counts)
        case Drawing(caption, path):
            return f"<div class='scroll drawing' tabindex=0>{_figure('svg+xml', path.read_bytes(), caption)}</div>"
        case Pictures(title, pngs, captions, _, small):
            figures = (_figure("png", png, caption, " class=small" * small) for png, caption in zip(pngs, captions))
            return f"<p class=note>{escape(title)}</p><div class=thumbs>{''.join(figures)}</div>"
        case Columns(parts):
            divs = (f"<div><h3>{escape(title)}</h3>{''.join(map(_block, blocks))}</div>" for title, blocks in parts)
            return f"<div class=columns>{''.join(divs)}</div>"


def _figure(kind: str, content: bytes, caption: str, attributes: str = "") -> str:
    """An image embedded in the page."""
    data, text = base64.b64encode(content).decode(), escape(caption)
    return (
        f'<figure><img{attributes} src="data:image/{kind};base64,{data}" alt="{text}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _rows(rows: Sequence[Sequence[str]], words: int) -> str:
    def line(tag: str, row: Sequence[str]) -> str:
        cells = (f"<{tag}{' class=words' * (n < words)}>{escape(text)}</{tag}>" for n, text in enumerate(row))
        return f"<tr>{''.join(cells)}</tr>"

    head, *body = rows
    lines = "".join(line("td", row) for row in body)
    return f"<div class=scroll tabindex=0><table><thead>{line('th', head)}</thead><tbody>{lines}</tbody></table></div>"


def _comparison(block: Comparison) -> str:
    columns = block.columns
    groups = [(group, list(members)) for group, members in groupby(columns, lambda column: column.group)]
    begins = [member is members[0] for _, members in groups for member in members]
    tops = "".join(
        f'<th class="group begin" colspan={len(members)} scope=colgroup>{escape(group)}</th>'
        for group, members in groups
    )
    names = "".join(f"<th{' class=begin' * begin}>{escape(column.name)}</th>" for column, begin in zip(columns, begins))
    rows = (
        f"<tr><td>{escape(label)}</td>{''.join(map(_cell, cells, columns, begins))}</tr>" for label, cells in block.rows
    )
    body = "\n".join(rows)
    return f"<table><thead><tr><th rowspan=2></th>{tops}</tr><tr>{names}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _cell(cell: Cell, column: Column, begin: bool) -> str:
    classes = " ".join(name for name in (cell.kind, "begin" * begin, "empty" * (not cell.text)) if name)
    below = f"<span class=best>{escape(cell.below)}</span>" if cell.below else ""
    label = f' data-label="{escape(cell.label or column.label)}"' if cell.text else ""
    return f'<td class="{classes}"{label}>{escape(cell.text)}{below}</td>'


def _matrix(names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in names)
    rows = []
    for true, (name, row) in enumerate(zip(names, counts)):
        cells = "".join(_count(count, sum(row), true == answer) for answer, count in enumerate(row))
        rows.append(f"<tr><th scope=row>{escape(name)}</th>{cells}</tr>")
    return (
        "<p class=note>Rows are true classes, columns are predictions; blue is correct.</p>"
        f"<div class='scroll matrix' tabindex=0><table><thead><tr><th></th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _count(count: int, of: int, right: bool) -> str:
    """A cell in blue or orange, stronger for a larger share; an error of one in a hundred is visible."""
    if not count:
        return "<td></td>"
    share = count / of
    strength = 0.6 * share if right else min(0.85, 0.15 + 2 * share)
    colour = "0,114,178" if right else "213,94,0"
    return f'<td style="background:rgba({colour},{strength:.2f})">{count}</td>'
