"""Where a run's numbers can be watched besides its own log: TensorBoard's event files, Weights & Biases.

A new one is a class with the three methods of `Logger`, and a line in `LOGGERS`.
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
    """Is told every epoch of a run; epochs count through all its phases, from 1."""

    def epoch(self, number: int, row: Mapping[str, Any]) -> None:
        """An epoch is over; `row` is its line of the log."""

    def close(self, failed: bool) -> None:
        """Training has ended, or was stopped by an error or a signal."""


class TensorBoard:
    """Event files in the run's folder `tensorboard`; what was written after the last checkpoint is purged."""

    def __init__(self, folder: Path, run: Run, history: Sequence[Mapping[str, Any]]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError("TensorBoard is not installed: pip install 'sftn[tensorboard]'") from None
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=len(history) + 1)

    def epoch(self, number: int, row: Mapping[str, Any]) -> None:
        """Every number of the row, under its phase."""
        for name, value in _scalars(row):
            self.writer.add_scalar(name, value, number)

    def close(self, failed: bool) -> None:
        """Write what is left."""
        self.writer.close()


class WandB:
    """A run of Weights & Biases under our run's id, so that one that goes on is the same run there.

    `WANDB_MODE`, `WANDB_PROJECT` and the library's other variables hold. Without them and without a login nothing is
    sent: the files stay in the run's folder, and `wandb sync FOLDER/wandb/latest-run` sends them at any later time.
    Each start offline makes a folder of its own, so it gets the epochs before it too: the latest one is whole.
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
            raise InputError(f"Weights & Biases cannot begin: {first}; WANDB_MODE=offline does without") from error
        if mode == "offline":
            for number, row in enumerate(history, 1):
                self.epoch(number, row)

    def epoch(self, number: int, row: Mapping[str, Any]) -> None:
        """Every number of the row, under its phase."""
        self.run.log(dict(_scalars(row)), step=number)

    def close(self, failed: bool) -> None:
        """Write what is left; a run that is not finished is marked as failed."""
        self.run.finish(exit_code=int(failed))


LOGGERS: dict[str, Callable[[Path, Run, Sequence[Mapping[str, Any]]], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
}
"""By the name that `--log` takes; each is given the run's folder, the run and the log's rows before an interruption."""


def opened(names: Sequence[str], folder: Path, run: Run, history: Sequence[Mapping[str, Any]]) -> list[Logger]:
    """The loggers of a run that begins or goes on.

    Raises:
        InputError: one is unknown or not installed.
    """
    for name in names:
        if name not in LOGGERS:
            raise unknown("logger", name, LOGGERS)
    return [LOGGERS[name](folder, run, history) for name in dict.fromkeys(names)]


def _scalars(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if isinstance(value, float):
            yield f"{row['phase']}/{name}", value
