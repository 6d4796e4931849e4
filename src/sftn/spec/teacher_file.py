"""What a person says about a teacher's weights file that the file does not record itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TeacherFile:
    """What a teacher's weights file does not record itself; for nothing else."""

    teacher_network: str | None = None
    """The network that a weights file belongs to, if the file does not name it."""
    teacher_classes: Path | None = None
    """Text file with the names of the classes of a weights file that does not record them: one a line, in the order of
    its outputs."""
    teacher_mean: tuple[float, ...] = ()
    """Mean by which its images were normalised, for pixels from 0 to 1: one number, or one per channel."""
    teacher_std: tuple[float, ...] = ()
    """Standard deviation by which its images were normalised, for pixels from 0 to 1."""
