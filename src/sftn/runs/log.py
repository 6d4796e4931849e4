"""What a run leaves behind while it is trained: log.jsonl and, on request, what `sftn.runs.loggers` write."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from sftn.errors import InputError
from sftn.runs.folder import RunFolder
from sftn.runs.loggers import Logger
from sftn.storage.faults import writing
from sftn.training.callback import Watcher


class Journal:
    """A watcher that writes each epoch's row down and passes everything on to the watcher of a person, if any.

    Args:
        folder: of the run.
        history: rows of epochs before an interruption; the log is cut back to them.
        watcher: also told.
        loggers: also told of epochs; closed at the end.

    Raises:
        InputError: something cannot be written; what a checkpoint knows of the log is written again when it can be.
    """

    def __init__(
        self, folder: Path, history: list[dict[str, Any]], watcher: Watcher | None, *, loggers: Sequence[Logger] = ()
    ) -> None:
        self.watcher = watcher
        self.done = len(history)
        self.loggers = loggers
        self.at = "before training"
        """How far training has come, for people."""
        self.path = RunFolder(folder).log
        # A new file, not the old one cut short: a process that lost the run while it slept may still hold that one.
        with writing(self.path):
            self.path.unlink(missing_ok=True)
            self.log = open(self.path, "w", encoding="utf-8")  # noqa: SIM115 (closed by __exit__)
        for row in history:
            self._write(row)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with writing(self.path), self.log:
                os.fsync(self.log.fileno())
            with writing(self.path.parent):
                for logger in self.loggers:
                    logger.close(failed=error is not None)
        except InputError:
            if error is None:  # else it has a reason of its own, which is the one to tell
                raise

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        """A phase begins."""
        self._phase, self._epoch = phase, done + 1
        self.at = f"{phase}, epoch {done + 1}"
        if self.watcher is not None:
            self.watcher.start(phase, epochs, steps, done)

    def step(self, step: int) -> None:
        """So many steps of the epoch are done."""
        self.at = f"{self._phase}, epoch {self._epoch}, after step {step}"
        if self.watcher is not None:
            self.watcher.step(step)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is over."""
        self._write(row)
        self.done += 1
        self._epoch += 1
        with writing(self.path.parent):
            for logger in self.loggers:
                logger.epoch(self.done, row)
        if self.watcher is not None:
            self.watcher.epoch(row)

    def _write(self, row: Mapping[str, Any]) -> None:
        with writing(self.path):
            self.log.write(json.dumps(row) + "\n")
            self.log.flush()
