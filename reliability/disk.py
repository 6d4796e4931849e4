"""A failing disk: every operation that changes files is counted, and a fault happens at one of them.

The state after a power cut is any that POSIX allows: of a file, the content at its last fsync, and of later writes
nothing, a part, zeros in their place, or everything; of a folder, the names at its last fsync, and of later changes any
number, in order. Files that exist when the observation begins are on the disk.

`reliability/calls.py` reports Python's calls. Writes that do not come from Python are not seen; `sftn` has none.
"""

from __future__ import annotations

import errno
import io
import os
import random
import resource
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

CUT = 77
"""Exit code of a process whose power was cut."""

Kind = Literal["full", "read-only", "handles", "torn", "power"]

NEEDS: dict[Kind, frozenset[str]] = {
    "full": frozenset({"create", "write", "sync", "rename", "mkdir"}),
    "read-only": frozenset({"create", "write", "sync", "rename", "unlink", "mkdir", "touch", "truncate"}),
    "handles": frozenset({"create", "open"}),
    "torn": frozenset({"create", "write", "sync", "rename", "unlink", "mkdir", "truncate"}),
    "power": frozenset({"create", "write", "sync", "rename", "unlink", "mkdir", "truncate"}),
}
"""Operations at which a fault can happen. A full disk still removes files."""
_ERRNO = {"full": errno.ENOSPC, "read-only": errno.EROFS}


@dataclass(frozen=True)
class Fault:
    """A fault from the `at`-th operation on, counted from 1.

    full: no space (half of a write still fits); read-only: nothing can be changed; handles: the process cannot open any
    more files; torn: the process dies there, with half of a write done; power: so does the machine.
    """

    kind: Kind
    at: int
    seed: int = 0
    """Seed of the disk's content after a power cut."""


_open, _remove = io.open, os.unlink
"""The functions before they are patched."""


@dataclass(eq=False)
class Node:
    """A file or folder, independent of its name."""

    path: str | None
    """Current path."""
    folder: bool = False
    synced: bytes = b""
    last: bytes = b""
    """Content at the time when it lost its name."""


@dataclass(frozen=True)
class _Change:
    """A change of names that may not be on the disk yet."""

    gone: str | None
    new: str | None
    node: Node | None

    def within(self, folder: str) -> bool:
        return any(path is not None and os.path.dirname(path) == folder for path in (self.gone, self.new))


class Disk:
    """The files below `root`, as this process changes them.

    Args:
        root: an existing folder that stays.
        fault: the fault; None for none.
    """

    def __init__(self, root: Path, fault: Fault | None = None) -> None:
        self.root = os.path.abspath(root)
        self.fault = fault
        self.operations: list[str] = []
        """Kinds of all operations, in order."""
        self.lock = threading.RLock()
        self._now = {self.root: Node(self.root, folder=True)}
        for path in Path(self.root).rglob("*"):
            self._now[str(path)] = Node(str(path), path.is_dir(), b"" if path.is_dir() else path.read_bytes())
        self._certain = dict(self._now)
        self._changes: list[_Change] = []
        self.handles: dict[int, Node] = {}

    def exit(self) -> None:
        """End the process; a power cut that has not happened yet happens now."""
        if self.fault is not None and self.fault.kind == "power":
            self._cut(self.fault.seed)

    def happens(self, kind: str, what: Any, half: Callable[[], object] = lambda: None) -> None:
        """Count an operation before it is done, and fail if it is time."""
        if kind != "touch":  # a lease is renewed by the clock, not in a fixed order
            self.operations.append(kind)
        count, fault = len(self.operations), self.fault
        if fault is None or count < fault.at or kind not in NEEDS[fault.kind]:
            return
        if fault.kind in ("torn", "power"):
            half()
            if fault.kind == "power":
                self._cut(fault.seed)
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault.kind == "handles":
            free = os.dup(0)
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        else:
            if fault.kind == "full" and count == fault.at:
                half()
            code = _ERRNO[fault.kind]
            raise OSError(code, os.strerror(code), None if isinstance(what, int) else os.fspath(what))

    def mine(self, path: Any) -> bool:
        """Whether a path lies on this disk."""
        return not isinstance(path, int) and f"{_text(path)}{os.sep}".startswith(self.root + os.sep)

    def named(self, path: Any, folder: bool = False) -> Node:
        """Return the node of an existing path; a new one if it was just created."""
        text = _text(path)
        if text not in self._now:
            self._now[text] = Node(text, folder or os.path.isdir(text))
            self._changes.append(_Change(None, text, self._now[text]))
        return self._now[text]

    def _loses_name(self, path: Any) -> Node | None:
        node = self._now.get(_text(path))
        if node is not None and not node.folder:
            node.last = self._content(node)
        return node

    def moves(self, source: Any, target: Any, call: Callable[[], None]) -> None:
        """Rename, and record the change."""
        with self.lock:
            self.happens("rename", target)
            old = self._loses_name(target)
            call()
            if old is not None:
                old.path = None
            node = self._now.pop(_text(source))
            node.path = _text(target)
            self._now[node.path] = node
            self._changes.append(_Change(_text(source), node.path, node))

    def goes(self, path: Any, call: Callable[[], None]) -> None:
        """Remove a name, and record the change."""
        with self.lock:
            if not os.path.lexists(path):
                call()
                return
            self.happens("unlink", path)
            node = self._loses_name(path)
            call()
            self._now.pop(_text(path), None)
            if node is not None:
                node.path = None
            self._changes.append(_Change(_text(path), None, None))

    def settle(self, node: Node) -> None:
        """Fsync: the node's current state is on the disk."""
        if not node.folder:
            node.synced = self._content(node)
            return
        for change in [change for change in self._changes if node.path and change.within(node.path)]:
            _apply(change, self._certain)
            self._changes.remove(change)

    def _content(self, node: Node) -> bytes:
        if node.path is None:
            return node.last
        with _open(node.path, "rb") as file:
            content: bytes = file.read()
            return content

    def _cut(self, seed: int) -> NoReturn:
        """Leave the folder in a state that the disk may have after a power cut, and end at once."""
        with self.lock:
            self.fault = None
            choose = random.Random(seed)
            names, share = dict(self._certain), choose.choice([0.0, 0.5, 1.0])
            for change in self._changes:
                if choose.random() < share:
                    _apply(change, names)
            kept = {
                path: _kept(node.synced, self._content(node), choose) for path, node in names.items() if not node.folder
            }
            folders = {path for path, node in names.items() if node.folder}
            for entry in list(Path(self.root).iterdir()):
                shutil.rmtree(entry) if entry.is_dir() else _remove(entry)
            for path in sorted(folders - {self.root}):
                if os.path.dirname(path) in folders and os.path.isdir(os.path.dirname(path)):
                    Path(path).mkdir()
            for path, content in kept.items():
                if os.path.isdir(os.path.dirname(path)):
                    with _open(path, "wb") as file:
                        file.write(content)
            os._exit(CUT)


def _text(path: Any) -> str:
    return os.path.abspath(os.fsdecode(path))


def _apply(change: _Change, names: dict[str, Node]) -> None:
    if change.gone is not None:
        names.pop(change.gone, None)
    if change.new is not None and change.node is not None:
        names[change.new] = change.node


def _kept(synced: bytes, content: bytes, choose: random.Random) -> bytes:
    """Draw a possible content of a file that was changed after its last fsync."""
    if synced == content:
        return content
    part = choose.randrange(len(content) + 1)
    return choose.choice([synced, content[:part], content[:part] + bytes(len(content) - part), content])
