"""The same report as one HTML file that needs nothing else: no scripts, no network, readable on a phone."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from sftn.experiments.collect import Line, Section, Side, Spread, cost
from sftn.experiments.table import ALONE, FRIENDLY, STANDARD, Table
from sftn.report.phrases import LEGEND, difference, gain_sentence, heading, where

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
}
@media print { .warning { color: #000; background: none; border: 2px solid #000; } }
"""


def page(table: Table, sections: Sequence[Section], figures: Sequence[tuple[str, Path]], missing: str = "") -> str:
    """The whole page.

    Args:
        table: of the paper.
        sections: what there is of it.
        figures: (caption, SVG file); they are taken into the page.
        missing: why there are no figures, if so.
    """
    title = heading(table)
    parts = [f"<h1>{escape(title)}</h1>", paragraph(where(table), "note"), paragraph(LEGEND, "note")]
    parts += [paragraph(f"Note: {note}", "note") for note in table.notes]
    for section in sections:
        parts.append(f"<section><h2>{escape(str(section.conditions or 'Nothing run yet'))}</h2>")
        parts += [paragraph(warning, "warning") for warning in section.warnings()]
        parts.append(paragraph(gain_sentence(section)))
        for pair in section.table.pairs:
            parts.append(f"<h3>{escape(pair.teacher)} → {escape(pair.student)}</h3>{lines_table(section.lines(pair))}")
        if section.conditions is not None:
            parts.append(f"<h3>Cost and origin</h3>{bullets(cost(section.distinct()))}")
        parts.append("</section>")
    return document(title, [*parts, *(figure(*drawn) for drawn in figures), paragraph(missing, "note")])


def document(title: str, parts: Sequence[str]) -> str:
    """A page around its parts."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def figure(caption: str, path: Path) -> str:
    """An SVG file as a part of the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    alt = escape(caption, quote=True)
    return (
        f'<figure><img src="data:image/svg+xml;base64,{data}" alt="{alt}"><figcaption>{escape(caption)}</figcaption>'
        "</figure>"
    )


def bullets(lines: Sequence[str]) -> str:
    """A list of plain text."""
    return f"<ul class=note>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def simple_table(rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text, its header first."""
    head, *body = rows
    cells = ["".join(_td(text, label=label) for text, label in zip(row, head)) for row in body]
    header = "".join(f"<th>{escape(text)}</th>" for text in head)
    return (
        f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(f'<tr>{row}</tr>' for row in cells)}</tbody></table>"
    )


def lines_table(lines: Iterable[Line]) -> str:
    """Lines as a table: standard and student-friendly teacher, ours and printed, and the gain."""
    groups = "".join(
        f'<th class="group begin" colspan={width} scope=colgroup>{name}</th>'
        for name, width in (("standard teacher", 3), ("student-friendly teacher (SFTN)", 3), ("gain", 2))
    )
    names = ("ours", "printed", "ours − printed") * 2 + ("ours", "printed")
    heads = "".join(f"<th{' class=begin' if i in (0, 3, 6) else ''}>{name}</th>" for i, name in enumerate(names))
    body = "\n".join(f"<tr>{_row(line)}</tr>" for line in lines)
    return (
        f"<table><thead><tr><th rowspan=2></th>{groups}</tr><tr>{heads}</tr></thead><tbody>\n{body}\n</tbody></table>"
    )


def _row(line: Line) -> str:
    alone = line.sides.get(ALONE)
    cells = [f"<td>{escape(line.label)}</td>"]
    cells += _side(line.sides.get(STANDARD) or alone, "standard" if alone is None else "no teacher")
    cells += _side(line.sides.get(FRIENDLY), "SFTN")
    gain, printed = line.gain, line.printed_gain
    cells.append(_td("" if gain is None else gain.text(sign=True), _kind(gain), "gain", begin=True))
    cells.append(_td("" if printed is None else f"{printed:+.2f}", "", "gain, printed"))
    return "".join(cells)


def _side(side: Side | None, name: str) -> list[str]:
    if side is None:
        return [_td("", "", "", begin=begin) for begin in (True, False, False)]
    best = f'<span class="best">best epoch {escape(side.best.text())}</span>' if side.best.values else ""
    return [
        _td(side.last.text(), _kind(side.last), f"{name}, ours", begin=True, more=best),
        _td("" if side.printed is None else str(side.printed), "", f"{name}, printed"),
        _td(difference(side), "", "ours − printed"),
    ]


def _kind(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return "missing" if not spread.values else "" if spread.complete else "partial"


def _td(text: str, kind: str = "", label: str = "", *, begin: bool = False, more: str = "") -> str:
    classes = " ".join(name for name in (kind, "begin" * begin, "empty" * (not text)) if name)
    named = f' data-label="{escape(label, quote=True)}"' if label else ""
    return f'<td class="{classes}"{named}>{escape(text)}{more}</td>'


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text; nothing if there is none. `kind` is note or warning."""
    return f'<p class="{kind}">{escape(text)}</p>' if text else ""
