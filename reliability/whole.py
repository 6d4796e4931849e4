"""An undisturbed run, and what an ill-treated one has to be compared with."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliability import small
from reliability.children import sftn_command

HELD = ("is being trained by", "was just taken by")
"""What the commands say while somebody's lease lasts."""


@dataclass(frozen=True)
class Whole:
    """An undisturbed run."""

    kind: str
    out: Path
    """The folder of all undisturbed runs."""
    folder: str
    """The name of its own."""
    seconds: float
    operations: tuple[str, ...]
    """What it did to the disk with a checkpoint at every step, in order."""
    left: dict[str, Any]

    def prepare(self, disk: Path) -> Path:
        """The folder of runs on a new disk, with the teacher that this kind needs; what was there is removed."""
        shutil.rmtree(disk, ignore_errors=True)
        runs = disk / "runs"
        disk.mkdir(parents=True)
        if self.kind not in (small.STANDARD, small.FRIENDLY):
            teacher = small.teacher(self.out)
            shutil.copytree(teacher, runs / teacher.name)
        return runs

    def differences(self, runs: Path) -> list[str]:
        """What this run and the one in `runs` do not have in common."""
        try:
            found = small.left(runs / self.folder)
        except (OSError, ValueError) as error:
            return [f"what is left cannot be read: {error}"]
        return [f"its {name} differ: {found[name]}, not {own}" for name, own in self.left.items() if own != found[name]]


def undisturbed(kinds: Sequence[str], place: Path, epochs: int) -> dict[str, Whole]:
    """Carry out a run of each kind; the standard teacher is always among them.

    Raises:
        RuntimeError: one does not end well.
    """
    found = {}
    for kind in dict.fromkeys((small.STANDARD, *kinds)):
        runs, notes = place / "disk" / "runs", place / "notes" / kind
        runs.parent.mkdir(parents=True, exist_ok=True)
        before = set(runs.iterdir()) if runs.exists() else set()
        ended = sftn_command(small.command(kind, runs, epochs=epochs), notes, disk=runs.parent).end()
        if ended.code != 0:
            raise RuntimeError(f"{kind} does not even end undisturbed: {ended.complained}")
        (folder,) = set(runs.iterdir()) - before
        operations = tuple((notes / "operations").read_text().split())
        found[kind] = Whole(kind, runs, folder.name, ended.seconds, operations, small.left(folder))
    return found
