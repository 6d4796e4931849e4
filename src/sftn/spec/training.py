"""How to train, as given in options: the name of a recipe and the values that replace its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from sftn.spec.run import OnNan

Precision: TypeAlias = Literal["auto", "float32", "bf16", "float16"]
"""Of the arithmetic of forward and backward passes; auto is bf16 where the device has it."""


@dataclass(frozen=True)
class Training:
    """A training recipe, and options that replace single values of it."""

    recipe: str = "paper"
    """paper (240 epochs), short (30), smoke (1) or imagenet (100); the options below replace single values of it."""
    epochs: int | None = None
    """Epochs of the main phase; first stages and milestones are scaled in proportion."""
    batch: int | None = None
    """Images per batch."""
    lr: float | None = None
    """Initial learning rate, for all networks."""
    milestones: tuple[float, ...] | None = None
    """When the learning rate drops to a tenth: epochs (150 180 210) or fractions of the run (0.625 0.75 0.875)."""
    precision: Precision = "auto"
    """auto, float32, bf16 or float16; losses are always computed in float32."""
    sync_bn: bool = True
    """Compute batch norm over the whole batch; if off, each process normalises its share, which is a different run."""
    on_nan: OnNan = "stop"
    """If a value is not finite: stop the run, skip the step, or restart at half the learning rate (at most 3 times)."""
