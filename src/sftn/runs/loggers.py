"""Optional loggers that record a run's numbers besides its own log: TensorBoard and Weights & Biases.

A new logger is a class with the two methods of `Logger` and a constructor as `LOGGERS` describes, added to `LOGGERS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from sftn.errors import InputError, unknown
from sftn.spec.run import Run


class Logger(Protocol):
    """Receives every epoch of a run; epochs are numbered from 1 through all phases."""

    def epoch(self, number: int, row: Mapping[str, Any]) -> None:
        """Record an epoch that is over; `row` is its line of the log."""

    def close(self, failed: bool) -> None:
        """Finish: training has ended, or (`failed`) was stopped by an error or a signal."""


class TensorBoard:
    """TensorBoard event files in the run's subfolder `tensorboard`; events after the last checkpoint are purged."""

    def __init__(self, folder: Path, run: Run, history: Sequence[Mapping[str, Any]]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError("TensorBoard is not installed: pip install 'sftn[tensorboard]'") from None
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=len(history) + 1)

    def epoch(self, number: int, row: Mapping[str, Any]) -> None:
        """Record every number of the row, grouped by phase."""
        for name, value in _scalars(row):
            self.writer.add_scalar(name, value, number)

    def close(self, failed: bool) -> None:
        """Write the remaining events."""
        self.writer.close()


class WandB:
    """A Weights & Biases run under this run's id, so that a resumed run stays the same run there.

    `WANDB_MODE`, `WANDB_PROJECT` and the library's other variables apply. Without them and without a login nothing is
    sent: the files stay in the run's folder, and `wandb sync FOLDER/wandb/latest-run` uploads them at any later time.
    Each offline start creates a new folder, which also gets the earlier epochs: the latest one is complete.
    """

    def __init__(self, folder: Path, run: Run, history: Sequence[Mapping[str, Any]]) -> None:
        try:
            import wandb
        except ImportError:
            raise InputError("Weights & Biases is not installed: pip install 'sftn[wandb]'") from None
        try:
            mode = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False, verify=False) else "offline")
            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "sftn"),
                id=run.id,
                name=f"{run.name}-s{run.seed}",
                group=run.name,
                config=asdict(run),
                dir=folder,
                mode=mode,
                resume="allow" if mode == "online" else None,
                settings=wandb.Settings(console="off", silent=True),
            )
        except (wandb.Error, OSError, ValueError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"Weights & Biases cannot start: {first}; set WANDB_MODE=offline to log locally"
            ) from error
        if mode == "offline":
            for number, row in enumerate(history, 1):
                self.epoch(number, row)

    def epoch(self, number: int, row: Mapping[str, Any]) -> None:
        """Record every number of the row, grouped by phase."""
        self.run.log(dict(_scalars(row)), step=number)

    def close(self, failed: bool) -> None:
        """Write the remaining numbers; a run that is not finished is marked as failed."""
        self.run.finish(exit_code=int(failed))


LOGGERS: dict[str, Callable[[Path, Run, Sequence[Mapping[str, Any]]], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
}
"""Loggers by their name for `--log`; each is made from the run's folder, the run and its log rows so far."""


def opened(names: Sequence[str], folder: Path, run: Run, history: Sequence[Mapping[str, Any]]) -> list[Logger]:
    """Open the loggers of a run that starts or resumes.

    Raises:
        InputError: a logger is unknown or not installed.
    """
    for name in names:
        if name not in LOGGERS:
            raise unknown("logger", name, LOGGERS)
    return [LOGGERS[name](folder, run, history) for name in dict.fromkeys(names)]


def _scalars(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if isinstance(value, float):
            yield f"{row['phase']}/{name}", value
