"""What there is of a list of runs: which are done, held by other processes, broken or left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sftn.errors import InputError
from sftn.experiments.grid import Planned
from sftn.runs.folder import BROKEN, DONE, RUNNING, Entry, RunFolder
from sftn.spec.run import Run


@dataclass(frozen=True)
class Survey:
    """What is there of a list of runs."""

    planned: tuple[Planned, ...]
    entries: dict[str, Entry]
    """By a run's id; runs without a folder are not among them."""

    @staticmethod
    def of(planned: Sequence[Planned], out: Path) -> Survey:
        """Look at the folder of every run; nothing is written."""
        folders = {item.run.id: RunFolder(out / item.run.folder) for item in planned}
        return Survey(tuple(planned), {key: at.inspect() for key, at in folders.items() if at.path.exists()})

    def runs(self, state: str | None, role: str | None = None) -> list[Run]:
        """The runs in a state (None: that are not done), of teachers or students."""
        found = []
        for item in self.planned:
            entry = self.entries.get(item.run.id)
            now = None if entry is None else entry.state
            if (now != DONE if state is None else now == state) and role in (None, item.cell.role):
                found.append(item.run)
        return found

    def rows(self) -> list[tuple[str, ...]]:
        """For people: teachers and students, how many, done, held by others, left."""
        rows: list[tuple[str, ...]] = [("", "planned", "done", "others are at it", "left")]
        for role in ("teacher", "student"):
            planned = sum(item.cell.role == role for item in self.planned)
            done, held = len(self.runs(DONE, role)), len(self.runs(RUNNING, role))
            rows.append((f"{role}s", *(str(n) for n in (planned, done, held, planned - done - held))))
        return rows

    def check(self) -> None:
        """See that nothing that is there stands in the way.

        Raises:
            InputError: a folder holds something else, or a result that is damaged.
        """
        for run in self.runs(BROKEN):
            raise InputError(self.entries[run.id].reason)
