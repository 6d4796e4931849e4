"""Doubts about a table: which of its networks failed, and which teachers scored below their student, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

from sftn.experiments.statistics import Doubts
from sftn.experiments.table import ALONE, BOTH, FRIENDLY, STANDARD, TEACHERS, Cell, Pair
from sftn.runs.caveats import Record, failed_seeds, over_seeds

Results = Mapping[Cell, Mapping[int, Mapping[str, Any]]]
"""The content of `result.json` by cell and seed."""
SMALLEST = 3
"""Of so many classes, those with the fewest test images, recall is shown where classes are unequal."""
_WAYS = {STANDARD: "standard", FRIENDLY: "student-friendly"}
_WHO = {
    ("teacher", STANDARD): "the standard teacher",
    ("teacher", FRIENDLY): "the student-friendly teacher",
    ("student", STANDARD): "the student of the standard teacher",
    ("student", FRIENDLY): "the student of the student-friendly teacher",
    ("student", BOTH): "the student of both teachers",
    ("student", ALONE): "the student alone",
}
"""A network in a verdict, which names the method."""
_DIGITS = "⁰¹²³⁴⁵⁶⁷⁸⁹"


@dataclass(frozen=True)
class CellDoubts:
    """What is wrong with the networks in the cells of a table, numbered as footnotes."""

    results: Results
    settings: Mapping[str, str] = field(default_factory=dict)
    """What readers call the settings of student-friendly teachers, by name."""

    @cached_property
    def predicates(self) -> dict[Cell, dict[str, str]]:
        """What is wrong with each cell's network, as predicates by kind; only cells with something wrong."""
        found = {}
        for cell, seeds in self.results.items():
            said = over_seeds(seeds)
            if cell.role == "teacher" and (below := self._below(cell)):
                said["below"] = below
            if said:
                found[cell] = said
        return found

    @cached_property
    def notes(self) -> list[str]:
        """One sentence for each network with something wrong, in the table's order, without its mark."""
        return list(dict.fromkeys(map(self._note, self.predicates)))

    @property
    def footnotes(self) -> list[str]:
        """The notes, each behind its mark."""
        return [f"{_mark(number)} {note}" for number, note in enumerate(self.notes, 1)]

    def mark(self, cell: Cell) -> str:
        """The mark behind a cell's number that refers to its note, such as ` ¹`; empty if nothing is wrong."""
        return f" {_mark(1 + self.notes.index(self._note(cell)))}" if cell in self.predicates else ""

    def _note(self, cell: Cell) -> str:
        text = f"{self._described(cell)} {' and '.join(self.predicates[cell].values())}."
        return text[0].upper() + text[1:]

    def of(self, pair: Pair, method: str, setting: str = "", ways: Sequence[str] = TEACHERS) -> Doubts:
        """What is wrong with the networks behind the verdict on a method: teachers, students, the student alone."""
        settings = {STANDARD: "", FRIENDLY: setting, BOTH: setting}
        taught = [Cell(pair, "student", way, method, settings[way]) for way in ways]
        hollow = [
            cell for cell in taught if (seeds := self.results.get(cell)) and len(failed_seeds(seeds)) == len(seeds)
        ]
        teachers = [Cell(pair, "teacher", way, "-", settings[way]) for way in TEACHERS]
        reasons = []
        for cell in hollow or [*teachers, *taught, Cell(pair, "student", ALONE)]:
            for kind, said in self.predicates.get(cell, {}).items():
                if not hollow or kind != "never":
                    reasons.append(f"{_WHO[cell.role, cell.way]} {said}")
        return Doubts(tuple(reasons), bool(hollow))

    def by_class(self, cells: Iterable[Cell]) -> Iterator[tuple[str, dict[Cell, list[float]]]]:
        """Balanced accuracy and the recall of the smallest classes, as labels and values by cell and seed.

        Nothing where the test half's classes are about equal in size, or where a result does not know them.
        """
        records = {cell: [Record.of(one) for one in self.results.get(cell, {}).values()] for cell in cells}
        every = [one for some in records.values() for one in some]
        if not every or not every[0].unequal or not all(one.recall for one in every):
            return
        first = every[0]
        yield "balanced accuracy", {cell: [one.balanced or 0.0 for one in some] for cell, some in records.items()}
        tested = [number for number, count in enumerate(first.images) if count]
        for number in sorted(tested, key=lambda number: first.images[number])[:SMALLEST]:
            recall = {cell: [one.recall[number] or 0.0 for one in some] for cell, some in records.items()}
            yield f"recall of {first.names[number]}", recall

    def _described(self, cell: Cell) -> str:
        if cell.way == ALONE:
            return f"the student {cell.network} alone"
        setting = self.settings.get(cell.setting, cell.setting)
        teacher = "both teachers" if cell.way == BOTH else f"the {_WAYS[cell.way]} teacher"
        teacher += f" ({setting})" * bool(setting)
        if cell.role == "teacher":
            return f"{teacher} {cell.network}"
        return f"the student {cell.network} with {cell.method} from {teacher}"

    def _below(self, cell: Cell) -> str:
        """Says that a teacher scored below its student alone, as means over seeds; empty if it did not."""
        alone = self.results.get(Cell(cell.pair, "student", ALONE), {})
        both = alone.keys() & self.results[cell].keys()
        if not both:
            return ""
        ours, theirs = (fmean(some[seed]["accuracy"] for seed in both) for some in (alone, self.results[cell]))
        if round(theirs, 2) >= round(ours, 2):
            return ""
        return f"scored below {cell.pair.student} alone ({theirs:.2f} % against {ours:.2f} %)"


def _mark(number: int) -> str:
    return "".join(_DIGITS[int(digit)] for digit in str(number))
