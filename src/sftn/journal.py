"""What a run leaves behind while it is trained: log.jsonl and, on request, TensorBoard's event files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from sftn.errors import InputError
from sftn.fit import Watcher


class Journal:
    """A watcher that writes each epoch's row down and passes everything on to the watcher of a person, if any.

    Args:
        folder: of the run.
        history: rows of epochs before an interruption; the log is cut back to them.
        watcher: also told.
        tensorboard: also write event files.

    Raises:
        InputError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self, folder: Path, history: list[dict[str, Any]], watcher: Watcher | None, *, tensorboard: bool = False
    ) -> None:
        self.watcher = watcher
        self.done = len(history)
        self.board = _board(folder, self.done) if tensorboard else None
        # A new file, not the old one cut short: a process that lost the run while it slept may still hold that one.
        (folder / "log.jsonl").unlink(missing_ok=True)
        self.log = open(folder / "log.jsonl", "w", encoding="utf-8")  # noqa: SIM115 (closed by __exit__)
        for row in history:
            self._write(row)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.log.close()
        if self.board is not None:
            self.board.close()

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        """A phase begins."""
        if self.watcher is not None:
            self.watcher.start(phase, epochs, steps, done)

    def step(self, step: int) -> None:
        """So many steps of the epoch are done."""
        if self.watcher is not None:
            self.watcher.step(step)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is over."""
        self._write(row)
        self.done += 1
        if self.board is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self.board.add_scalar(f"{row['phase']}/{name}", value, self.done)
        if self.watcher is not None:
            self.watcher.epoch(row)

    def _write(self, row: Mapping[str, Any]) -> None:
        self.log.write(json.dumps(row) + "\n")
        self.log.flush()


def _board(folder: Path, done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("TensorBoard is not installed: pip install 'sftn[tensorboard]'") from None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
