"""The three jobs: compare, train a teacher, distil. One record each, shared by the Python API and the commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from itertools import product
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from sftn.errors import InputError, unknown
from sftn.spec.execution import Execution
from sftn.spec.images import Images
from sftn.spec.run import Branches, FineTune, Weighting
from sftn.spec.teacher_file import TeacherFile
from sftn.spec.training import Training

Job = TypeVar("Job")


@dataclass(frozen=True, kw_only=True)
class BranchValues(Branches):
    """`Branches` whose weights may have several values each: a comparison has rows for every combination."""

    teacher_ce: tuple[float, ...] = (1.0,)  # type: ignore[assignment]
    """λ_T, the weight of the teacher's own cross-entropy."""
    branch_kl: tuple[float, ...] = (3.0,)  # type: ignore[assignment]
    """λ_R^KL, the weight of the branches' divergence from the teacher; several values are compared."""
    branch_ce: tuple[float, ...] = (1.0,)  # type: ignore[assignment]
    """λ_R^CE, the weight of the branches' cross-entropy; several values are compared."""
    temperature: tuple[float, ...] = (1.0,)  # type: ignore[assignment]
    """Temperature τ of the branches' divergence from the teacher; several values are compared."""

    def each(self) -> list[Branches]:
        """The settings of every combination, one value each.

        Raises:
            InputError: an option has no value, or one twice.
        """
        names = [f.name for f in fields(Branches)]
        given = {name: getattr(self, name) for name in names}
        values = {name: value for name, value in given.items() if name in _SWEPT}
        for name, several in values.items():
            if not several or len(set(several)) < len(several):
                raise InputError(f"{ELSEWHERE.get(name, name)} is {several}: give one value, or several different ones")
        return [Branches(**given | dict(zip(values, chosen))) for chosen in product(*values.values())]


_SWEPT = ("teacher_ce", "branch_kl", "branch_ce", "temperature")


@dataclass(frozen=True)
class Compare:
    """Train a student alone, with a standard teacher and with a student-friendly one, and compare over seeds."""

    teacher: str = "resnet20"
    """The large network; or a weights file or a run's folder, which then is the standard teacher as it is (unless it
    has other classes), and from which the student-friendly teacher starts."""
    student: tuple[str, ...] = ("resnet8",)
    """The small network, or several; the teacher is then trained for all of them."""
    unknown: tuple[str, ...] = ()
    """Further students that are distilled but that the teacher is not trained for."""
    methods: tuple[str, ...] = ("kd",)
    """Distillation methods, e.g. kd crd oh, or sums such as crd+kd or crd:0.5+kd:2."""
    seeds: tuple[int, ...] = (3,)
    """Number of seeds, or the seeds themselves if there are several: 0 1 2."""
    alone: bool = False
    """Use feature methods without adding KD."""
    temperature: float | None = None
    """Temperature of KD; by default 4, or 2 for kd@std."""
    align: tuple[str, ...] = ()
    """Pairs of matching student and teacher stages, e.g. 2:1 3:2 4:3; by default matched from the last backwards."""
    both_teachers: bool = False
    """Also train students that both teachers teach together; methods on features learn from the standard one."""
    ensemble: Weighting = "mean"
    """How both teachers' softened outputs are weighted together: mean, equally; ca, by each one's cross-entropy on an
    image (CA-MKD)."""
    friendly: bool = True
    """Also train the student-friendly teacher and its students; without, only the student alone and with a standard
    teacher."""
    within: float | None = None
    """Name the smallest student that is at most this many points below the best teacher."""
    images: Images = Images()
    training: Training = Training()
    branches: BranchValues = BranchValues()
    fine_tune: FineTune = FineTune()
    teacher_file: TeacherFile = TeacherFile()
    execution: Execution = Execution()
    out: Path = Path("runs")
    """The folder of all runs; finished runs are not trained again."""


