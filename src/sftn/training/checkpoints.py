"""Checkpoints: atomic, checked, resumable at any step, and nothing in them that could run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
from sftn.storage.tensor_files import Torn, load_tensors, save_tensors
from sftn.training.progress import Position

logger = logging.getLogger(__name__)
_OPTIMIZER = "optimizer."
_STATE = "state."
_RNG = "rng."


class Checkpoints:
    """The state of a run in its folder: the last good checkpoint and the one before.

    A checkpoint is due when `seconds` have passed since the last one, or with `epochs` at the end of every so many
    epochs instead. Writing one must not hold training up: if it took w seconds, the next one waits at least 20·w, so
    that writing takes less than 5 % of the time. With `seconds` 0 one is due at every step, whatever it costs. A
    signal makes one due at once.

    Several processes that train together each have one of these, and call it alike; the leader reads and writes, and
    any number of them can go on from what it wrote. A signal to any of them is meant for all.

    Args:
        folder: of the run.
        state: everything that the run's phases may change (not the frozen teacher, which has a run of its own).
        seconds: the time between two checkpoints.
        epochs: epochs between two checkpoints; 0 goes by seconds.
        restarts: of a run that begins again, what ended it before; what its folder holds is not read then.
        choices: which convolutions are products of matrices: kept, so that a resume has the same bits.
        guard: raises if this process may no longer write in the folder.
        stop: which signal came, where several runs of this process are to heed it.

    Raises:
        InputError: a checkpoint is there and cannot be read just now.
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
        guard: Callable[[], None] = lambda: None,
        stop: Stop | None = None,
    ) -> None:
        self.folder, self.guard = folder, guard
        self.newest = folder / "checkpoint.safetensors"
        self.previous = folder / "checkpoint.previous.safetensors"
        self.state = state
        self.seconds, self.epochs = seconds, epochs
        self.history: list[dict[str, Any]] = []
        self._last, self._rest, self._passed = time.monotonic(), 0.0, 0
        self._stop = Stop() if stop is None else stop
        """Which signal this process was sent."""
        self._asked = 0
        """Which one the processes agree on."""
        self._talk = Talk(every_step=not seconds and not epochs)
        self.finished: list[str] = []
        """The phases that are over."""
        self.choices = choices
        self.restarts = restarts or []
        """What ended the run before, if it began again."""
        self._tensors: dict[str, Tensor] = {}
        self._position = Position("")
        self._torn = False
        """Whether the newest is; it must not take the place of the one before."""
        if restarts is not None:
            self.save(self._position, None)
            return
        found = led(self._found)
        if found is not None:
            self._restore(*found)

    def resume(self, start: Position, optimizer: torch.optim.Optimizer) -> Position:
        """Give the optimiser and the random numbers their state if the checkpoint lies within the phase of `start`.

        Returns:
            Where to go on; the weights have been loaded already.
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
        """Whether it is time for a checkpoint in the middle of an epoch: enough time has passed, or a signal came."""
        return self._heard(not self.epochs and self._rested(self.seconds))

    def end_if_asked(self, *, now: bool = False) -> None:
        """For what is no part of the state, such as an evaluation, and need not be finished.

        Args:
            now: ask the other processes, whether or not it is time to.

        Raises:
            Stopped: a signal asked for the end; nothing is saved here.
        """
        self._heard(now=now)
        if self._asked:
            raise Stopped(self._asked)

    def save(self, position: Position, optimizer: torch.optim.Optimizer | None) -> None:
        """Write a checkpoint; the last good one stays as the one before.

        Raises:
            InputError: it cannot be written; those that are there stay.
            Stopped: a signal had asked for the end, and the state is now safe.
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
        self.guard()
        save_tensors(self.newest, tensors, record, keep=None if self._torn else self.previous, guard=self.guard)
        self._torn = False

    def finish_epoch(self, position: Position, optimizer: torch.optim.Optimizer, row: dict[str, Any]) -> None:
        """Note an epoch's row; write a checkpoint if one is due."""
        self.history.append(row)
        self._passed += 1
        due = self._passed >= self.epochs and self._rested(0.0) if self.epochs else self._rested(self.seconds)
        if self._heard(due, now=True):
            self.save(position, optimizer)

    def finish_phase(self, phase: str) -> None:
        """Note that a phase is over, durably: it will not be trained again."""
        self.finished.append(phase)
        self.save(Position(""), None)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """While this lasts, SIGTERM and the first Ctrl-C save before they end the run; a second one ends it at once.

        Raises:
            Stopped: a signal came too late for that; everything is done.
        """

        with self._stop.minded():
            yield
        self.end_if_asked(now=True)

    def _heard(self, due: bool = False, *, now: bool = False) -> bool:
        """Whether the processes agree, if it is time to talk, that a checkpoint is due."""
        heard = self._talk.heard(self._stop.number, due, now=now)
        if heard is None:
            return False
        self._asked, due = heard
        return due or self._asked > 0

    def _rested(self, seconds: float) -> bool:
        return time.monotonic() - self._last >= max(seconds, self._rest)

    def _found(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What to resume from."""
        for path in (self.newest, self.previous):
            if path.exists():
                try:
                    tensors, record = load_tensors(path)
                    self._check(path, tensors, record)
                    return tensors, record
                except Torn as error:
                    self._torn = self._torn or path == self.newest
                    logger.warning("%s; resuming from the checkpoint before, or from the start", error)
        return None

    def _check(self, path: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """See that a checkpoint is of this run, before anything is loaded: a start must find the weights of a start."""
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
            raise Torn(f"{path} is of another version of this run; remove the run's folder")

    def _restore(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        self.state.load_state_dict(
            {name.removeprefix(_STATE): tensor for name, tensor in tensors.items() if name.startswith(_STATE)}
        )
        self._position = decode(Position, record["position"])
        self.history, self.finished = record["history"], record["finished"]
        self.restarts, self._tensors = record.get("restarts", []), tensors
        if self.choices is not None:
            self.choices.restore(record.get("products"))


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
    for parameter, values in optimizer.state.items():  # a fused step wants the memory format of the parameter
        for name, value in values.items():
            values[name] = torch.empty_like(parameter).copy_(value)
