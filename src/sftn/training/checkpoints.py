"""Checkpoints: written atomically, verified, resumable at any step, and free of executable content."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sftn.errors import Stopped
from sftn.networks.fast.product_choices import Choices
from sftn.runtime.processes import Talk, led
from sftn.runtime.signals import Stop
from sftn.storage.records import decode
from sftn.storage.tensor_files import Torn, load_record, load_tensors, save_tensors
from sftn.training.progress import Position

logger = logging.getLogger(__name__)
_OPTIMIZER = "optimizer."
_STATE = "state."
_RNG = "rng."
_NEWEST, _PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"


class Checkpoints:
    """The saved state of a run in its folder: the last good checkpoint and the one before.

    A checkpoint is due when `seconds` have passed since the last one or, if `epochs` is given, after that many epochs
    instead. Writing must not slow training down: if it took w seconds, the next checkpoint waits at least 20·w, so that
    writing takes less than 5 % of the time. With `seconds` 0 a checkpoint is due at every step, whatever it costs. A
    signal makes one due at once.

    In distributed training every process has one of these objects and makes the same calls; the leader reads and
    writes, and any number of processes can resume from what it wrote. A signal to one process stops all of them.

    Args:
        folder: the run's folder.
        state: everything that the run's phases may change (not the frozen teacher, which has its own run).
        seconds: seconds between two checkpoints.
        epochs: epochs between two checkpoints; 0 uses `seconds`.
        restarts: for a run that restarts, what ended it before; checkpoints in its folder are then ignored.
        choices: which convolutions are computed as matrix products; saved, so that a resumed run has the same bits.
        threads: how many the run computes with, and on which machine; saved for the same reason.
        guard: raises if this process has lost the right to write.
        stop: the signal state shared by several runs of this process; None makes a new one.

    Raises:
        InputError: a checkpoint exists but cannot be read at the moment.
    """

    def __init__(
        self,
        folder: Path,
        state: nn.Module,
        *,
        seconds: float = 60.0,
        epochs: int = 0,
        restarts: list[dict[str, Any]] | None = None,
        choices: Choices | None = None,
        threads: Mapping[str, Any] | None = None,
        guard: Callable[[], None] = lambda: None,
        stop: Stop | None = None,
    ) -> None:
        self.folder, self.guard = folder, guard
        self.newest, self.previous = folder / _NEWEST, folder / _PREVIOUS
        self.state = state
        self.seconds, self.epochs = seconds, epochs
        self.history: list[dict[str, Any]] = []
        self._last, self._rest, self._passed = time.monotonic(), 0.0, 0
        self._stop = Stop() if stop is None else stop
        """The signal that this process received."""
        self._asked = 0
        """The signal that the processes agree on."""
        self._talk = Talk(every_step=not seconds and not epochs)
        self.finished: list[str] = []
        """Names of the finished phases."""
        self.choices, self.threads = choices, threads
        self.restarts = restarts or []
        """What ended the run before each restart."""
        self._tensors: dict[str, Tensor] = {}
        self._position = Position("")
        self._torn = False
        """Whether the newest checkpoint is torn; it must then not replace the previous one."""
        if restarts is not None:
            self.save(self._position, None)
            return
        found = led(self._found)
        if found is not None:
            self._restore(*found)

    def resume(self, start: Position, optimizer: torch.optim.Optimizer) -> Position:
        """Restore the optimiser and the random number generators if the checkpoint lies within the phase of `start`.

        Returns:
            The position to resume from; the weights have been loaded already.
        """
        if self._position.phase != start.phase:
            return start
        _load_optimizer(optimizer, {k: v for k, v in self._tensors.items() if k.startswith(_OPTIMIZER)})
        torch.set_rng_state(self._tensors[_RNG + "cpu"])
        if _RNG + "cuda" in self._tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(self._tensors[_RNG + "cuda"])
        self._tensors = {}
        return self._position

    def due(self) -> bool:
        """Whether to write a checkpoint in the middle of an epoch: enough time has passed, or a signal arrived."""
        return self._heard(not self.epochs and self._rested(self.seconds))

    def end_if_asked(self, *, now: bool = False) -> None:
        """End work that is not part of the state, such as an evaluation, if a signal arrived.

        Args:
            now: exchange signals with the other processes now, even if it is not due.

        Raises:
            Stopped: a signal arrived; nothing is saved here.
        """
        self._heard(now=now)
        if self._asked:
            raise Stopped(self._asked)

    def save(self, position: Position, optimizer: torch.optim.Optimizer | None) -> None:
        """Write a checkpoint; the last good one is kept as the previous one.

        Raises:
            InputError: it cannot be written; the existing checkpoints are kept.
            Stopped: a signal had arrived, and the state is now saved.
        """
        began = time.monotonic()
        led(lambda: self._write(position, optimizer))
        self._last, self._passed = time.monotonic(), 0
        self._rest = 20 * (self._last - began) if self.seconds else 0.0
        self.end_if_asked(now=True)

    def _write(self, position: Position, optimizer: torch.optim.Optimizer | None) -> None:
        tensors = {_STATE + name: tensor for name, tensor in self.state.state_dict().items()}
        tensors[_RNG + "cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors[_RNG + "cuda"] = torch.cuda.get_rng_state()
        if optimizer is not None:
            tensors |= _optimizer_tensors(optimizer)
        record = {"position": asdict(position), "history": self.history, "finished": self.finished}
        record["restarts"] = self.restarts
        if self.choices is not None:
            record["products"] = self.choices.record()
        if self.threads is not None:
            record["threads"] = dict(self.threads)
        self.guard()
        save_tensors(self.newest, tensors, record, keep=None if self._torn else self.previous, guard=self.guard)
        self._torn = False

    def finish_epoch(self, position: Position, optimizer: torch.optim.Optimizer, row: dict[str, Any]) -> None:
        """Record an epoch's row, and write a checkpoint if one is due."""
        self.history.append(row)
        self._passed += 1
        due = self._passed >= self.epochs and self._rested(0.0) if self.epochs else self._rested(self.seconds)
        if self._heard(due, now=True):
            self.save(position, optimizer)

    def finish_phase(self, phase: str) -> None:
        """Record durably that a phase is over: it will not be trained again."""
        self.finished.append(phase)
        self.save(Position(""), None)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """In this context, SIGTERM and the first Ctrl-C save before they end the run; a second one ends it at once.

        Raises:
            Stopped: a signal arrived too late to be handled inside; everything is done.
        """

        with self._stop.minded():
            yield
        self.end_if_asked(now=True)

    def _heard(self, due: bool = False, *, now: bool = False) -> bool:
        """Whether a checkpoint is due, as agreed between the processes; False while no exchange is due."""
        heard = self._talk.heard(self._stop.number, due, now=now)
        if heard is None:
            return False
        self._asked, due = heard
        return due or self._asked > 0

    def _rested(self, seconds: float) -> bool:
        return time.monotonic() - self._last >= max(seconds, self._rest)

    def _found(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest intact checkpoint, to resume from."""
        for path in (self.newest, self.previous):
            if path.exists():
                try:
                    tensors, record = load_tensors(path)
                    self._check(path, tensors, record)
                    return tensors, record
                except Torn as error:
                    self._torn = self._torn or path == self.newest
                    logger.warning("%s; resuming from the previous checkpoint, or from the start", error)
        return None

    def _check(self, path: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Check that a checkpoint fits this run before anything is loaded: a fresh start needs untouched weights."""
        own = {name.removeprefix(_STATE): tensor for name, tensor in tensors.items() if name.startswith(_STATE)}
        expected = self.state.state_dict()
        try:
            decode(Position, record["position"])
            fits = all(isinstance(record[name], list) for name in ("history", "finished"))
            fits = fits and own.keys() == expected.keys()
            fits = fits and all(own[name].shape == tensor.shape for name, tensor in expected.items())
        except (KeyError, TypeError, ValueError, AttributeError):
            fits = False
        if not fits:
            raise Torn(f"{path} belongs to another version of this run; remove the run's folder")

    def _restore(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        self.state.load_state_dict(
            {name.removeprefix(_STATE): tensor for name, tensor in tensors.items() if name.startswith(_STATE)}
        )
        self._position = decode(Position, record["position"])
        self.history, self.finished = record["history"], record["finished"]
        self.restarts, self._tensors = record.get("restarts", []), tensors
        if self.choices is not None:
            self.choices.restore(record.get("products"))


def recorded(folder: Path) -> dict[str, Any]:
    """What the newest checkpoint in a run's folder records beside its tensors, which are not read; empty if none does.

    Raises:
        InputError: a checkpoint cannot be opened.
    """
    for path in (folder / _NEWEST, folder / _PREVIOUS):
        with suppress(Torn):  # whoever reads the whole checkpoint reports that
            if path.exists():
                return load_record(path)
    return {}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{_OPTIMIZER}{index}.{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.removeprefix(_OPTIMIZER).split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    for parameter, values in optimizer.state.items():  # a fused step needs the parameter's memory format
        for name, value in values.items():
            values[name] = torch.empty_like(parameter).copy_(value)
