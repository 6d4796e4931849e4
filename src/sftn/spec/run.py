"""Run: a frozen record that names everything that determines a trained network; its id is a hash of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, get_args

from sftn.errors import unknown
from sftn.spec.alignment import Alignment
from sftn.spec.objective import Objective
from sftn.spec.schedule import Schedule

FORMAT = 1
"""Of run.json and result.json; part of the id."""
OnNan = Literal["stop", "skip", "restart"]


@dataclass(frozen=True)
class Data:
    """Which images."""

    name: str
    fingerprint: str
    """A hash of all pixels and labels; of streamed images, of their names, bytes and labels."""
    limit: int | None = None
    classes: int | None = None
    size: int | None = None
    stream: bool = False
    """Whether images are read when they are wanted, which comes with another augmentation."""
    damaged: Literal["refuse", "skip"] = "refuse"
    """Whether images that cannot be decoded were left out."""


@dataclass(frozen=True, kw_only=True)
class Branches:
    """How branches train their teacher; the defaults are the paper's."""

    branches: tuple[int, ...] | None = None
    """Which branches to grow, counted from 1; all by default."""
    teacher_ce: float = 1.0
    """λ_T, the weight of the teacher's own cross-entropy."""
    branch_kl: float = 3.0
    """λ_R^KL, the weight of the branches' divergence from the teacher."""
    branch_ce: float = 1.0
    """λ_R^CE, the weight of the branches' cross-entropy."""
    temperature: float = 1.0
    """τ of that divergence."""
    reduction: Literal["mean", "sum"] = "mean"
    """Over the branches."""
    detach: bool = False
    """Keep the divergence's gradient from the teacher's logits."""


@dataclass(frozen=True, kw_only=True)
class Friendly(Branches):
    """How a teacher is made friendly to its students: what `sftn.StudentBranches` takes."""

    student: str
    """A network's name, or several joined by +."""

    @staticmethod
    def to(students: Sequence[str], branches: Branches = Branches()) -> Friendly:
        """Made for some students, by branches of theirs."""
        return Friendly(student="+".join(students), **{f.name: getattr(branches, f.name) for f in fields(Branches)})


@dataclass(frozen=True)
class FineTune:
    """How a teacher that comes with trained weights (NAME@pretrained) is fine-tuned; its classifier is new."""

    backbone_rate: float = 1.0
    """Learning rate of its stem and stages, as a multiple of that of its new classifier and of branches."""
    frozen_stages: int = 0
    """Number of its stages that are frozen, and its stem with them."""


@dataclass(frozen=True)
class Weights:
    """A trained network that comes from a file."""

    network: str
    sha256: str
    path: str
    """Where it lies; not part of a run's id."""


@dataclass(frozen=True)
class Run:
    """One trained network: a plain one, a student-friendly teacher (`friendly`) or a distilled student (`teacher`)."""

    network: str
    data: Data
    seed: int
    schedule: Schedule
    precision: str
    friendly: Friendly | None = None
    teacher: Run | Weights | None = None
    objective: Objective | None = None
    alignment: Alignment | None = None
    fine_tune: FineTune | None = None
    on_nan: OnNan = "stop"
    """What a number of training that is not finite leads to: the end of the run, its step is skipped, or the run begins
    again with half the learning rate."""
    norm_shares: int = 1
    """Into how many shares batch norm cuts a batch: 1 for statistics of all of it, whatever the number of processes."""

    def __post_init__(self) -> None:
        if self.on_nan not in get_args(OnNan):
            raise unknown("answer to a NaN", str(self.on_nan), get_args(OnNan))

    @property
    def name(self) -> str:
        """What it is, in a word that fits into a file name."""
        name = self.network
        if self.friendly is not None:
            name += f"-for-{self.friendly.student}"
        if self.teacher is not None and self.objective is not None:
            teacher = self.teacher.name if isinstance(self.teacher, Run) else self.teacher.network
            name += f"-{self.objective.name}-from-{teacher}"
        return name

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that change with whatever determines the outcome, and with nothing else."""
        return hashlib.sha256(json.dumps(_identity(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def folder(self) -> str:
        """The name of its folder."""
        readable = re.sub(r"[^A-Za-z0-9_.+-]+", "-", f"{self.name}-{self.data.name}")[:120]
        return f"{readable}-s{self.seed}-{self.id}"


def _identity(value: Any) -> Any:
    """A record without what does not determine the outcome: where a file lies, and values that are the default.

    Leaving defaults out lets a later version add a field without making every run another one; changing a default
    needs a new `FORMAT`.
    """
    if isinstance(value, tuple | list):
        return [_identity(part) for part in value]
    if not is_dataclass(value):
        return dict(value) if isinstance(value, Mapping) else value
    kept = {f.name: getattr(value, f.name) for f in fields(value) if f.name != "path"}
    defaults = {f.name: f.default for f in fields(value)}
    named = {name: _identity(part) for name, part in kept.items() if part != defaults[name]}
    return {"kind": type(value).__name__, "format": FORMAT, **named}
