"""`Phase`, the definition of what the training loop trains, with which loss and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sftn.spec.schedule import Schedule


@dataclass(frozen=True)
class Phase:
    """What is trained, with which loss and for how long."""

    name: str
    task: nn.Module
    """(images, labels, index) of a batch -> dict of scalar tensors: `loss` and its terms."""
    trains: tuple[nn.Module, ...]
    """The modules of the task that are optimised; all others are frozen and in eval mode."""
    schedule: Schedule
    slow: tuple[nn.Module, ...] = ()
    """The trained modules whose learning rate is `slow_rate` times the schedule's."""
    slow_rate: float = 1.0

    def prepare(self) -> None:
        """Freeze everything in the task that this phase does not train.

        Frozen modules are in eval mode, the others in training mode. `fit` calls this itself; your own loop calls it
        before the first step and after each evaluation.
        """
        self.task.requires_grad_(False).eval()
        for module in self.trains:
            module.requires_grad_(True).train()

    def begin_epoch(self, epoch: int) -> None:
        """Call `set_epoch` of a task whose loss depends on the epoch; `epoch` is counted from 0."""
        set_epoch = getattr(self.task, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch, self.schedule.epochs)
