"""`Position`, the progress of a phase."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Position:
    """The progress of a phase: what a checkpoint holds besides tensors."""

    phase: str
    epoch: int = 0
    step: int = 0
    """Steps done in the unfinished epoch."""
    images: int = 0
    """Images seen in the unfinished epoch."""
    sums: dict[str, float] | None = None
    """Sums of the loss terms over those images."""
    seconds: float = 0.0
    skipped: int = 0
    """Steps of the unfinished epoch that were skipped because of a non-finite number."""
    scaler: dict[str, float] | None = None
    """The state of the float16 gradient scaler."""
