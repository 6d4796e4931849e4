"""How a network is trained, as a person asks for it: a recipe's name and what to change of it."""

from __future__ import annotations

from dataclasses import dataclass

from sftn.spec.run import OnNan


@dataclass(frozen=True)
class Training:
    """How to train."""

    recipe: str = "paper"
    """paper (240 epochs), short (30), smoke (1) or imagenet (100); the options below change single values of it."""
    epochs: int | None = None
    """Epochs of the main phase; first stages and milestones keep their share."""
    batch: int | None = None
    """Images per batch."""
    lr: float | None = None
    """Initial learning rate, for all networks."""
    milestones: tuple[float, ...] | None = None
    """When the rate drops to a tenth: epochs (150 180 210) or fractions of the run (0.625 0.75 0.875)."""
    precision: str = "auto"
    """auto, float32, bf16 or float16; losses are always computed in float32."""
    sync_bn: bool = True
    """Batch norm over the whole batch; otherwise each process normalises its own share, which makes another run."""
    on_nan: OnNan = "stop"
    """When a number is not finite: end the run, skip the step, or restart with half the rate (at most 3 times)."""
