"""A student's training objective as plain data: ce·CE + kd·KD + Σ weight·method."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from sftn.errors import InputError


def epochs_of(share: float, epochs: int) -> int:
    """A number of epochs, given as such or, if below 1, as a fraction of a run of `epochs` epochs."""
    return max(1, round(share * epochs)) if 0 < share < 1 else round(share)


def warmup_factor(share: float, epoch: int, epochs: int) -> float:
    """Factor of a weight that grows linearly: 1/N in the first epoch, 1 from the N-th on.

    Args:
        share: N, or a fraction of the run; 0 for a constant weight.
        epoch: the epoch, counted from 0.
        epochs: number of epochs of the run.
    """
    return min(1.0, (epoch + 1) / epochs_of(share, epochs)) if share else 1.0


def fade_factor(share: float, epoch: int, epochs: int) -> float:
    """Factor of a weight that decays to zero on half a cosine: 1 in the first S epochs, 0 in the last one.

    Args:
        share: S, or a fraction of the run; 0 for a constant weight.
        epoch: the epoch, counted from 0.
        epochs: number of epochs of the run.
    """
    start = epochs_of(share, epochs)
    if not share or epoch < start:
        return 1.0
    return (1 + math.cos(math.pi * (epoch + 1 - start) / (epochs - start))) / 2


@dataclass(frozen=True)
class Term:
    """A method in an objective, with its weight β and those hyper-parameters that differ from the method's defaults."""

    method: str
    weight: float = 1.0
    options: Mapping[str, float | int | bool | str] = field(default_factory=dict)
    warmup: float = 0.0
    """Epochs in which the weight grows linearly to β (`warmup_factor`); a fraction of the run if below 1, 0: none."""
    fade: float = 0.0
    """Epochs after which the weight decays to zero on half a cosine (`fade_factor`); a fraction of the run if below 1,
    0 for never."""

    def __post_init__(self) -> None:
        for name in ("warmup", "fade"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(
                    f"{name} of {self.method} is {getattr(self, name)}: give epochs (20), a fraction of the run (0.1), "
                    "or 0 for none"
                )

    def factor(self, epoch: int, epochs: int) -> float:
        """Factor of the weight in an epoch, counted from 0, of a run of `epochs` epochs.

        Raises:
            InputError: the run is too short for the weight to reach β, or to begin to decay.
        """
        if epochs_of(self.warmup, epochs) > epochs:
            raise InputError(
                f"the weight of {self.method} grows for {self.warmup:g} epochs and the run has {epochs}: give fewer, "
                "or a fraction of the run, as in warmup=0.1"
            )
        if epochs_of(self.fade, epochs) >= epochs > 1:
            raise InputError(
                f"the weight of {self.method} falls from epoch {self.fade:g} on and the run has {epochs}: give an "
                "earlier one, or a fraction of the run, as in fade=0.6"
            )
        return warmup_factor(self.warmup, epoch, epochs) * fade_factor(self.fade, epoch, epochs)


@dataclass(frozen=True)
class Objective:
    """A weighted sum of losses, ce·CE + kd·KD + Σ weight·method."""

    name: str
    ce: float = 1.0
    kd: float = 0.0
    terms: tuple[Term, ...] = ()
    temperature: float = 4.0
    """Temperature of KD."""
    standardise: bool = False
    """Whether KD compares standardised logits (Sun et al., 2024, arXiv:2403.01427)."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"temperature is {self.temperature}: it must be above 0")
        if min(self.ce, self.kd, *(term.weight for term in self.terms), 0.0) < 0:
            raise InputError(f"a weight of the objective {self.name} is negative")

    @property
    def formula(self) -> str:
        """The sum as text, such as 0.1·CE + 0.9·KD, without terms of weight 0."""
        parts = [(self.ce, "CE"), (self.kd, "KD"), *((term.weight, term.method) for term in self.terms)]
        return " + ".join(name if weight == 1 else f"{weight:g}·{name}" for weight, name in parts if weight)
