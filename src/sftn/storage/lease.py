"""Leases: who carries out a run, known from files alone, so that processes and machines can share a folder of runs.

A lease is a numbered file in the run's folder. Taking one over means creating the next number, which a file system lets
only one process do; nobody ever renames or rewrites another's. The holder is whoever made the highest number. Its
file's time is renewed by a thread; a lease whose time is older than it promised is free, and so is that of a process
of this machine that is gone. Ages are told from two files of the same folder, so clocks of machines need not agree.

What cannot be promised without a server:

- An owner that is stopped between its last look at its lease and the rename of a file, for longer than the lease lasts,
  may still do that one rename after it wakes. All such files are whole and of the same run, and `sftn runs verify`
  notices weights that are not those of the result.
- The file system must make a file exclusively (O_EXCL: local ones, NFS from version 3 on, SMB, Lustre; not every FUSE
  file system over an object store) and show a new file to other machines within the time of a lease. NFS shows a
  folder anew after at most 60 s unless its mount says otherwise (`acdirmax`), so 120 s leave a margin of two.
- A process of another machine that has died holds its run until its lease is over. One of this machine does not, where
  /proc tells of it.
- If the server's clock is set back, a lease may look as if it were renewed in the future; one that lies further ahead
  than it lasts is free. If the clock is set forward, a living owner may lose its run, which costs what it did since its
  last checkpoint.
- `holder`, unless exact, goes by this machine's clock: with clocks further apart than a lease lasts it is wrong.
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
"""How long a lease lasts unless it is renewed; it is renewed six times as often."""
_NAME = re.compile(r"lease\.(\d+)")


class Held(InputError):
    """Another process carries out this run."""


class Lost(InputError):
    """This process slept so long that another took its run over."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lease."""

    token: str
    host: str
    place: str
    """Where `pid` means something: this boot of the machine, this namespace of processes."""
    pid: int
    born: str
    """When the process began, so that a later one with the same number is not taken for it."""
    seconds: float
    """How long the lease lasts unless it is renewed."""
    released: bool = False

    @staticmethod
    def here(seconds: float) -> Owner:
        """This process, with a token of its own."""
        return Owner(os.urandom(8).hex(), platform.node(), _place(), os.getpid(), _born(os.getpid()), seconds)

    def gone(self) -> bool:
        """Whether it gave the lease back, or is a process of this machine that has ended."""
        if self.released or not self.place or self.place != _place():
            return self.released
        try:
            return _born(self.pid) != self.born
        except OSError:  # nothing can be known just now, e.g. for want of file handles: only time ends it
            return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else "another process"


class Lease:
    """The right to carry out the run of a folder, while the `with` block lasts.

    Args:
        folder: of the run; it must exist.
        seconds: how long the lease outlives its owner; None for `SECONDS`.

    Raises:
        Held: somebody else has it.
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
                except OSError:  # a full disk: an empty file would be somebody's for as long as a lease lasts
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
            else:  # the file stays, so that numbers never fall and a slow rival cannot make one twice
                with open(self.path, "r+", encoding="utf-8") as file:
                    json.dump(asdict(self.owner) | {"released": True}, file)
                    file.truncate()

    def check(self) -> None:
        """Look whether the lease is still this process's; to be called before anything is written.

        Raises:
            Lost: it is not.
            InputError: that cannot be seen just now.
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
            raise Lost(f"{self.folder.name} was taken over while this process slept: the other one goes on with it")

    def _first_of_all(self) -> None:
        """Step back if a rival's number is higher.

        A folder that was read while the rival made its lease and removed the one before may have shown neither.
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
                continue  # a folder out of reach for a moment; `check` decides

    def _drop(self, below: int) -> None:
        for number, path in _all(self.folder):
            if number < below:
                path.unlink(missing_ok=True)


def holder(folder: Path, *, exact: bool = False) -> Owner | None:
    """Who carries out the run of a folder just now, or None; nothing is written.

    `exact` goes by the clock that stamps files instead of this machine's: it sets the folder's time, for which even a
    full disk has room, and raises an OSError where that is not allowed.
    """
    top = _top(folder)
    if exact and top is not None:
        os.utime(folder)
    return None if top is None else _holder(top[1], folder.stat().st_mtime if exact else time.time())


def _holder(path: Path, now: float) -> Owner | None:
    """The living owner of a lease's file."""
    try:
        with open(path, encoding="utf-8") as file:  # opening makes a network file system ask for the current time
            age = now - os.fstat(file.fileno()).st_mtime
        owner = _read(path)
    except FileNotFoundError:
        return None
    return None if owner.gone() or abs(age) > owner.seconds else owner


def _read(path: Path) -> Owner:
    """The owner in a file; a file that is not written to its end yet is somebody's, nobody knows whose."""
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
    """The time by the clock that stamps the files of a folder."""
    probe, path = tempfile.mkstemp(dir=folder, prefix=".now.", suffix=".tmp")
    try:
        os.write(probe, b"?")
        os.fsync(probe)
        return os.fstat(probe).st_mtime
    finally:
        os.close(probe)
        Path(path).unlink(missing_ok=True)


def _place() -> str:
    """Names this boot and namespace; empty where the system does not tell, and then only time ends a lease."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _born(pid: int) -> str:
    """The start of a process in ticks since boot; empty if there is none, or it is dead and not yet buried.

    Raises:
        OSError: it cannot be seen, though it may be there.
    """
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        state, *rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return "" if state in "ZX" else rest[18]
    with suppress(ProcessLookupError, OverflowError):  # a system may hide the processes of other users
        os.kill(pid, 0)
        if Path("/proc/self").exists():
            raise PermissionError(f"process {pid} is hidden")
    return ""
