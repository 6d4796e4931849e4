"""The page of a comparison: its table, its students by size, what is to be doubted and what came out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sftn.errors import InputError
from sftn.experiments.comparison import PARETO, Sized, size_rows
from sftn.report.document import Block, Drawing, Heading, Page, Rows, Text
from sftn.report.figures import runs as figures
from sftn.report.figures import tables
from sftn.report.figures.analysis import save
from sftn.storage.atomic import make_folder
from sftn.storage.json_files import read_json

RECORD = "comparison.json"


def is_comparison(name: str, out: Path) -> Path | None:
    """The folder of a comparison, given as a path or by its name in the folder of all runs; None if it is not one."""
    return next((place for place in (Path(name), out / name) if (place / RECORD).is_file()), None)


def page(folder: Path, out: Path) -> Page:
    """The page of a comparison, in a new folder.

    Args:
        folder: of the comparison.
        out: the folder of all runs.

    Raises:
        InputError: the comparison's record is damaged or of an older version, or the folder cannot be written.
    """
    record = read_json(folder / RECORD)
    try:
        sizes = [Sized(**one) for one in record["sizes"]]
        title, place = str(record["title"]), make_folder(out / f"report-{folder.resolve().name}")
        return Page(title, list(_blocks(record, sizes, place)), place)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{folder / RECORD} is damaged or of an older version: run the comparison again, which trains nothing anew"
        ) from error


def _blocks(record: dict[str, Any], sizes: list[Sized], folder: Path) -> Iterator[Block]:
    for sentence in record["verdict"]:
        yield Text(str(sentence))
    for note in record["footnotes"]:
        yield Text(str(note), "warning")
    yield Text(str(record["subtitle"]), "note")
    yield Rows([[str(cell) for cell in row] for row in record["table"]])
    if sizes:
        yield Heading("Students by size")
        yield Rows(size_rows(sizes))
        yield Text(PARETO, "note")
        if tables.available():
            best = sizes[0].accuracy + sizes[0].below
            yield Drawing("Accuracy against size", save(figures.sizes(sizes, best), folder, "sizes"))
