"""What a student minimises, as plain data: ce·CE + kd·KD + Σ weight·method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sftn.errors import InputError


@dataclass(frozen=True)
class Term:
    """A method in an objective: its weight β and its hyper-parameters, where they are not the method's defaults."""

    method: str
    weight: float = 1.0
    options: Mapping[str, float | int | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Objective:
    """ce·CE + kd·KD + Σ weight·method."""

    name: str
    ce: float = 1.0
    kd: float = 0.0
    terms: tuple[Term, ...] = ()
    temperature: float = 4.0
    """Of KD."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"temperature is {self.temperature}: it must be above 0")
        if min(self.ce, self.kd, *(term.weight for term in self.terms), 0.0) < 0:
            raise InputError(f"a weight of the objective {self.name} is negative")

    @property
    def formula(self) -> str:
        """The sum, such as 0.1·CE + 0.9·KD, without the terms of weight 0."""
        parts = [(self.ce, "CE"), (self.kd, "KD"), *((term.weight, term.method) for term in self.terms)]
        return " + ".join(name if weight == 1 else f"{weight:g}·{name}" for weight, name in parts if weight)
