"""The training loop, which trains one phase."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sftn.errors import Stopped
from sftn.runtime.collectives import Shares
from sftn.runtime.device import wait
from sftn.training.callback import Callback
from sftn.training.cuda_graph import Seen
from sftn.training.divergence import Sentinel, Step, diverged
from sftn.training.phase import Phase
from sftn.training.progress import Position
from sftn.training.step_modes import wrap_step
from sftn.training.teacher_outputs import TeacherOutputs

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from sftn.data.batch import Batch
    from sftn.data.loader import Batches
    from sftn.training.checkpoints import Checkpoints


@dataclass(frozen=True)
class LoopOptions:
    """How a phase is trained, besides what its `Phase` defines."""

    seed: int = 0
    """The run's seed."""
    evaluate: Callable[[], Mapping[str, float]] | None = None
    """Called after every `evaluate_every`-th epoch and after the last; its numbers are added to the epoch's row."""
    evaluate_every: int = 1
    """Epochs between two evaluations."""
    skip: bool = False
    """Skip steps with a non-finite loss or gradient instead of ending the run; their number is added to the epoch's
    row."""
    whole_norms: bool = True
    """In distributed training: whether batch norms use the global batch instead of each process's share."""
    step: str = "eager"
    """The step mode, one of `sftn.training.step_modes.STEPS`, as `resolve_step_mode` returns it."""


