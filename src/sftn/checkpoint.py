"""Checkpoints: atomic, checked, resumable at any step, and nothing in them that could run."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sftn.errors import InputError, Stopped
from sftn.fit import Position

_OPTIMIZER = "optimizer."
_STATE = "state."
_RNG = "rng."


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file or none: a temporary file in the same folder, synced, renamed, the folder synced.

    Raises:
        InputError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror}; free space there or choose another --out") from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write tensors and a JSON record as one safetensors file, with a digest of both; atomic."""
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(record)
    write_atomically(path, save(flat, metadata={"record": text, "sha256": _digest(flat, text)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises:
        InputError: the file is torn, foreign or was changed.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            metadata = file.metadata() or {}
        record = json.loads(metadata["record"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path} is not a whole checkpoint ({error})") from error
    if metadata.get("sha256") != _digest(tensors, metadata["record"]):
        raise InputError(f"{path} is damaged: its digest does not match its content")
    return tensors, record


def tidy(folder: Path) -> None:
    """Remove what a finished run no longer needs and what killed processes left half written or held."""
    for pattern in ("checkpoint*.safetensors", ".*.tmp", "lease.*"):
        for path in folder.glob(pattern):
            with suppress(OSError):
                path.unlink()


class Checkpoints:
    """The state of a run in its folder: the last good checkpoint and the one before.

    Args:
        folder: of the run.
        state: everything that the run's phases may change (not the frozen teacher, which has a run of its own).
        seconds: the time between two checkpoints.
        say: is told, in one line, of a checkpoint that was torn.
        guard: raises if this process may no longer write in the folder.
    """

    def __init__(
        self,
        folder: Path,
        state: nn.Module,
        *,
        seconds: float = 60.0,
        say: Any = print,
        guard: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.guard = folder, guard
        self.newest = folder / "checkpoint.safetensors"
        self.previous = folder / "checkpoint.previous.safetensors"
        self.state = state
        self.seconds = seconds
        self.history: list[dict[str, Any]] = []
        self._last = time.monotonic()
        self._stop: int | None = None
        self.finished: list[str] = []
        """The phases that are over."""
        self._tensors: dict[str, Tensor] = {}
        self._position = Position("")
        for path in (self.newest, self.previous):
            if path.exists():
                try:
                    self._restore(*load_tensors(path))
                    break
                except InputError as error:
                    say(f"{error}; going on from the checkpoint before, or from the start")

    def resume(self, start: Position, optimizer: torch.optim.Optimizer) -> Position:
        """Give the optimiser and the random numbers their state if the checkpoint lies within the phase of `start`.

        Returns:
            Where to go on; the weights have been loaded already.
        """
        if self._position.phase != start.phase:
            return start
        _load_optimizer(optimizer, {k: v for k, v in self._tensors.items() if k.startswith(_OPTIMIZER)})
        torch.set_rng_state(self._tensors[_RNG + "cpu"])
        if _RNG + "cuda" in self._tensors:
            torch.cuda.set_rng_state(self._tensors[_RNG + "cuda"])
        self._tensors = {}
        return self._position

    def due(self) -> bool:
        """Whether it is time for a checkpoint: enough time has passed, or a signal came."""
        return self._stop is not None or time.monotonic() - self._last >= self.seconds

    def save(self, position: Position, optimizer: torch.optim.Optimizer | None) -> None:
        """Write a checkpoint; the last good one stays as the one before.

        Raises:
            Stopped: a signal had asked for the end, and the state is now safe.
        """
        tensors = {_STATE + name: tensor for name, tensor in self.state.state_dict().items()}
        tensors[_RNG + "cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors[_RNG + "cuda"] = torch.cuda.get_rng_state()
        if optimizer is not None:
            tensors |= _optimizer_tensors(optimizer)
        record = {"position": asdict(position), "history": self.history, "finished": self.finished}
        self.guard()
        with suppress(FileNotFoundError):
            os.replace(self.newest, self.previous)
        save_tensors(self.newest, tensors, record)
        self._last = time.monotonic()
        if self._stop is not None:
            raise Stopped(self._stop)

    def finish_epoch(self, position: Position, optimizer: torch.optim.Optimizer, row: dict[str, Any]) -> None:
        """Note an epoch's row; write a checkpoint if one is due."""
        self.history.append(row)
        if self.due():
            self.save(position, optimizer)

    def finish_phase(self, phase: str) -> None:
        """Note that a phase is over, durably: it will not be trained again."""
        self.finished.append(phase)
        self.save(Position(""), None)

    def remove(self) -> None:
        """The run is over and has its result."""
        tidy(self.folder)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """While this lasts, SIGTERM and the first Ctrl-C save before they end the run; a second one ends it at once."""

        def ask(number: int, frame: FrameType | None) -> None:
            if self._stop is not None:
                raise KeyboardInterrupt
            self._stop = number

        try:
            before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread: whoever owns that one decides
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _restore(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        own = {name.removeprefix(_STATE): tensor for name, tensor in tensors.items() if name.startswith(_STATE)}
        try:
            self.state.load_state_dict(own)
            self._position = Position(**record["position"])
            self.history, self.finished = record["history"], record["finished"]
        except (RuntimeError, KeyError, TypeError) as error:
            raise InputError(f"{self.newest} is of another version of this run; remove the run's folder") from error
        self._tensors = tensors


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


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