@dataclass(frozen=True)
class TrainTeacher:
    """Train a student-friendly teacher, or a standard one."""

    teacher: str
    """The network to train; or a weights file or a run's folder to start from, with a new classifier if it does not
    know the classes."""
    student: tuple[str, ...] = ()
    """The network that it will teach, or several; omit for a standard teacher."""
    standard: bool = False
    """Train a standard teacher, without student branches."""
    seed: int = 0
    """Random seed of the initial weights and the batches."""
    align: tuple[str, ...] = ()
    """Pairs of matching student and teacher stages, e.g. 2:1 3:2 4:3; by default matched from the last backwards."""
    images: Images = Images()
    training: Training = Training()
    branches: Branches = Branches()
    fine_tune: FineTune = FineTune()
    teacher_file: TeacherFile = TeacherFile()
    execution: Execution = Execution()
    out: Path = Path("runs")
    """The folder of all runs; finished runs are not trained again."""


@dataclass(frozen=True)
class Distill:
    """Distil a trained teacher, or several together, into a student."""

    student: str
    """The network to train."""
    teacher: tuple[str, ...] = ()
    """The folder of a run, or a weights file (FILE#PART for one of several sets of weights in it); or several, of which
    methods on features learn from the first. May be left out with --generations."""
    ensemble: Weighting = "mean"
    """How several teachers' softened outputs are weighted: mean, equally; ca, by each one's cross-entropy on an image
    (CA-MKD)."""
    generations: int = 1
    """Born-again students: each is taught by the one before it, the first by the teacher, or, if there is none, by the
    same network trained on labels alone."""
    method: str = "kd"
    """Distillation method: kd, crd, … or a sum such as crd+kd."""
    alone: bool = False
    """Use a feature method without adding KD."""
    temperature: float | None = None
    """Temperature of KD; by default 4, or 2 for kd@std."""
    seed: int = 0
    """Random seed of the initial weights and the batches."""
    align: tuple[str, ...] = ()
    """Pairs of matching student and teacher stages, e.g. 2:1 3:2 4:3; by default matched from the last backwards."""
    images: Images = Images()
    training: Training = Training()
    teacher_file: TeacherFile = TeacherFile()
    execution: Execution = Execution()
    out: Path = Path("runs")
    """The folder of all runs; finished runs are not trained again."""


ELSEWHERE = {"temperature": "branch_temperature"}
"""Options of `Branches` that a job has under another name, because a job's own temperature is that of KD."""


def asked(kind: type[Job], options: Mapping[str, Any]) -> Job:
    """Build a job from options by name, including those of its parts: `asked(Compare, {"epochs": 2, "seeds": 1})`.

    A single value may stand for a tuple of one, and a string for a path.

    Raises:
        InputError: an option is unknown, or a required one is missing.
    """
    left = dict(options)
    job: Job = _build(kind, left, {})
    if left:
        raise unknown("option", next(iter(left)), option_names(kind))
    return job


def option_names(kind: type[Any]) -> list[str]:
    """The names of all options of a job, as `asked` takes them."""
    hints, names = get_type_hints(kind), []
    for each in fields(kind):
        hint: Any = hints[each.name]
        if is_dataclass(hint) and isinstance(hint, type):
            elsewhere = ELSEWHERE if issubclass(hint, Branches) else {}
            names += [elsewhere.get(name, name) for name in option_names(hint)]
        else:
            names.append(each.name)
    return names


def _build(kind: type[Any], left: dict[str, Any], elsewhere: Mapping[str, str]) -> Any:
    hints: dict[str, Any] = get_type_hints(kind)
    values: dict[str, Any] = {}
    for each in fields(kind):
        hint, name = hints[each.name], elsewhere.get(each.name, each.name)
        if name in left:
            values[each.name] = _coerced(left.pop(name), hint)
        elif is_dataclass(hint) and isinstance(hint, type):
            values[each.name] = _build(hint, left, ELSEWHERE if issubclass(hint, Branches) else {})
        elif each.default is MISSING and each.default_factory is MISSING:
            raise InputError(f"{kind.__name__} needs {name}")
    return kind(**values)


def _coerced(value: Any, hint: Any) -> Any:
    text = str(hint)
    if "tuple" in text and value is not None:
        return (value,) if isinstance(value, str) or not hasattr(value, "__iter__") else tuple(value)
    return Path(value) if "Path" in text and isinstance(value, str) else value
