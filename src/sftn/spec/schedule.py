"""How long a phase is trained, and at which learning rates."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sftn.errors import InputError


@dataclass(frozen=True)
class Schedule:
    """SGD with momentum and a multi-step learning rate; the defaults are the paper's for CIFAR-100 (section B.1)."""

    epochs: int = 240
    lr: float = 0.05
    milestones: tuple[float, ...] = (150 / 240, 180 / 240, 210 / 240)
    """When the learning rate is multiplied by gamma: fractions of the run if below 1, epochs if not."""
    gamma: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch: int = 64

    def __post_init__(self) -> None:
        for name in ("epochs", "lr", "batch", "gamma"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be above 0")
        for name in ("momentum", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must not be negative")
        if any(m <= 0 for m in self.milestones):
            raise InputError(f"milestones are {self.milestones}: give fractions of the run (0.625) or epochs (150)")

    def lr_at(self, epoch: int) -> float:
        """The learning rate in an epoch, counted from 0."""
        passed = sum(epoch >= (round(m * self.epochs) if m < 1 else m) for m in self.milestones)
        return self.lr * self.gamma**passed

    def warmup(
        self, epochs: int, *, of: int = 240, lr: float | None = None, milestones: tuple[float, ...] = ()
    ) -> Schedule:
        """The schedule of a first stage: `epochs` long for a main phase of `of` epochs, shorter in proportion."""
        share = max(1, round(epochs * self.epochs / of))
        return replace(self, epochs=share, lr=self.lr if lr is None else lr, milestones=milestones)
