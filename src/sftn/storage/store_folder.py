"""Folders of row stores: their files and format, which of them are in use, and how they are bounded together.

A process that uses a store (`sftn.storage.row_store`) holds a shared `flock` on it, which ends with the process. Whole
stores that nobody uses make room for new ones, the least recently used first. Stores are created, opened and removed by
one process at a time, which holds a lock on the folder.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sftn.errors import InputError
from sftn.storage.faults import file_error

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

MAGIC = b"sftn rows 1\n"
"""The first bytes of a store; the number is the version of the format."""
HEAD = 4096
"""Bytes before the seals: `MAGIC` and the record as JSON, padded with spaces."""
SEAL = 8
"""Bytes of a row's seal; a row without one is missing."""
SUFFIX = ".rows"
PATIENCE = 10.0
"""Seconds that a process waits for others that are opening or creating stores of the same folder."""


def stores_folder() -> Path:
    """Where all runs on this machine keep their teachers' outputs: `~/.cache/sftn/teacher-outputs`.

    The environment variable XDG_CACHE_HOME names another place than `~/.cache`.

    Raises:
        InputError: there is no home directory.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sftn" / "teacher-outputs"
    except RuntimeError as error:
        raise InputError(f"{error}: set XDG_CACHE_HOME") from error


@dataclass(frozen=True)
class Found:
    """A file in a folder of stores."""

    path: Path
    record: Mapping[str, Any] | None
    """What the store was made with; None if the file is damaged, or of another format."""
    bytes: int
    used: float
    """When it was last opened or written, in seconds since 1970."""
    busy: bool
    """Whether a process uses it."""

    @property
    def filled(self) -> float:
        """Share of its places that hold a row, as far as the file can be read."""
        with suppress(OSError), open(self.path, "rb", buffering=0) as file:
            return 0.0 if self.record is None else filled(file.fileno(), self.record["places"])
        return 0.0


def stores(folder: Path) -> list[Found]:
    """What a folder of stores holds, the least recently used first."""
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with suppress(OSError):  # removed meanwhile, or no regular file
            file = opened(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)
            try:
                about = os.fstat(file)
                found.append(Found(path, record_of(file), about.st_size, about.st_mtime, not _free(file)))
            finally:
                os.close(file)
    return sorted(found, key=lambda store: store.used)


def clear(folder: Path) -> list[Found]:
    """Remove all stores of a folder that no process uses, damaged ones and those of other formats too.

    Returns:
        Those that were removed.

    Raises:
        InputError: the folder cannot be changed.
    """
    if not folder.exists():
        return []
    try:
        with alone(folder):
            free = [store for store in stores(folder) if not store.busy]
            for store in free:
                store.path.unlink()
            _sweep(folder)
    except OSError as error:
        raise file_error("change", folder, error, "XDG_CACHE_HOME") from error
    return free


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """A context in which no other process creates, opens or removes stores of a folder.

    Raises:
        InputError: others take too long, or the system has no such locks.
        OSError: the folder cannot be written.
    """
    if fcntl is None:
        raise InputError("this system has no flock, without which processes cannot share files")
    file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        lock(file, "EX")
        yield
    finally:
        os.close(file)


def lock(file: int, kind: Literal["SH", "EX"]) -> None:
    """Take a shared or an exclusive `flock`, which ends when the file is closed.

    Raises:
        InputError: others hold it for longer than `PATIENCE`.
    """
    until, flags = time.monotonic() + PATIENCE, getattr(fcntl, f"LOCK_{kind}") | fcntl.LOCK_NB
    while True:
        try:
            return fcntl.flock(file, flags)
        except BlockingIOError:
            if time.monotonic() > until:
                raise InputError(f"other processes have locked the stores for {PATIENCE:.0f} s") from None
            time.sleep(0.02)


def opened(path: Path, flags: int = os.O_RDWR) -> int:
    """A regular file's descriptor; opening never waits.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    file = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "not a regular file")
    return file


def create_store(path: Path, record: Mapping[str, Any], size: int) -> None:
    """Make an empty store whose place on the disk is taken already, so that the disk cannot be too full for a row."""
    text = json.dumps(record, ensure_ascii=False).encode(errors="replace")
    temporary, head = path.with_suffix(".tmp"), (MAGIC + text).ljust(HEAD)
    assert len(head) == HEAD, "a store's record is short"
    try:
        file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file, 0, size)
            else:
                os.ftruncate(file, size)
            if os.pwrite(file, head, 0) < len(head):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(file)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def make_room(folder: Path, keep: Path, size: int, room: int) -> None:
    """Remove stores until all that are left fit into `room`.

    Args:
        folder: of the stores.
        keep: one that is to be opened, and so stays.
        size: bytes that it will take if it is to be created, or 0.
        room: bytes for all stores together.

    Raises:
        InputError: those that are in use leave too little; nothing is removed then.
    """
    _sweep(folder)
    others = [store for store in stores(folder) if store.path != keep]
    busy = sum(store.bytes for store in others if store.busy)
    if size and busy + size > room:
        needs, left = f"{size / 2**30:.2f} GiB", f"{max(0, room - busy) / 2**30:.2f} GiB"
        raise InputError(f"it takes {needs}, and stores in use leave {left}: a larger --teacher-cache has room")
    total = size + sum(store.bytes for store in others) + (keep.stat().st_size if not size else 0)
    for store in others:
        if total > room and not store.busy:
            store.path.unlink()
            total -= store.bytes


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed while they created a store left."""
    for path in folder.glob("*.tmp"):
        path.unlink(missing_ok=True)


def _free(file: int) -> bool:
    """Whether no process uses a store."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_UN)
    except OSError:
        return False
    return True


def record_of(file: int) -> dict[str, Any] | None:
    """The record of an open store, if it is whole and of this format."""
    head = os.pread(file, HEAD, 0)
    try:
        record = json.loads(head.removeprefix(MAGIC)) if head.startswith(MAGIC) else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    places, width = record.get("places"), record.get("width")
    if type(places) is not int or type(width) is not int or min(places, width) < 1:
        return None
    return record if HEAD + places * (SEAL + width) == os.fstat(file).st_size else None


def filled(file: int, places: int) -> float:
    """Share of the places that have a seal."""
    count, at, end = 0, HEAD, HEAD + SEAL * places
    while at < end and (part := os.pread(file, min(2**20, end - at), at)):
        count += int(np.count_nonzero(np.frombuffer(part[: len(part) // SEAL * SEAL], np.uint64)))
        at += len(part)
    return count / max(1, places)
