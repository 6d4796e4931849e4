"""A table of the paper as Markdown: ours beside theirs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sftn.experiments.collect import Line, Section, Side, cost
from sftn.experiments.table import ALONE, FRIENDLY, STANDARD, Table
from sftn.report.phrases import LEGEND, difference, gain_sentence, heading, where

_HEADER = ("", "standard: ours", "printed", "ours − printed", "SFTN: ours", "printed", "ours − printed")
_GAIN = ("gain: ours", "gain: printed")


def page(table: Table, sections: Sequence[Section], figures: Sequence[tuple[str, Path]]) -> str:
    """The whole page.

    Args:
        table: of the paper.
        sections: what there is of it.
        figures: (caption, file) beside the page.
    """
    parts = [f"# {heading(table)}", where(table), LEGEND]
    parts += [f"> Note: {note}" for note in table.notes]
    for section in sections:
        parts.append(f"## {section.conditions or 'Nothing run yet'}")
        parts += [f"> **{warning}**" for warning in section.warnings()]
        for pair in section.table.pairs:
            parts.append(f"### {pair.teacher} → {pair.student}")
            parts.append(lines_table(section.lines(pair)))
        parts.append(gain_sentence(section))
        if section.conditions is not None:
            parts.append("Cost and origin:\n\n" + "\n".join(f"- {line}" for line in cost(section.distinct())))
    parts += [f"![{caption}]({file.name})" for caption, file in figures]
    return "\n\n".join(part for part in parts if part) + "\n"


def lines_table(lines: Iterable[Line]) -> str:
    """Lines as a table: standard and student-friendly teacher, ours and printed, the gain and the best epochs."""
    rows = [[*_HEADER, *_GAIN, "best epoch: standard", "best epoch: SFTN"]]
    rows += [_row(line) for line in lines]
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|---|" + "---:|" * (len(rows[0]) - 1), *body])


def _row(line: Line) -> list[str]:
    standard = line.sides.get(STANDARD) or line.sides.get(ALONE)
    friendly = line.sides.get(FRIENDLY)
    gain = line.gain
    printed = line.printed_gain
    gains = ["" if gain is None else gain.text(sign=True), "" if printed is None else f"{printed:+.2f}"]
    best = [side.best.text() if side is not None and side.best.values else "" for side in (standard, friendly)]
    return [line.label, *_side(standard), *_side(friendly), *gains, *best]


def _side(side: Side | None) -> list[str]:
    if side is None:
        return ["", "", ""]
    ours = side.last.text()
    ours = ours if side.last.complete else f"**{ours}**"
    return [ours, "" if side.printed is None else str(side.printed), difference(side)]
