"""What every page is made of: blocks of plain data, which HTML, Markdown and the terminal each show in their way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Heading:
    """Of a part of the page: level 2, or 3 within it."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph, nothing if it is empty; `kind` is note or warning."""

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
    words: int = 1
    """How many of the first columns hold words; the others hold numbers and stand to the right."""


@dataclass(frozen=True)
class Column:
    """Of a `Comparison`."""

    group: str
    """Columns of one group that stand side by side share a heading."""
    name: str
    """Within its group."""
    label: str
    """On its own, without its group."""
    brief: bool = False
    """Shown where there is little room, too."""


@dataclass(frozen=True)
class Cell:
    """Of a `Comparison`."""

    text: str
    kind: str = ""
    """missing or partial, if the number is not what it should be."""
    brief: str = ""
    """Where there is little room; empty for the text itself."""
    below: str = ""
    """Small print."""
    label: str = ""
    """On its own, if the column's is not its."""


@dataclass(frozen=True)
class Comparison:
    """A table of numbers side by side, in groups of columns; each row begins with its label."""

    columns: Sequence[Column]
    rows: Sequence[tuple[str, Sequence[Cell]]]


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


Block: TypeAlias = Heading | Text | Bullets | Rows | Comparison | Matrix | Drawing | Pictures | Columns


@dataclass(frozen=True)
class Page:
    """A whole page."""

    title: str
    blocks: Sequence[Block]
    folder: Path = Path()
    """Of its figures, and of its files once it is written."""
    numbers: Sequence[Mapping[str, Any]] = ()
    """Every number of it, for CSV."""
