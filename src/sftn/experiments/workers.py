"""Runs side by side: child processes that carry them out, each with its share of the processor's threads.

A worker is a fresh interpreter whose number of threads is set before PyTorch is there, so a script of your own needs no
`if __name__ == "__main__"`. It is sent the images once, which all workers map from one file, then one group of runs
after another. It answers with what a callback and the log would be told, and
with what became of the runs. A worker that dies is noticed by the end of its answers; the runs' own checkpoints say how
far they have come.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from sftn.data.dataset import Dataset
from sftn.errors import InputError, Stopped
from sftn.methods import METHODS
from sftn.networks import NETWORKS, PACKAGED
from sftn.runs.cohort import Outcome, carry_out
from sftn.runtime.cores import free_memory, usable_cores
from sftn.runtime.signals import sigterm
from sftn.spec.execution import Execution
from sftn.spec.run import Run

NEEDED = 1_200 * 2**20
"""Bytes that one more run is assumed to need at most, besides the images, which the workers share."""
_LARGE = 2**16
"""Bytes from which a tensor travels in a file."""
_OFTEN = 0.2
"""Seconds between two steps that a worker tells of."""


def settle_jobs(execution: Execution, runs: Sequence[Run], device: str) -> int:
    """How many runs are carried out at once.

    `auto` is one for each core that this process may use, or for as many cores as threads are asked for, if there is
    memory for them; and one on a GPU, for runs that share every batch among processes, and for networks or methods that
    were registered in this process alone.

    Args:
        execution: has `jobs` and `threads`, each a number or `auto`.
        runs: all that are to be carried out.
        device: that they run on: cpu, cuda or mps.

    Raises:
        InputError: a number is none, or a larger one than memory, or these runs, allow.
    """
    asked, auto, threads = str(execution.jobs), execution.jobs == "auto", execution.thread_count or 1
    if not auto and not (asked.isdigit() and int(asked) > 0):
        raise InputError(f"jobs is {asked}: give a number of runs to carry out at once, at least 1, or auto")
    free = free_memory()
    fitting = None if free is None else max(1, free // NEEDED)
    if auto:
        alone = device != "cpu" or execution.devices * execution.nodes > 1 or _own(runs)
        cores = usable_cores() // threads
        return 1 if alone else max(1, min(cores, len(runs), cores if fitting is None else fitting))
    jobs = int(asked)
    if jobs > 1 and execution.devices * execution.nodes > 1:
        raise InputError(f"jobs is {jobs}: runs that share every batch are carried out one by one, leave --jobs out")
    if jobs > 1 and (own := _own(runs)):
        raise InputError(f"jobs is {jobs}, but {own} is known to this process alone: leave jobs out")
    if fitting is not None and jobs > fitting:
        raise InputError(f"jobs is {jobs}: there is memory for {fitting} at once")
    return jobs


def _own(runs: Sequence[Run]) -> str:
    """A network or method of these runs that the package does not have by itself; empty if there is none."""
    names = {name for run in runs for one in (run, *run.teachers) if isinstance(one, Run) for name in _networks(one)}
    for name in sorted(names):
        if ":" not in name and NETWORKS.get(name) is not PACKAGED.get(name):
            return f"the network {name}"
    methods = {term.method for run in runs if run.objective is not None for term in run.objective.terms}
    own = (name for name in sorted(methods) if not METHODS[name].__module__.startswith("sftn."))
    return next((f"the method {name}" for name in own), "")


def _networks(run: Run) -> list[str]:
    return [run.network, *([] if run.friendly is None else run.friendly.student.split("+"))]


@dataclass(frozen=True)
class Event:
    """What a worker tells: a callback's `start`, `step` or `epoch`, a `log` line, `done` with outcomes, or `died`."""

    worker: int
    kind: str
    content: Any = None


