"""How far a phase has come."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Position:
    """How far a phase has come: what a checkpoint has to say beside the weights."""

    phase: str
    epoch: int = 0
    step: int = 0
    """Steps done of the unfinished epoch."""
    images: int = 0
    """Images seen in the unfinished epoch."""
    sums: dict[str, float] | None = None
    """Sums of the loss's terms over those images."""
    seconds: float = 0.0
    skipped: int = 0
    """Steps of the unfinished epoch that were skipped because a number was not finite."""
    scaler: dict[str, float] | None = None
    """The state of float16's scaler."""