def fit(
    phase: Phase,
    loader: Batches,
    fabric: Fabric,
    options: LoopOptions = LoopOptions(),
    *,
    callback: Callback | None = None,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Train one phase to its end, from its beginning or from its last checkpoint.

    A step is a function of tensors alone and never waits for the device: the loss terms are summed there and read once
    per epoch and before a checkpoint, so that no checkpoint ever holds a non-finite number (see
    `sftn.training.divergence`). All randomness of an epoch follows from the seed, the phase's name and the epoch. A
    batch is always one step, however little memory there is: batch norms and losses that compare images see all of it,
    in distributed training too, where every process calls this function with a loader that gives its share.

    Args:
        phase: what to train.
        loader: training batches.
        fabric: device, precision and strategy (Lightning Fabric).
        options: seed, evaluation, and how steps are taken.
        callback: called at every step and epoch.
        checkpoints: saves and restores the state; None saves nothing.

    Raises:
        Stopped: a signal ended training; the state has been saved.
        Diverged: a number is not finite, or every step of an epoch was skipped (a `FloatingPointError`).
    """
    for _ in stepwise(phase, loader, fabric, options, callback=callback, checkpoints=checkpoints):
        pass


def stepwise(
    phase: Phase,
    loader: Batches,
    fabric: Fabric,
    options: LoopOptions = LoopOptions(),
    *,
    callback: Callback | None = None,
    checkpoints: Checkpoints | None = None,
) -> Iterator[tuple[int, int]]:
    """`fit` one step at a time, so that other runs can be trained in between; they must restore torch's generator.

    Yields:
        (epoch, step) of the next step, counted from 0. The time until the generator is resumed is not counted.
    """
    schedule = phase.schedule
    task, optimizer, sgd = set_up(phase, fabric)
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    shares = Shares(loader, options.whole_norms)
    sentinel = Sentinel(phase.trains, sgd, scaled=scaler is not None, skip=options.skip)
    phase.task.watched = True  # type: ignore[assignment]  # the sentinel finds numbers that are not finite
    outputs = getattr(phase.task, "teacher_outputs", TeacherOutputs())
    position = Position(phase.name)
    if checkpoints is not None:
        position = checkpoints.resume(position, sgd)
        if scaler is not None and position.scaler is not None:
            scaler.load_state_dict(position.scaler)
    if callback is not None:
        callback.start(phase.name, schedule.epochs, len(loader), position.epoch)

    def take(step: int, batch: Batch, *known: TeacherOutputs) -> Seen:
        sentinel.before()
        with shares.of(step) as weight:
            terms = task(*batch, *known)
        fabric.backward(weight * terms["loss"])
        seen = sentinel.see(terms)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return seen

    taken = wrap_step(options.step, take, phase.task, sgd, fabric, loader.images(1))

    def reached(epoch: int, step: int, began: float) -> Position:
        shares.settle(phase.task)
        found = sentinel.look()
        if found is None and step == len(loader) and sentinel.images == 0:  # every step was skipped
            found = sentinel.first or Step(step, {})
        if found is not None:
            raise diverged(phase, epoch, found, loader)
        scale = None if scaler is None else scaler.state_dict()
        spent = time.perf_counter() - began
        return Position(phase.name, epoch, step, sentinel.images, sentinel.totals(), spent, sentinel.skipped, scale)

    for epoch in range(position.epoch, schedule.epochs):
        began = time.perf_counter() - position.seconds
        if position.step == 0:
            torch.manual_seed(_mix(options.seed, phase.name, epoch))
        for group in sgd.param_groups:
            _set_rate(group, schedule.lr_at(epoch) * group["rate"])
        phase.begin_epoch(epoch)
        sentinel.begin(position)
        for step, batch in enumerate(loader.epoch(epoch, start=position.step), start=position.step + 1):
            left = time.perf_counter()
            yield epoch, step - 1
            began += time.perf_counter() - left
            outputs.next_batch(loader, epoch, step - 1)
            sentinel.note(step, taken(step, batch), len(batch.labels))
            if callback is not None:
                callback.step(step)
            if checkpoints is not None and checkpoints.due():
                checkpoints.save(reached(epoch, step, began), sgd)
        position = reached(epoch, len(loader), began)
        row = _row(phase, position, options.skip)
        due = (epoch + 1) % options.evaluate_every == 0 or epoch + 1 == schedule.epochs
        if options.evaluate is not None and due:
            try:
                row |= options.evaluate()
            except Stopped:  # a signal arrived during the evaluation
                if checkpoints is not None:
                    checkpoints.save(position, sgd)
                raise
            phase.prepare()
        if callback is not None:
            callback.epoch(row)
        position = Position(phase.name, epoch + 1, scaler=position.scaler)
        if checkpoints is not None:
            checkpoints.finish_epoch(position, sgd, row)


def set_up(phase: Phase, fabric: Fabric) -> tuple[Any, Any, torch.optim.SGD]:
    """Prepare a phase's task and its optimiser for training.

    Returns:
        Task and optimiser as wrapped by Fabric, and the optimiser itself, with one group per learning rate.
    """
    schedule = phase.schedule
    phase.prepare()
    phase.task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sgd = torch.optim.SGD(
        _groups(phase), lr=schedule.lr, momentum=schedule.momentum, weight_decay=schedule.weight_decay, fused=True
    )
    task, optimizer = fabric.setup(phase.task, sgd)
    return task, optimizer, sgd


def first_steps(phase: Phase, loader: Batches, fabric: Fabric, count: int) -> list[float]:
    """Seconds of a phase's first steps, each including its batch and the wait for the device.

    Args:
        phase: what to train.
        loader: training batches.
        fabric: device, precision and strategy.
        count: number of steps; fewer are taken if the phase has fewer.
    """
    seconds: list[float] = []
    steps = stepwise(phase, loader, fabric)
    next(steps)
    for _ in range(count):
        began = time.perf_counter()
        at = next(steps, None)
        wait(fabric.device)
        seconds.append(time.perf_counter() - began)
        if at is None:
            break
    return seconds


def _groups(phase: Phase) -> list[dict[str, Any]]:
    slow = [parameter for module in phase.slow for parameter in module.parameters() if parameter.requires_grad]
    known = {id(parameter) for parameter in slow}
    rest = [parameter for module in phase.trains for parameter in module.parameters() if id(parameter) not in known]
    groups = [{"params": rest, "rate": 1.0}, {"params": slow, "rate": phase.slow_rate}]
    return [group for group in groups if group["params"]]


def _set_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], Tensor):  # a captured step reads the rate from this tensor
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _row(phase: Phase, position: Position, skip: bool) -> dict[str, Any]:
    """The row of the log for an epoch whose last step is done."""
    row: dict[str, Any] = {"phase": phase.name, "epoch": position.epoch + 1, "lr": phase.schedule.lr_at(position.epoch)}
    row |= {name: total / position.images for name, total in (position.sums or {}).items()}
    row |= {"skipped": position.skipped} if skip else {}
    return row | {"images_per_second": position.images / position.seconds, "seconds": position.seconds}


def _mix(seed: int, name: str, epoch: int) -> int:
    return zlib.crc32(f"{seed}/{name}/{epoch}".encode())
