"""Run: a frozen record that names everything that determines a trained network; its id is a hash of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from sftn.checkpoint import write_atomically
from sftn.distill import Objective, Term
from sftn.errors import InputError
from sftn.fit import Schedule
from sftn.pair import Alignment

FORMAT = 1
"""Of run.json and result.json; part of the id."""


@dataclass(frozen=True)
class Data:
    """Which images."""

    name: str
    fingerprint: str
    """A hash of all pixels and labels."""
    limit: int | None = None
    classes: int | None = None
    size: int | None = None


@dataclass(frozen=True)
class Friendly:
    """How a teacher is made friendly to its students: the arguments of `sftn.teacher.StudentBranches`."""

    student: str
    """A network's name, or several joined by +."""
    branches: tuple[int, ...] | None = None
    teacher_ce: float = 1.0
    branch_kl: float = 3.0
    branch_ce: float = 1.0
    temperature: float = 1.0
    reduction: Literal["mean", "sum"] = "mean"
    detach: bool = False


@dataclass(frozen=True)
class FineTune:
    """How a network that comes with trained weights learns on: its classifier is new, the rest is not."""

    backbone_rate: float = 1.0
    """The learning rate of stem and stages, over that of the classifier and of branches."""
    frozen_stages: int = 0
    """So many stages stay as they are, and the stem with them; 0 freezes nothing."""


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

    def write(self, folder: Path) -> None:
        """Leave the record in the run's folder, which is made if need be.

        Raises:
            InputError: the folder cannot be made or written, or holds another run.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make {folder}: {error.strerror}; choose another --out") from error
        path = folder / "run.json"
        if not path.exists():
            write_json(path, {"format": FORMAT, "id": self.id, **asdict(self)})
        elif Run.read(folder).id != self.id:
            raise InputError(f"{folder} holds another run: choose another --out")

    @staticmethod
    def read(folder: Path) -> Run:
        """The record in a run's folder.

        Raises:
            InputError: there is none, or it is damaged or of another format.
        """
        record = read_json(folder / "run.json")
        try:
            run = _run(record)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{folder / 'run.json'} is not a record of a run ({error})") from error
        if record.get("format") != FORMAT or record.get("id") != run.id:
            raise InputError(f"{folder / 'run.json'} was edited or is of another format: train it again elsewhere")
        return run


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record for people and programs; atomic."""
    write_atomically(path, (json.dumps(record, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        InputError: it is missing or no JSON object.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; is it a run's folder?") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(record, dict):
        raise InputError(f"{path} is not a record of a run")
    return record


def result(folder: Path, run: Run) -> dict[str, Any] | None:
    """What a run left, or None if it is not done.

    Raises:
        InputError: the result is damaged or of another run.
    """
    path = folder / "result.json"
    if not path.exists():
        return None
    record = read_json(path)
    if record.get("format") != FORMAT or record.get("id") != run.id:
        raise InputError(f"{path} is of another run or format: remove its folder to train it again")
    return record


def sha256(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _run(record: Mapping[str, Any]) -> Run:
    friendly, teacher, objective = record["friendly"], record["teacher"], record["objective"]
    if teacher is not None:
        teacher = _run(teacher) if "data" in teacher else Weights(**teacher)
    if objective is not None:
        objective = Objective(**{**objective, "terms": tuple(Term(**term) for term in objective["terms"])})
    if friendly is not None:
        branches = friendly["branches"]
        friendly = Friendly(**{**friendly, "branches": None if branches is None else tuple(branches)})
    alignment, fine_tune = record["alignment"], record.get("fine_tune")
    return Run(
        network=str(record["network"]),
        data=Data(**record["data"]),
        seed=int(record["seed"]),
        schedule=Schedule(**{**record["schedule"], "milestones": tuple(record["schedule"]["milestones"])}),
        precision=str(record["precision"]),
        friendly=friendly,
        teacher=teacher,
        objective=objective,
        alignment=None if alignment is None else tuple((int(s), int(t)) for s, t in alignment),
        fine_tune=None if fine_tune is None else FineTune(**fine_tune),
    )
