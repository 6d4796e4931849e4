"""Undisturbed runs, with which disturbed ones are compared."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliability import small
from reliability.children import sftn_command

HELD = ("is being trained by", "was just taken by")
"""Messages of the commands while another process holds the lease."""


@dataclass(frozen=True)
class Whole:
    """An undisturbed run."""

    kind: str
    out: Path
    """Folder of all undisturbed runs."""
    folder: str
    """Name of its own folder."""
    seconds: float
    operations: tuple[str, ...]
    """Its disk operations with a checkpoint at every step, in order."""
    left: dict[str, Any]

    def prepare(self, disk: Path) -> Path:
        """Prepare the folder of runs on a new disk, with the teacher that this kind needs; old contents are removed."""
        shutil.rmtree(disk, ignore_errors=True)
        runs = disk / "runs"
        disk.mkdir(parents=True)
        if self.kind not in (small.STANDARD, small.FRIENDLY):
            teacher = small.teacher(self.out)
            shutil.copytree(teacher, runs / teacher.name)
        return runs

    def differences(self, runs: Path) -> list[str]:
        """List differences between this run and the one in `runs`."""
        try:
            found = small.left(runs / self.folder)
        except (OSError, ValueError) as error:
            return [f"its output cannot be read: {error}"]
        return [f"its {name} differ: {found[name]}, not {own}" for name, own in self.left.items() if own != found[name]]


def undisturbed(kinds: Sequence[str], place: Path, epochs: int) -> dict[str, Whole]:
    """Carry out a run of each kind; the standard teacher is always among them.

    Raises:
        RuntimeError: one fails.
    """
    found = {}
    for kind in dict.fromkeys((small.STANDARD, *kinds)):
        runs, notes = place / "disk" / "runs", place / "notes" / kind
        runs.parent.mkdir(parents=True, exist_ok=True)
        before = set(runs.iterdir()) if runs.exists() else set()
        ended = sftn_command(small.command(kind, runs, epochs=epochs), notes, disk=runs.parent).end()
        if ended.code != 0:
            raise RuntimeError(f"{kind} fails even undisturbed: {ended.complained}")
        (folder,) = set(runs.iterdir()) - before
        operations = tuple((notes / "operations").read_text().split())
        found[kind] = Whole(kind, runs, folder.name, ended.seconds, operations, small.left(folder))
    return found
