"""A short form of a report for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Shown

from sftn.experiments.collect import Line, Section
from sftn.experiments.table import ALONE, FRIENDLY, STANDARD
from sftn.report.document import Block, Bullets, Heading, Rows, Text
from sftn.report.phrases import gain_sentence, heading


def show(section: Section, console: Console) -> None:
    """Print a section: ours, and the gains ours and theirs."""
    seeds = f"{section.seeds} seeds" if section.seeds > 1 else "1 seed"
    console.print(f"[bold]{heading(section.table)}[/bold]", soft_wrap=True)
    console.print(
        f"{section.conditions or 'nothing run yet'}; last epoch's test accuracy in %, {seeds}", soft_wrap=True
    )
    for pair in section.table.pairs:
        show_lines(section.lines(pair), f"{pair.teacher} → {pair.student}", console)
    for warning in section.warnings():
        console.print(f"[bold]{warning}[/bold]", soft_wrap=True)
    console.print(gain_sentence(section), soft_wrap=True)


def show_lines(lines: Iterable[Line], title: str, console: Console) -> None:
    """Print the lines of a pair: ours, and the gains ours and theirs."""
    shown = Shown(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    shown.add_column("", no_wrap=True)
    for column in ("standard", "SFTN", "gain", "printed"):
        shown.add_column(column, justify="right")
    for line in lines:
        standard = line.sides.get(STANDARD) or line.sides[ALONE]
        friendly, gain, printed = line.sides.get(FRIENDLY), line.gain, line.printed_gain
        shown.add_row(
            line.label,
            standard.last.text(count=False),
            "" if friendly is None else friendly.last.text(count=False),
            "" if gain is None else gain.text(sign=True, count=False),
            "" if printed is None else f"{printed:+.2f}",
        )
    console.print(shown)


def show_blocks(title: str, blocks: Sequence[Block], console: Console) -> None:
    """Print what a page says in words and tables."""
    console.print(f"[bold]{title}[/bold]", soft_wrap=True)
    for block in blocks:
        match block:
            case Heading(words):
                console.print(f"[bold]{words}[/bold]", soft_wrap=True)
            case Text(words, kind):
                console.print(words, soft_wrap=True, style="bold" if kind == "warning" else None)
            case Bullets(lines):
                for line in lines:
                    console.print(f"- {line}", soft_wrap=True, markup=False)
            case Rows((head, *rows)):
                shown = Shown(*head[:1], box=SIMPLE_HEAD, pad_edge=False)
                for column in head[1:]:
                    shown.add_column(column, justify="right")
                for row in rows:
                    shown.add_row(*row)
                console.print(shown)
