"""Run: a frozen record that names everything that determines a trained network; its id is a hash of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sftn import records
from sftn.distill import Objective
from sftn.durable import sync_folder, write_atomically
from sftn.errors import InputError, unknown
from sftn.faults import cannot
from sftn.fit import Schedule
from sftn.pair import Alignment

FORMAT = 1
"""Of run.json and result.json; part of the id."""
OnNan = Literal["stop", "skip", "restart"]
_RESULT = {
    **dict.fromkeys(("accuracy", "best_accuracy", "seconds"), float),
    **dict.fromkeys(("test", "train"), Mapping[str, float]),
    "parameters": int,
    "environment": Mapping[str, str | int | bool | None],
    "weights_sha256": str,
}
"""What is read from a result, where it is there."""


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

    def write(self, folder: Path) -> None:
        """Leave the record in the run's folder, which is made if need be.

        Raises:
            InputError: the folder cannot be made or written, or holds another run.
        """
        try:
            new = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            for path in new:
                sync_folder(path.parent)
        except OSError as error:
            raise cannot("make", folder, error) from error
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
        path = folder / "run.json"
        record = read_json(path)
        try:
            run = records.made(Run, {name: value for name, value in record.items() if name not in ("format", "id")})
            own = run.id
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{path} is not a record of a run ({error}): train it again elsewhere") from error
        if record.get("format") != FORMAT or record.get("id") != own:
            raise InputError(f"{path} was edited or is of another format: train it again elsewhere")
        return run


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record for people and programs; atomic."""
    write_atomically(path, (json.dumps(record, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        InputError: it is missing, larger than `sftn.records.LARGEST` or no JSON object.
    """
    text = records.read_text(path)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}): remove it, or copy it again") from error
    if not isinstance(record, dict):
        raise InputError(f"{path} is not a record of a run: remove it, or copy it again")
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
    try:
        for name, kind in _RESULT.items():
            if name in record:
                records.typed(record[name], kind)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} garbles its {name} ({error}): remove its folder to train it again") from error
    return record


def sha256(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal digits.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise cannot("read", path, error) from error


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
