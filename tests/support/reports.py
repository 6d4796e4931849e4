"""Pages as tests want them: written, one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sftn.report import writer
from sftn.report.document import Page


def written(page: Page) -> Path:
    """The folder of a page, with its files in it."""
    writer.write(page)
    return page.folder


def reported(what: Sequence[str], out: Path) -> Path:
    """The folder of the only page that a report of `what` has."""
    (page,) = writer.report(what, out)
    return page.folder
