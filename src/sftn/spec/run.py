"""`Run`: a frozen record of everything that determines a trained network, whose id is a hash of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sftn.errors import unknown
from sftn.spec.alignment import Alignment
from sftn.spec.objective import Objective
from sftn.spec.schedule import Schedule

FORMAT = 1
"""Format version of run.json and result.json; part of a run's id."""
OnNan = Literal["stop", "skip", "restart"]
Weighting = Literal["mean", "ca"]


@dataclass(frozen=True)
class Data:
    """The images that a run is trained and tested on."""

    name: str
    fingerprint: str
    """Hash of all pixels and labels, and of the user's names of classes; for streamed images, of their names, bytes and
    labels instead of pixels."""
    limit: int | None = None
    classes: int | None = None
    size: int | None = None
    stream: bool = False
    """Whether images are read from disk when needed, which implies a different augmentation."""
    damaged: Literal["refuse", "skip"] = "refuse"
    """Whether images that cannot be decoded were refused or skipped."""
    path: str | None = field(default=None, compare=False)
    """Absolute path of the folder that was read; not part of a run's id."""


@dataclass(frozen=True, kw_only=True)
class Branches:
    """How student branches train their teacher; the defaults are the paper's."""

    branches: tuple[int, ...] | None = None
    """Which branches to add, counted from 1; all by default."""
    teacher_ce: float = 1.0
    """λ_T, the weight of the teacher's own cross-entropy."""
    branch_kl: float = 3.0
    """λ_R^KL, the weight of the branches' divergence from the teacher."""
    branch_ce: float = 1.0
    """λ_R^CE, the weight of the branches' cross-entropy."""
    temperature: float = 1.0
    """Temperature τ of the branches' divergence from the teacher."""
    reduction: Literal["mean", "sum"] = "mean"
    """How the branches' losses are combined: mean or sum."""
    detach: bool = False
    """Stop the divergence's gradient at the teacher's logits."""
    branch_logits: Literal["plain", "std"] = "plain"
    """Logits that the branches' divergence compares: as they are (plain), or standardised (std, arXiv:2403.01427)."""


@dataclass(frozen=True, kw_only=True)
class Friendly(Branches):
    """How a teacher is trained for its students: the settings of `sftn.StudentBranches`."""

    student: str
    """The student's name, or several joined by +."""

    @staticmethod
    def to(students: Sequence[str], branches: Branches = Branches()) -> Friendly:
        """The settings of a teacher that is trained for these students with these branches."""
        return Friendly(student="+".join(students), **{f.name: getattr(branches, f.name) for f in fields(Branches)})


@dataclass(frozen=True)
class FineTune:
    """How a teacher with pretrained weights (NAME@pretrained) and a new classifier is fine-tuned."""

    backbone_rate: float = 1.0
    """Learning rate of its stem and stages, as a multiple of that of its new classifier and of the branches."""
    frozen_stages: int = 0
    """Number of stages that are frozen, together with the stem."""


@dataclass(frozen=True)
class Weights:
    """A trained network from a weights file."""

    network: str
    sha256: str
    path: str
    """The file's path; not part of a run's id."""
    part: str | None = None
    """Which of several sets of weights in the file; None for the one that `load_weights` takes by rule."""
    classes: tuple[str, ...] | None = None
    """Names of its classes in the order of the logits, if the file does not record them."""
    mean: tuple[float, ...] | None = None
    """Mean and standard deviation of the channels of its images, pixels in 0..255, if the file does not record them."""
    std: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        """The network and the file's name."""
        part = "" if self.part is None else f"#{self.part}"
        return f"{self.network} ({Path(self.path).name}{part})"


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
    """Response to a non-finite value in training: stop the run, skip the step, or restart with half the learning
    rate."""
    norm_shares: int = 1
    """Number of shares that batch norm splits a batch into; 1 uses the whole batch, across all processes."""
    start: Weights | None = None
    """Weights that its training starts from, instead of random ones."""
    code: str = ""
    """Hash of the source of the networks and methods that are not the package's (`sftn.runs.own_code`)."""
    further: tuple[Run | Weights, ...] = ()
    """Teachers beside `teacher`, from which alone methods on features learn."""
    ensemble: Weighting = "mean"
    """How several teachers' softened outputs are weighted: equally, or by each one's cross-entropy on an image."""

    def __post_init__(self) -> None:
        if self.on_nan not in get_args(OnNan):
            raise unknown("on_nan value", str(self.on_nan), get_args(OnNan))
        if self.ensemble not in get_args(Weighting):
            raise unknown("weighting of teachers", str(self.ensemble), get_args(Weighting))

    @property
    def teachers(self) -> tuple[Run | Weights, ...]:
        """All networks that it learns from, the first one first."""
        return () if self.teacher is None else (self.teacher, *self.further)

    @property
    def name(self) -> str:
        """A short description that can be part of a file name."""
        name = self.network + ("" if self.start is None else "-tuned")
        if self.friendly is not None:
            name += f"-for-{self.friendly.student}"
        if self.teacher is not None and self.objective is not None:
            names = [one.name if isinstance(one, Run) else one.network for one in self.teachers]
            weighting = "" if self.ensemble == "mean" else f"-by-{self.ensemble}"
            name += f"-{self.objective.name}-from-{'-and-'.join(names)}{weighting}"
        return name

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that change with everything that determines the outcome, and with nothing else."""
        return hashlib.sha256(json.dumps(_identity(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def folder(self) -> str:
        """The name of the run's folder."""
        readable = re.sub(r"[^A-Za-z0-9_.+-]+", "-", f"{self.name}-{self.data.name}")[:120]
        return f"{readable}-s{self.seed}-{self.id}"


def _identity(value: Any) -> Any:
    """A record without what does not determine the outcome: paths of files, and fields with default values.

    Omitting defaults lets a later version add a field without changing every run's id; changing a default requires a
    new `FORMAT`.
    """
    if isinstance(value, tuple | list):
        return [_identity(part) for part in value]
    if not is_dataclass(value):
        return dict(value) if isinstance(value, Mapping) else value
    kept = {f.name: getattr(value, f.name) for f in fields(value) if f.name != "path"}
    defaults = {f.name: f.default for f in fields(value)}
    named = {name: _identity(part) for name, part in kept.items() if part != defaults[name]}
    return {"kind": type(value).__name__, "format": FORMAT, **named}
