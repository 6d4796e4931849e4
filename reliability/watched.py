"""An observed process that reads bad files: what it opens, starts and connects to, its time and its memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from reliability.reader import Reader
from reliability.readers import READERS
from sftn.errors import InputError

SECONDS, MEMORY = 5.0, 2**30
"""Limits of one input: seconds of processor time, and bytes of memory."""
REFUSED, HARMLESS, FAULT = "refused with one line", "accepted, no harm", "FAULT"
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_ACTS: tuple[str, ...] = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
)
_ACTS += ("os.link", "os.symlink", "os.truncate", "os.chmod", "subprocess.Popen", "socket.connect", "pty.spawn")
_seen: list[str] | None = None
"""Forbidden actions of the current reader; None while none is observed."""


@dataclass(frozen=True)
class Input:
    """One file for one reader."""

    reader: str
    name: str
    content: bytes


@dataclass(frozen=True)
class Answer:
    """The outcome of an input."""

    outcome: str
    about: str = ""
    seconds: float = 0.0
    memory: int = 0
    """Growth of the process's peak memory, in bytes."""


def attempt(reader: Reader, content: bytes, folder: Path) -> tuple[str, str]:
    """Give one input to its reader, in this process; return outcome and message."""
    path = folder / reader.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    reader.beside(folder)
    global _seen
    _seen = []
    try:
        reader.read(folder)
        outcome, about = HARMLESS, ""
    except InputError as error:
        outcome, about = REFUSED, str(error)
        if "\n" in about or not about.isprintable() or not about.strip():
            outcome = FAULT
        if _too_much(error):
            outcome, about = FAULT, f"asked for more memory than there is: {about}"
    except BaseException as error:  # this is what the test looks for
        outcome, about = FAULT, f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        seen, _seen = _seen, None
    return (FAULT, f"did {seen[0]}") if seen else (outcome, about)


def _too_much(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook that records what a reader must not do."""
    if _seen is None:
        return
    if event in _ACTS:
        _seen.append(f"{event} {arguments}"[:200])
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES and arguments[0] != os.devnull:
        _seen.append(f"open for writing {arguments[0]}"[:200])


def _serve(end: Connection, box: str) -> None:
    """The child process: reads inputs until there are no more."""
    sys.dont_write_bytecode = True
    os.chdir(box)
    os.environ["HOME"] = box
    for name in ("SFTN_DATA", "TORCH_HOME"):
        os.environ.pop(name, None)
    import torch

    torch.set_num_threads(1)
    readers = {reader.name: reader for reader in READERS}
    for reader in READERS:  # reading a valid file must succeed, and triggers late imports now
        with tempfile.TemporaryDirectory(dir=box) as folder:
            outcome, about = attempt(reader, reader.wrap(reader.valid()), Path(folder))
        if outcome != HARMLESS:
            end.send(Answer(FAULT, f"{reader.name}: a valid file is not read: {about}"))
            return
    sys.addaudithook(watch)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if _peak() else 0
    if size:
        resource.setrlimit(resource.RLIMIT_AS, (size + 4 * MEMORY, size + 4 * MEMORY))
    end.send(Answer(HARMLESS))
    while (given := end.recv()) is not None:
        with tempfile.TemporaryDirectory(dir=box) as folder:
            before, began = _peak(reset=True), time.process_time()
            outcome, about = attempt(readers[given.reader], given.content, Path(folder))
            seconds, memory = time.process_time() - began, _peak() - before
        if outcome != FAULT and memory > MEMORY:
            outcome, about = FAULT, f"took {memory >> 20} MiB"
        end.send(Answer(outcome, about, seconds, memory))


def _peak(reset: bool = False) -> int:
    """Peak memory of this process in bytes, since the last reset if the system supports resets."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Child:
    """A process that reads inputs, and is replaced when necessary."""

    def __init__(self, box: Path) -> None:
        self.box = box
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.end, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, str(self.box)), daemon=True)
        self.process.start()
        theirs.close()
        ready = self.end.recv()
        if ready.outcome != HARMLESS:
            raise SystemExit(ready.about)

    def give(self, given: Input) -> Answer:
        """Give it an input; one that took too long is tried again, because the machine may have been busy."""
        answer = self._once(given)
        return self._once(given) if answer.seconds > SECONDS else answer

    def _once(self, given: Input) -> Answer:
        self.end.send(given)
        try:
            if self.end.poll(4 * SECONDS):
                answer: Answer = self.end.recv()
                if answer.seconds <= SECONDS:
                    return answer
                return Answer(FAULT, f"took {answer.seconds:.1f} s", answer.seconds, answer.memory)
            answer = Answer(FAULT, f"hangs for {4 * SECONDS:.0f} s", 4 * SECONDS)
        except (EOFError, OSError):
            answer = Answer(FAULT, "the process died")
        self.process.kill()
        self.process.join()
        self._start()
        return answer

    def stop(self) -> None:
        """End it."""
        self.end.send(None)
        self.process.join(10)
        self.process.kill()
