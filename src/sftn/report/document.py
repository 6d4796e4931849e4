"""Pages as blocks of plain data, which HTML, Markdown and the terminal each render in their own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Heading:
    """A heading: level 2 for a part of the page, 3 within it."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph, omitted if empty; `kind` is empty, note or warning."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Bullets:
    """A bulleted list."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Rows:
    """A table, header first."""

    rows: Sequence[Sequence[str]]
    words: int = 1
    """Number of leading columns that hold words; the others hold numbers and are right-aligned."""


@dataclass(frozen=True)
class Column:
    """A column of a `Comparison`."""

    group: str
    """Adjacent columns of one group share this heading."""
    name: str
    """Heading within the group."""
    label: str
    """Heading where the group is not shown."""
    brief: bool = False
    """Whether narrow layouts show this column, too."""


@dataclass(frozen=True)
class Cell:
    """A cell of a `Comparison`."""

    text: str
    kind: str = ""
    """missing or partial if the number is incomplete; empty if not."""
    brief: str = ""
    """Text for narrow layouts; empty to use `text`."""
    below: str = ""
    """Small print below the text."""
    label: str = ""
    """Label that replaces the column's; empty to use the column's."""


@dataclass(frozen=True)
class Comparison:
    """A table of numbers side by side, in groups of columns; each row begins with its label."""

    columns: Sequence[Column]
    rows: Sequence[tuple[str, Sequence[Cell]]]


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: counts by true class (rows) and prediction (columns)."""

    names: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Drawing:
    """A figure in an SVG file."""

    caption: str
    path: Path


@dataclass(frozen=True)
class Pictures:
    """Images with captions; the Markdown page shows them on one sheet."""

    title: str
    pngs: Sequence[bytes]
    captions: Sequence[str]
    sheet: Path
    small: bool
    """Whether the images are so small that they are enlarged with visible pixels."""


@dataclass(frozen=True)
class Columns:
    """Parts (title, blocks) side by side, where the screen is wide enough."""

    parts: Sequence[tuple[str, Sequence[Block]]]


Block: TypeAlias = Heading | Text | Bullets | Rows | Comparison | Matrix | Drawing | Pictures | Columns


@dataclass(frozen=True)
class Page:
    """A page: its title, blocks, folder and numbers."""

    title: str
    blocks: Sequence[Block]
    folder: Path = Path()
    """Folder of the figures and of the written files."""
    numbers: Sequence[Mapping[str, Any]] = ()
    """All numbers of the page, for CSV."""
