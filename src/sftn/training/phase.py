"""Phase: exactly what is trained, by which loss, for how long."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sftn.spec.schedule import Schedule


@dataclass(frozen=True)
class Phase:
    """Exactly what is trained, by which loss, for how long."""

    name: str
    task: nn.Module
    """(images, labels, index) of a batch -> dict of scalar tensors: `loss` and its terms."""
    trains: tuple[nn.Module, ...]
    """The modules of the task that are optimised; the rest is frozen and in eval mode."""
    schedule: Schedule
    slow: tuple[nn.Module, ...] = ()
    """Those of them that learn at `slow_rate` times the schedule's learning rate."""
    slow_rate: float = 1.0

    def prepare(self) -> None:
        """Freeze the task but for what this phase trains. `fit` does so itself; a loop of one's own, before it begins.

        What is frozen is in eval mode, the rest in training mode: call it again after an evaluation.
        """
        self.task.requires_grad_(False).eval()
        for module in self.trains:
            module.requires_grad_(True).train()

    def begin_epoch(self, epoch: int) -> None:
        """Tell a task whose loss changes with the epoch, by `set_epoch`, which one begins, counted from 0."""
        set_epoch = getattr(self.task, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch, self.schedule.epochs)
