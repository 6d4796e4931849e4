"""Leases: which process carries out a run, known from files alone, so that machines can share a folder of runs.

A lease is a numbered file in the run's folder. Taking a lease over means creating the next number, which the file
system allows only one process to do; no process renames or rewrites another's file. The holder is the process that
created the highest number. A thread renews the file's time; a lease is free if it has not been renewed for longer than
it lasts, or if its process ran on this machine and has ended. Ages are computed from two files of the same folder, so
the machines' clocks need not agree.

Limits of a protocol without a server:

- An owner that is suspended between its last check of the lease and the rename of a file, for longer than the lease
  lasts, may still do that one rename after it wakes. All such files are complete and of the same run, and
  `sftn runs verify` detects weights that do not belong to the result.
- The file system must create files exclusively (O_EXCL: local ones, NFS from version 3 on, SMB, Lustre; not every FUSE
  file system over an object store) and show a new file to other machines within the time of a lease. NFS refreshes a
  folder after at most 60 s unless its mount is configured differently (`acdirmax`), so 120 s leave a margin of two.
- A process that dies on another machine holds its run until its lease expires. One on this machine does not, if /proc
  shows that it has ended.
- If the server's clock is set back, a lease may appear to have been renewed in the future; one that is further ahead
  than it lasts is free. If the clock is set forward, a living owner may lose its run, which costs the work since its
  last checkpoint.
- `holder`, unless exact, uses this machine's clock: it is wrong if the clocks differ by more than a lease lasts.
"""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from sftn.errors import InputError
from sftn.storage.faults import file_error

SECONDS = 120.0
"""Seconds that a lease lasts unless it is renewed, which happens every sixth of that time."""
_NAME = re.compile(r"lease\.(\d+)")


class Held(InputError):
    """Another process is carrying out this run."""


class Lost(InputError):
    """This process was suspended for so long that another took over its run."""


@dataclass(frozen=True)
class Owner:
    """The process that holds a lease."""

    token: str
    host: str
    place: str
    """The scope in which `pid` is valid: a boot of the machine and a namespace of processes."""
    pid: int
    born: str
    """The start time of the process, so that a later one with the same pid is not mistaken for it."""
    seconds: float
    """Seconds that the lease lasts unless it is renewed."""
    released: bool = False

    @staticmethod
    def here(seconds: float) -> Owner:
        """This process, with a new random token."""
        return Owner(os.urandom(8).hex(), platform.node(), _place(), os.getpid(), _born(os.getpid()), seconds)

    def gone(self) -> bool:
        """Whether the owner released the lease, or ran on this machine and has ended."""
        if self.released or not self.place or self.place != _place():
            return self.released
        try:
            return _born(self.pid) != self.born
        except OSError:  # unknown at the moment, e.g. no free file handles: the lease ends by its time only
            return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else "another process"


