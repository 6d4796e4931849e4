"""Real processes that can be killed at will, forked from this one, which has already imported everything."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

# Some of these imports only spare the children the time.
import lightning_fabric  # noqa: F401
import torch

import sftn.cli
import sftn.cli.commands.train
import sftn.runs.runner
from reliability import calls, small
from reliability.disk import Disk, Fault
from sftn.storage import lease

PATIENCE = 120.0
"""Seconds after which a process that is still running counts as hung."""
_ENDING = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    """Exit code; 128 + n after signal n, as in shells."""
    seconds: float
    """Lifetime of the process."""
    said: str
    complained: str

    def end(self) -> str:
        """Describe the end: exit code and last line of standard error."""
        lines = self.complained.strip().splitlines() or ["no word"]
        lost = "a traceback ending in " if "Traceback" in self.complained else ""
        return f"exit code {self.code}, {lost}{lines[-1]}"


class Child:
    """A process that calls a function and ends; its output goes to files in `notes`."""

    def __init__(self, task: Callable[[], None], notes: Path) -> None:
        notes.mkdir(parents=True, exist_ok=True)
        self._files = notes / "stdout", notes / "stderr"
        for path in self._files:  # created here, because the child may be killed before it can
            path.write_bytes(b"")
        self._began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # a signal during Python's fork would be ignored
        self.pid = os.fork()
        if self.pid == 0:
            _live(task, *self._files)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def signal(self, number: int) -> None:
        """Send a signal; the process may have ended, but has not been waited for."""
        os.kill(self.pid, number)

    def wait(self, seconds: float) -> Ended | None:
        """Wait for up to the given seconds; return how it ended, or None if it is still running."""
        end = time.monotonic() + seconds
        while True:
            gone, status = os.waitpid(self.pid, os.WNOHANG)
            now = time.monotonic()
            if gone:
                code = os.waitstatus_to_exitcode(status)
                said, complained = (path.read_text(errors="replace") for path in self._files)
                return Ended(code if code >= 0 else 128 - code, now - self._began, said, complained)
            if now >= end:
                return None
            time.sleep(min(0.002, end - now))

    def end(self) -> Ended:
        """Wait for its end.

        Raises:
            TimeoutError: it hangs, and was killed.
        """
        ended = self.wait(PATIENCE)
        if ended is None:
            self.signal(signal.SIGKILL)
            self.wait(PATIENCE)
            raise TimeoutError(f"process {self.pid} hung for {PATIENCE:.0f} s")
        return ended


def sftn_command(arguments: list[str], notes: Path, disk: Path | None = None, fault: Fault | None = None) -> Child:
    """Run `sftn` with these arguments in a separate process.

    Args:
        arguments: arguments of the command line.
        notes: folder for its output.
        disk: folder that is observed as a disk, whose number of operations is then written to `notes`; None to observe
            nothing.
        fault: the fault on that disk.
    """

    def task() -> None:
        lease.SECONDS = 1.0  # a lease torn by a power cut keeps others waiting this long, instead of 2 minutes
        small.register()
        if disk is None:
            sftn.cli.main(arguments)
            return
        watched = Disk(disk, fault)
        calls.watch(watched)
        sftn.cli.main(arguments)
        (notes / "operations").write_text("\n".join(watched.operations))
        watched.exit()

    return Child(task, notes)


def _live(task: Callable[[], None], said: Path, complained: Path) -> NoReturn:
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        for number, path, flags in (
            (0, os.devnull, os.O_RDONLY),
            (1, said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            (2, complained, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        ):
            opened = os.open(path, flags)
            os.dup2(opened, number)
            os.close(opened)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        torch.set_num_threads(1)
        task()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
