"""The epoch log of a run, `log.jsonl`, and the optional loggers of `sftn.runs.loggers`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from sftn.errors import InputError
from sftn.runs.folder import RunFolder
from sftn.runs.loggers import Logger
from sftn.storage.faults import writing
from sftn.training.callback import Callback


class Journal:
    """A callback that writes one row per epoch to the log and passes every event on to another callback.

    In distributed training every process has a journal, but only the leader's is opened: the others track progress
    and write nothing.

    Args:
        folder: the run's folder.
        callback: called after the journal; None for no other callback.

    Raises:
        InputError: the log cannot be written. Rows that are in a checkpoint are written again when the run resumes.
    """

    def __init__(self, folder: Path, callback: Callback | None) -> None:
        self.folder, self.callback = folder, callback
        self.path = RunFolder(folder).log
        self.at = "before training"
        """How far training has come, as text for messages."""
        self.done = 0
        self.log: TextIO | None = None
        self.loggers: Sequence[Logger] = ()

    def open(self, history: list[dict[str, Any]], loggers: Sequence[Logger] = ()) -> None:
        """Begin to write.

        Args:
            history: rows of the epochs before an interruption; later rows are dropped from the log.
            loggers: called after every epoch, and closed at the end.
        """
        self.done, self.loggers = len(history), loggers
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
            if self.log is not None:
                with writing(self.path), self.log:
                    os.fsync(self.log.fileno())
            with writing(self.folder):
                for logger in self.loggers:
                    logger.close(failed=error is not None)
        except InputError:
            if error is None:  # otherwise the first error is the one to report
                raise

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        """Note that a phase begins."""
        self._phase, self._epoch = phase, done + 1
        self.at = f"{phase}, epoch {done + 1}"
        if self.callback is not None:
            self.callback.start(phase, epochs, steps, done)

    def step(self, step: int) -> None:
        """Note that `step` steps of the epoch are done."""
        self.at = f"{self._phase}, epoch {self._epoch}, after step {step}"
        if self.callback is not None:
            self.callback.step(step)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Write the row of an epoch that is over."""
        self._write(row)
        self.done += 1
        self._epoch += 1
        with writing(self.folder):
            for logger in self.loggers:
                logger.epoch(self.done, row)
        if self.callback is not None:
            self.callback.epoch(row)

    def _write(self, row: Mapping[str, Any]) -> None:
        if self.log is None:
            return
        with writing(self.path):
            self.log.write(json.dumps(row) + "\n")
            self.log.flush()