class Lease:
    """The exclusive right to carry out the run of a folder, within a `with` block.

    Args:
        folder: the run's folder; it must exist.
        seconds: how long the lease outlives its owner; None for `SECONDS`.

    Raises:
        Held: another process holds the lease.
        InputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, *, seconds: float | None = None) -> None:
        self.folder = folder
        self._lost = False
        self._end = threading.Event()
        try:
            self.owner = Owner.here(SECONDS if seconds is None else seconds)
            top = _top(folder)
            holder = None if top is None else _holder(top[1], _now(folder))
            if holder is not None:
                raise Held(f"{folder.name} is being trained by {holder}: wait for it or choose another --out")
            self.number = 1 if top is None else top[0] + 1
            self.path = folder / f"lease.{self.number:06d}"
            with open(self.path, "x", encoding="utf-8") as file:
                try:
                    json.dump(asdict(self.owner), file)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:  # a full disk: an empty file would count as held for the length of a lease
                    self.path.unlink(missing_ok=True)
                    raise
        except FileExistsError:
            raise Held(f"{folder.name} was just taken by another process: wait or choose another --out") from None
        except OSError as error:
            raise file_error("write in", folder, error) from error
        self._first_of_all()
        self._drop(below=self.number)

    def __enter__(self) -> Lease:
        threading.Thread(target=self._beat, name=f"lease of {self.folder.name}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        with suppress(InputError, OSError):
            self.check()
            if (self.folder / "result.json").exists():
                self._drop(below=self.number + 1)
            else:  # the file stays, so that numbers never fall and a slow rival cannot create one twice
                with open(self.path, "r+", encoding="utf-8") as file:
                    json.dump(asdict(self.owner) | {"released": True}, file)
                    file.truncate()

    def check(self) -> None:
        """Check that this process still holds the lease; to be called before anything is written.

        Raises:
            Lost: another process has taken it over.
            InputError: the folder cannot be read at the moment.
        """
        try:
            top = None if self._lost else _top(self.folder)
            mine = top is not None and top[0] == self.number
            mine = mine and self.owner.token in self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            mine = False
        except OSError as error:
            raise file_error("read", self.folder, error) from error
        if not mine:
            self._lost = True
            raise Lost(f"{self.folder.name} was taken over while this process slept: the other process continues it")

    def _first_of_all(self) -> None:
        """Withdraw if a rival's number is higher.

        Reading the folder while the rival created its lease and removed the previous one may have shown neither.
        """
        try:
            self.check()
        except Lost:
            self.path.unlink(missing_ok=True)
            raise Held(f"{self.folder.name} was just taken by another process: wait or choose another --out") from None

    def _beat(self) -> None:
        while not self._end.wait(self.owner.seconds / 6):
            try:
                os.utime(self.path)
            except FileNotFoundError:
                self._lost = True
                return
            except OSError:
                continue  # the folder may be unreachable for a moment; `check` decides

    def _drop(self, below: int) -> None:
        for number, path in _all(self.folder):
            if number < below:
                path.unlink(missing_ok=True)


def holder(folder: Path, *, exact: bool = False) -> Owner | None:
    """The process that is carrying out the run of a folder, or None; no file is written.

    `exact` uses the clock that stamps files instead of this machine's: it sets the folder's time, which works even on a
    full disk, and raises an OSError where that is not allowed.
    """
    top = _top(folder)
    if exact and top is not None:
        os.utime(folder)
    return None if top is None else _holder(top[1], folder.stat().st_mtime if exact else time.time())


def _holder(path: Path, now: float) -> Owner | None:
    """The owner in a lease file, or None if the lease is free."""
    try:
        with open(path, encoding="utf-8") as file:  # opening makes a network file system refresh the file's time
            age = now - os.fstat(file.fileno()).st_mtime
        owner = _read(path)
    except FileNotFoundError:
        return None
    return None if owner.gone() or abs(age) > owner.seconds else owner


def _read(path: Path) -> Owner:
    """The owner in a lease file; of an unfinished or unreadable file, an anonymous one."""
    try:
        with open(path, "rb") as file:
            record = json.loads(file.read(4096))
        return Owner(**{**record, "pid": int(record["pid"]), "seconds": float(record["seconds"])})
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return Owner("", "", "", 0, "", SECONDS)


def _all(folder: Path) -> list[tuple[int, Path]]:
    found = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted((int(match[1]), path) for match, path in found if match and path.is_file())


def _top(folder: Path) -> tuple[int, Path] | None:
    return max(_all(folder), default=None)


def _now(folder: Path) -> float:
    """The current time on the clock that stamps the files of a folder."""
    probe, path = tempfile.mkstemp(dir=folder, prefix=".now.", suffix=".tmp")
    try:
        os.write(probe, b"?")
        os.fsync(probe)
        return os.fstat(probe).st_mtime
    finally:
        os.close(probe)
        Path(path).unlink(missing_ok=True)


def _place() -> str:
    """A name for this boot and process namespace; empty if unknown, so that a lease ends by its time only."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _born(pid: int) -> str:
    """The start of a process in ticks since boot; empty if it does not exist or is a zombie.

    Raises:
        OSError: the process cannot be inspected, though it may exist.
    """
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        state, *rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return "" if state in "ZX" else rest[18]
    with suppress(ProcessLookupError, OverflowError):  # a system may hide the processes of other users
        os.kill(pid, 0)
        if Path("/proc/self").exists():
            raise PermissionError(f"process {pid} is hidden")
    return ""
