"""Where the checks look, the short runs that they make there, and how far apart these may end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sftn.data.dataset import Dataset
from sftn.networks.weights import read_state
from sftn.profiling.throughput import noise
from sftn.runs.runner import train
from sftn.spec.execution import Execution
from sftn.spec.run import Data, Friendly, Run
from sftn.spec.schedule import Schedule
from sftn.tasks.recipes import OBJECTIVES, objective

TEACHER, STUDENT = "resnet14", "resnet8"
NEAR = 1e-3
"""How far weights may be apart, relatively, after a dozen steps that were rounded otherwise."""


class Skipped(Exception):
    """This machine cannot tell."""


class Broken(Exception):
    """A run is broken off."""


@dataclass(frozen=True)
class Place:
    """A device, and how much is looked at."""

    device: str
    """cuda or cpu."""
    tiny: bool
    """Fewer kinds of run and smaller images, to see that the script itself works."""

    @property
    def data(self) -> Dataset:
        """Two whole batches and a smaller one an epoch."""
        return noise(images=80, tests=20, classes=10, size=16 if self.tiny else 32)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Runs without a teacher, and by each method."""
        return ("plain", "crd") if self.tiny else ("plain", "friendly", *OBJECTIVES)

    @property
    def methods(self) -> tuple[str, ...]:
        """Those of the kinds that are methods; of the tiny ones with some that look at more than logits."""
        return ("kd", "crd", "sskd", "oh") if self.tiny else tuple(OBJECTIVES)

    def run(self, kind: str, precision: str = "float32", epochs: int = 2) -> Run:
        """A short run, whose learning rates are the same numbers in float32 and float64."""
        schedule = Schedule(epochs=epochs, lr=1 / 16, gamma=0.5, batch=32)
        named = Data("noise", self.data.identity)
        if kind == "friendly":
            return Run(TEACHER, named, 0, schedule, precision, friendly=Friendly(student=STUDENT))
        if kind == "plain":
            return Run(STUDENT, named, 0, schedule, precision)
        teacher = Run(TEACHER, named, 0, Schedule(epochs=1, lr=1 / 16, batch=32), "float32")
        return Run(STUDENT, named, 0, schedule, precision, teacher=teacher, objective=objective(kind))

    def train(self, run: Run, out: Path, execution: Execution = Execution(), callback: Any = None) -> dict[str, Tensor]:
        """The weights that it ends with; its teacher is trained first."""
        if isinstance(run.teacher, Run):
            train(run.teacher, self.data, out, Execution(device=self.device))
        train(run, self.data, out, replace(execution, device=self.device), callback=callback)
        return read_state(out / run.folder / "weights.safetensors")


class Steps:
    """A callback that keeps the losses of epochs, and breaks the run off at its n-th step."""

    def __init__(self, last: int = 0) -> None:
        self.left = last
        self.losses: list[float] = []

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        """Nothing."""

    def step(self, step: int) -> None:
        """Count."""
        self.left -= 1
        if self.left == 0:
            raise Broken

    def epoch(self, row: Any) -> None:
        """Keep the loss."""
        self.losses.append(row["loss"])


@contextmanager
def logged() -> Iterator[list[str]]:
    """The lines that are logged while this lasts."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("sftn")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


def complaint(kind: type[Exception], call: Callable[[], Any]) -> str:
    """What an error of that kind says; nothing if there is none."""
    try:
        call()
    except kind as error:
        return str(error)
    return ""


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest relative distance of two networks' weights and statistics."""
    pairs = [(one[key].double(), other[key].double()) for key in one if one[key].is_floating_point()]
    return max(float((a - b).norm() / (b.norm() + 1e-12)) for a, b in pairs)


def compared(found: dict[str, float], bound: float = NEAR) -> str:
    """Which of several are the same bits, and how far the others are apart.

    Raises:
        AssertionError: further than the bound, or not to be told.
    """
    far = [f"{name} {distance:.1g}" for name, distance in found.items() if not distance <= bound]
    assert not far, f"further apart than {bound:g}: {', '.join(far)}"
    same = [name for name, distance in found.items() if distance == 0]
    near = [f"{name} {distance:.0e}" for name, distance in found.items() if distance]
    parts = [f"same bits: {', '.join(same)}"] * bool(same) + [f"within {bound:g}: {', '.join(near)}"] * bool(near)
    return "; ".join(parts)
