"""What can be asked for in one go: compare, train a teacher, distil. One record each, for Python and commands alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from sftn.errors import InputError, unknown
from sftn.spec.execution import Execution
from sftn.spec.images import Images
from sftn.spec.run import Branches, FineTune
from sftn.spec.training import Training

Job = TypeVar("Job")


@dataclass(frozen=True)
class Compare:
    """Compare a student alone, taught by a standard teacher and by a student-friendly one, over seeds."""

    teacher: str = "resnet20"
    """The big network."""
    student: tuple[str, ...] = ("resnet8",)
    """The small network, or several: the teacher is then made friendly to all of them."""
    unknown: tuple[str, ...] = ()
    """Students that are distilled as well, but that the teacher is not made for."""
    methods: tuple[str, ...] = ("kd",)
    """Distillation methods, e.g. kd crd oh, or sums such as crd+kd or crd:0.5+kd:2."""
    seeds: int = 3
    """How many seeds."""
    alone: bool = False
    """Feature methods without KD beside them."""
    temperature: float | None = None
    """Temperature of KD; 4 if not given, and 2 for kd@std."""
    align: tuple[str, ...] = ()
    """Which student stage goes with which teacher stage, e.g. 2:1 3:2 4:3; by default the last stages backwards."""
    images: Images = Images()
    training: Training = Training()
    branches: Branches = Branches()
    fine_tune: FineTune = FineTune()
    execution: Execution = Execution()
    out: Path = Path("runs")
    """The folder of all runs; what is finished there is not trained again."""


@dataclass(frozen=True)
class TrainTeacher:
    """Train a teacher that is friendly to a student, or a standard one."""

    teacher: str
    """The network to train."""
    student: tuple[str, ...] = ()
    """The network that it will teach, or several; none for a standard teacher."""
    standard: bool = False
    """Train it without branches."""
    seed: int = 0
    """Seed of weights and batches."""
    align: tuple[str, ...] = ()
    """Which student stage goes with which teacher stage, e.g. 2:1 3:2 4:3; by default the last stages backwards."""
    images: Images = Images()
    training: Training = Training()
    branches: Branches = Branches()
    fine_tune: FineTune = FineTune()
    execution: Execution = Execution()
    out: Path = Path("runs")
    """The folder of all runs; what is finished there is not trained again."""


@dataclass(frozen=True)
class Distill:
    """Distil a trained teacher into a student."""

    teacher: str
    """The folder of a run, or a file of weights (ours, RepDistiller's or mdistiller's)."""
    student: str
    """The network that learns."""
    method: str = "kd"
    """kd, crd, … or a sum such as crd+kd."""
    teacher_network: str | None = None
    """The network that a file of weights belongs to, where the file does not say."""
    alone: bool = False
    """A feature method without KD beside it."""
    temperature: float | None = None
    """Temperature of KD; 4 if not given, and 2 for kd@std."""
    seed: int = 0
    """Seed of weights and batches."""
    align: tuple[str, ...] = ()
    """Which student stage goes with which teacher stage, e.g. 2:1 3:2 4:3; by default the last stages backwards."""
    images: Images = Images()
    training: Training = Training()
    execution: Execution = Execution()
    out: Path = Path("runs")
    """The folder of all runs; what is finished there is not trained again."""


ELSEWHERE = {"temperature": "branch_temperature"}
"""Options of `Branches` that a job has under another name, since its own temperature is that of KD."""


def asked(kind: type[Job], options: Mapping[str, Any]) -> Job:
    """A job from options by name, those of its parts among them: `asked(Compare, {"epochs": 2, "seeds": 1})`.

    A single value stands for a tuple of one, and text for a path.

    Raises:
        InputError: there is no such option, or one that is needed is missing.
    """
    left = dict(options)
    job: Job = _made(kind, left, {})
    if left:
        raise unknown("option", next(iter(left)), option_names(kind))
    return job


def option_names(kind: type[Any]) -> list[str]:
    """Every option of a job, as `asked` takes them."""
    hints, names = get_type_hints(kind), []
    for each in fields(kind):
        hint: Any = hints[each.name]
        if is_dataclass(hint) and isinstance(hint, type):
            elsewhere = ELSEWHERE if hint is Branches else {}
            names += [elsewhere.get(name, name) for name in option_names(hint)]
        else:
            names.append(each.name)
    return names


def _made(kind: type[Any], left: dict[str, Any], elsewhere: Mapping[str, str]) -> Any:
    hints: dict[str, Any] = get_type_hints(kind)
    values: dict[str, Any] = {}
    for each in fields(kind):
        hint, name = hints[each.name], elsewhere.get(each.name, each.name)
        if name in left:
            values[each.name] = _fitting(left.pop(name), hint)
        elif is_dataclass(hint) and isinstance(hint, type):
            values[each.name] = _made(hint, left, ELSEWHERE if hint is Branches else {})
        elif each.default is MISSING and each.default_factory is MISSING:
            raise InputError(f"{kind.__name__} needs {name}")
    return kind(**values)


def _fitting(value: Any, hint: Any) -> Any:
    text = str(hint)
    if "tuple" in text and value is not None:
        return (value,) if isinstance(value, str) or not hasattr(value, "__iter__") else tuple(value)
    return Path(value) if "Path" in text and isinstance(value, str) else value
