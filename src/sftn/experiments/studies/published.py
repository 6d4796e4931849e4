"""Numbers that others printed for the pairs of a study, each with its protocol."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from sftn.experiments.table import ALONE, STANDARD, Cell, Pair, read_csv


@dataclass(frozen=True)
class Published:
    """An accuracy in percent on the test images, of a network alone or of a student of a standard teacher."""

    cell: Cell
    accuracy: float
    std: float | None
    epoch: Literal["last", "best", "not said"]
    """The epoch of a run that was printed: its last, or the one that was best on the test images."""
    protocol: str
    """What is known of settings and schedule beyond 240 epochs in batches of 64."""
    source: str
    """The repository that printed it."""

    def __str__(self) -> str:
        return f"{self.accuracy:.2f}" + (f" ± {self.std:.2f}" if self.std is not None else "")


@cache
def published(file: str) -> tuple[Published, ...]:
    """The numbers of a file in `published/`, in its order; none for an empty name."""
    if not file:
        return ()
    text = (files("sftn.experiments.studies") / "published" / file).read_text(encoding="utf-8")
    return tuple(_published(row) for row in read_csv(text))


def _published(row: dict[str, str]) -> Published:
    pair, method = Pair(row["teacher"], row["student"]), row["method"]
    cell = Cell(pair, "student", STANDARD, method)
    if method == "teacher":
        cell = Cell(pair, "teacher", STANDARD)
    elif method == "student alone":
        cell = Cell(pair, "student", ALONE)
    std = float(row["std"]) if row["std"] else None
    return Published(cell, float(row["accuracy"]), std, row["epoch"], row["protocol"], row["source"])  # type: ignore[arg-type]
