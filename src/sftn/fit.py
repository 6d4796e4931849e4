"""Phase, and the one loop that trains it."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from sftn.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from sftn.checkpoint import Checkpoints
    from sftn.data.loader import Loader


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
        """The learning rate of an epoch, counted from 0."""
        passed = sum(epoch >= (round(m * self.epochs) if m < 1 else m) for m in self.milestones)
        return self.lr * self.gamma**passed

    def warmup(
        self, epochs: int, *, of: int = 240, lr: float | None = None, milestones: tuple[float, ...] = ()
    ) -> Schedule:
        """A first stage that takes `epochs` where the main phase takes `of`, and its share of a shorter one."""
        share = max(1, round(epochs * self.epochs / of))
        return replace(self, epochs=share, lr=self.lr if lr is None else lr, milestones=milestones)


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


class Watcher(Protocol):
    """Whoever wants to see training go by."""

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        """A phase begins, `done` of its epochs are already there."""

    def step(self, step: int) -> None:
        """So many steps of the epoch are done."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is over; `row` is its line of the log."""


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


def fit(
    phase: Phase,
    loader: Loader,
    fabric: Fabric,
    *,
    seed: int = 0,
    evaluate: Callable[[], Mapping[str, float]] | None = None,
    evaluate_every: int = 1,
    watcher: Watcher | None = None,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Train one phase to its end, from its beginning or from its last checkpoint.

    A step is a function of tensors alone and never waits for the device: the terms of the loss are summed there and
    read once an epoch. All randomness of an epoch follows from `seed`, the phase's name and the epoch.

    Args:
        phase: what to train.
        loader: training batches.
        fabric: device, precision and strategy (Lightning Fabric).
        seed: of the run.
        evaluate: called after every `evaluate_every`-th epoch and after the last; its numbers join the epoch's row.
        evaluate_every: epochs between two evaluations.
        watcher: is told of steps and epochs.
        checkpoints: where the state is kept; None keeps none.

    Raises:
        Stopped: a signal asked for it; the state has been saved.
        FloatingPointError: the loss of an epoch is not finite.
    """
    schedule = phase.schedule
    _train_only(phase.task, phase.trains)
    phase.task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sgd = torch.optim.SGD(
        _groups(phase), lr=schedule.lr, momentum=schedule.momentum, weight_decay=schedule.weight_decay, fused=True
    )
    task, optimizer = fabric.setup(phase.task, sgd)
    position = Position(phase.name)
    if checkpoints is not None:
        position = checkpoints.resume(position, sgd)
    if watcher is not None:
        watcher.start(phase.name, schedule.epochs, len(loader), position.epoch)

    for epoch in range(position.epoch, schedule.epochs):
        began = time.perf_counter() - position.seconds
        if position.step == 0:
            torch.manual_seed(_mix(seed, phase.name, epoch))
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr_at(epoch) * group["rate"]
        names, sums, images = _continue(position, fabric.device)
        for step, batch in enumerate(loader.epoch(epoch, start=position.step), start=position.step + 1):
            terms = task(*batch)
            fabric.backward(terms["loss"])
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            names = list(terms)
            sums = sums + torch.stack([terms[name].detach().double() for name in names]) * len(batch.labels)
            images += len(batch.labels)
            if watcher is not None:
                watcher.step(step)
            if checkpoints is not None and checkpoints.due():
                totals = dict(zip(names, sums.tolist()))
                spent = time.perf_counter() - began
                checkpoints.save(Position(phase.name, epoch, step, images, totals, spent), sgd)
        row = _row(phase, epoch, dict(zip(names, sums.tolist())), images, time.perf_counter() - began)
        if evaluate is not None and ((epoch + 1) % evaluate_every == 0 or epoch + 1 == schedule.epochs):
            row |= evaluate()
            _train_only(phase.task, phase.trains)
        if watcher is not None:
            watcher.epoch(row)
        position = Position(phase.name, epoch + 1)
        if checkpoints is not None:
            checkpoints.finish_epoch(position, sgd, row)


def _train_only(task: nn.Module, modules: tuple[nn.Module, ...]) -> None:
    task.requires_grad_(False).eval()
    for module in modules:
        module.requires_grad_(True).train()


def _groups(phase: Phase) -> list[dict[str, Any]]:
    slow = [parameter for module in phase.slow for parameter in module.parameters() if parameter.requires_grad]
    known = {id(parameter) for parameter in slow}
    rest = [parameter for module in phase.trains for parameter in module.parameters() if id(parameter) not in known]
    groups = [{"params": rest, "rate": 1.0}, {"params": slow, "rate": phase.slow_rate}]
    return [group for group in groups if group["params"]]


def _continue(position: Position, device: torch.device) -> tuple[list[str], Tensor, int]:
    sums = position.sums or {}
    return list(sums), torch.tensor(list(sums.values()) or 0.0, dtype=torch.float64, device=device), position.images


def _row(phase: Phase, epoch: int, totals: Mapping[str, float], images: int, seconds: float) -> dict[str, Any]:
    means = {name: total / images for name, total in totals.items()}
    bad = [name for name, mean in means.items() if not math.isfinite(mean)]
    if bad:
        raise FloatingPointError(
            f"{phase.name}, epoch {epoch + 1}: {', '.join(bad)} is not finite; a lower learning rate than "
            f"{phase.schedule.lr_at(epoch):g} or --precision float32 may help"
        )
    row: dict[str, Any] = {"phase": phase.name, "epoch": epoch + 1, "lr": phase.schedule.lr_at(epoch)}
    return row | means | {"images_per_second": images / seconds, "seconds": seconds}


def _mix(seed: int, name: str, epoch: int) -> int:
    return zlib.crc32(f"{seed}/{name}/{epoch}".encode())
