"""Phase, and the one loop that trains it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn


@dataclass(frozen=True)
class Schedule:
    """SGD with momentum and a multi-step learning rate; the defaults are the paper's for CIFAR-100 (section B.1)."""

    epochs: int = 240
    lr: float = 0.05
    milestones: tuple[float, ...] = (150 / 240, 180 / 240, 210 / 240)
    """When the rate is multiplied by gamma: fractions of the run if below 1, else epochs."""
    gamma: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch: int = 64

    def lr_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        passed = sum(epoch >= (round(m * self.epochs) if m < 1 else m) for m in self.milestones)
        return self.lr * self.gamma**passed

    def warmup(self, epochs: int, *, of: int = 240, lr: float | None = None, milestones: tuple[float, ...] = ()) -> Schedule:
        """A first stage that takes `epochs` where the main phase takes `of`, and its share of a shorter one."""
        share = max(1, round(epochs * self.epochs / of))
        return replace(self, epochs=share, lr=self.lr if lr is None else lr, milestones=milestones)


@dataclass(frozen=True)
class Phase:
    """Exactly what is trained, by which loss, for how long."""

    name: str
    task: nn.Module
    """Batch -> dict of scalar tensors: `loss` and its terms."""
    trains: tuple[nn.Module, ...]
    """The modules of the task that are optimised; the rest is frozen and in eval mode."""
    schedule: Schedule