class Workers:
    """Some workers, and one queue of what they all tell. A context manager: at its end all are gone.

    Args:
        dataset: the images of all runs.
        out: the folder of all runs.
        execution: how runs are carried out; each worker is alone in that.
        threads: of each worker.
    """

    def __init__(self, dataset: Dataset, out: Path, execution: Execution, threads: int) -> None:
        self.threads = threads
        self.events: queue.Queue[Event] = queue.Queue()
        self._given = (dataset, out, replace(execution, jobs="1", threads=str(threads)))
        self._ends = contextlib.ExitStack()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._sent: bytes = b""

    def __enter__(self) -> Workers:
        folder = Path(self._ends.enter_context(tempfile.TemporaryDirectory(prefix="sftn-images-")))
        stream = io.BytesIO()
        _Pickler(stream, folder).dump(self._given)
        self._sent = stream.getvalue()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self.stop()
        for process in self._processes.values():
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()  # nothing more to do: it ends by itself
        for process in self._processes.values():
            process.wait()
        self._ends.close()

    def give(self, worker: int, runs: Sequence[Run], waiting: int = 0) -> None:
        """Have a worker carry out a group of runs; it is started if it is not there.

        Args:
            worker: its number.
            runs: the group.
            waiting: how many runs will ask their teacher the same later.
        """
        process = self._processes.get(worker)
        if process is None or process.poll() is not None:
            process = self._started(worker)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # that it died is an event
            _send(process.stdin, (list(runs), waiting))

    def stop(self) -> None:
        """Have all workers save what they are at and end; a second signal meanwhile ends them at once."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        try:
            for process in self._processes.values():
                process.wait()
        except BaseException:
            for process in self._processes.values():
                process.kill()
            raise

    def _started(self, worker: int) -> subprocess.Popen[bytes]:
        threads = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        command = [sys.executable, "-m", "sftn.experiments.workers"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        # A session of its own: a Ctrl-C in the terminal is this process's to hand on.
        process = subprocess.Popen(command, **pipes, env=os.environ | threads, start_new_session=True)  # type: ignore[call-overload]
        self._processes[worker] = process
        threading.Thread(target=self._listen, args=(worker, process), daemon=True).start()
        with contextlib.suppress(BrokenPipeError):
            _send(process.stdin, {"path": [path for path in sys.path if path], "threads": self.threads})
            process.stdin.write(len(self._sent).to_bytes(8, "little") + self._sent)
            process.stdin.flush()
        return process

    def _listen(self, worker: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        while True:
            try:
                kind, content = pickle.loads(_received(process.stdout))
            except EOFError:
                self.events.put(Event(worker, "died", process.wait()))
                return
            self.events.put(Event(worker, kind, content))


class _Pickler(pickle.Pickler):
    """Puts large tensors into files, which every reader maps."""

    def __init__(self, stream: BinaryIO, folder: Path) -> None:
        super().__init__(stream, protocol=5)
        self.folder, self.count = folder, 0

    def persistent_id(self, value: Any) -> str | None:
        """The file of a tensor."""
        if not isinstance(value, Tensor) or value.nbytes < _LARGE or value.dtype != torch.uint8:
            return None
        path = self.folder / f"{self.count}.npy"
        self.count += 1
        np.save(path, value.contiguous().numpy())
        return str(path)


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, path: str) -> Tensor:
        """The tensor in a file, mapped copy-on-write: pages that nobody changes are there once."""
        return torch.from_numpy(np.load(path, mmap_mode="c"))


def _send(stream: Any, value: Any) -> None:
    data = pickle.dumps(value, protocol=5)
    stream.write(len(data).to_bytes(8, "little") + data)
    stream.flush()


def _received(stream: Any) -> bytes:
    head = stream.read(8)
    if len(head) < 8:
        raise EOFError
    size = int.from_bytes(head, "little")
    data: bytes = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


class _Teller(logging.Handler):
    """In a worker: a callback and a handler of the log that send what they are told."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self.stream, self._spoke = stream, 0.0

    def tell(self, kind: str, content: Any) -> None:
        """Send; where nobody listens any more, ask for the end: what is being trained is then saved."""
        try:
            _send(self.stream, (kind, content))
        except OSError:
            os.kill(os.getpid(), signal.SIGTERM)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line of the log."""
        self.tell("log", (record.levelno, record.getMessage()))

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        """A phase begins."""
        self.tell("start", (phase, epochs, steps, done))

    def step(self, step: int) -> None:
        """Steps of the epoch are done."""
        if time.monotonic() - self._spoke > _OFTEN:
            self._spoke = time.monotonic()
            self.tell("step", (step,))

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is over."""
        self.tell("epoch", (dict(row),))


def serve(stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Be a worker: carry out the groups of runs that come in, until nothing comes any more."""
    about = pickle.loads(_received(stdin))
    sys.path[:] = [*about["path"], *(path for path in sys.path if path not in about["path"])]
    torch.set_num_threads(about["threads"])
    teller = _Teller(stdout)
    logger = logging.getLogger("sftn")
    logger.addHandler(teller)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    dataset, out, execution = _Unpickler(io.BytesIO(_received(stdin))).load()
    while True:
        try:
            runs, waiting = pickle.loads(_received(stdin))
        except EOFError:
            return
        teller.tell("done", _outcomes(runs, waiting, dataset, out, execution, teller))


def _outcomes(
    runs: list[Run], waiting: int, dataset: Dataset, out: Path, execution: Execution, teller: _Teller
) -> list[Outcome] | InputError:
    try:
        return carry_out(runs, dataset, out, execution, callback=teller, waiting=waiting)
    except InputError as error:
        return error


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever is printed goes to stderr
    try:
        with sigterm():
            serve(sys.stdin.buffer, answers)
    except (Stopped, KeyboardInterrupt):
        sys.exit(0)
