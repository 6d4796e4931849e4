"""Report Python's file calls to a simulated disk, for processes that end with it: patches are never undone."""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable
from typing import Any

from reliability.disk import Disk


def watch(disk: Disk) -> None:
    """Make every later call that changes or opens a file below the disk's root an operation of the disk."""
    plain_open, os_open, close, write, fsync = io.open, os.open, os.close, os.write, os.fsync
    replace, unlink, makedir, removedir = os.replace, os.unlink, os.mkdir, os.rmdir

    def opened(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        ours = file in disk.handles if isinstance(file, int) else disk.mine(file)
        if not ours or not set(mode) & set("wxa+"):
            with disk.lock:
                if ours:
                    disk.happens("open", file)
                return plain_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        with disk.lock:
            if not isinstance(file, int):
                disk.happens("create" if set(mode) & set("wx") else "open", file)
            raw = _Raw(disk, file, mode.replace("b", "").replace("t", ""), closefd)
        buffer: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffer
        return io.TextIOWrapper(buffer, encoding, errors, newline, line_buffering=buffering == 1)

    def low_opened(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        if not disk.mine(path):
            return os_open(path, flags, mode, **more)
        with disk.lock:
            disk.happens("create" if flags & (os.O_CREAT | os.O_TRUNC) else "open", path)
            number = os_open(path, flags, mode, **more)
            disk.handles[number] = disk.named(path)
            return number

    def closed(number: int) -> None:
        disk.handles.pop(number, None)
        close(number)

    def written(number: int, data: Any) -> int:
        with disk.lock:
            if number in disk.handles:
                disk.happens("write", number, lambda: write(number, bytes(data)[: len(bytes(data)) // 2]))
            return write(number, data)

    def synced(file: Any) -> None:
        number = file if isinstance(file, int) else file.fileno()
        with disk.lock:
            node = disk.handles.get(number)
            if node is not None:
                disk.happens("sync", number)
            fsync(number)
            if node is not None:
                disk.settle(node)

    def renamed(source: Any, target: Any, **more: Any) -> None:
        if disk.mine(target):
            disk.moves(source, target, lambda: replace(source, target, **more))
        else:
            replace(source, target, **more)

    def removed(call: Callable[..., None]) -> Callable[..., None]:
        def seen(path: Any, **more: Any) -> None:
            if disk.mine(path) and more.get("dir_fd") is None:
                disk.goes(path, lambda: call(path, **more))
            else:
                call(path, **more)

        return seen

    def folder_made(path: Any, *more: Any, **others: Any) -> None:
        if not disk.mine(path):
            makedir(path, *more, **others)
            return
        with disk.lock:
            disk.happens("mkdir", path)
            makedir(path, *more, **others)
            disk.named(path)

    def noted(kind: str, call: Callable[..., None]) -> Callable[..., None]:
        def seen(what: Any, *more: Any, **others: Any) -> None:
            with disk.lock:
                if what in disk.handles if isinstance(what, int) else disk.mine(what):
                    disk.happens(kind, what)
                call(what, *more, **others)

        return seen

    builtins.open = io.open = opened
    os.open, os.close, os.write, os.fsync, os.fdatasync = low_opened, closed, written, synced, synced  # type: ignore[assignment]
    os.replace = os.rename = renamed  # type: ignore[assignment]
    os.unlink = os.remove = removed(unlink)
    os.rmdir, os.mkdir = removed(removedir), folder_made
    os.utime = noted("touch", os.utime)
    os.truncate, os.ftruncate = noted("truncate", os.truncate), noted("truncate", os.ftruncate)


class _Raw(io.FileIO):
    """A file whose writes are observed."""

    def __init__(self, disk: Disk, file: Any, mode: str, closefd: bool) -> None:
        super().__init__(file, mode, closefd)
        self._disk = disk
        if not isinstance(file, int):
            disk.handles[self.fileno()] = disk.named(file)

    def write(self, data: Any) -> int:
        whole = bytes(data)
        with self._disk.lock:
            self._disk.happens("write", self.fileno(), lambda: super(_Raw, self).write(whole[: len(whole) // 2]))
            return super().write(whole)

    def truncate(self, size: int | None = None) -> int:
        with self._disk.lock:
            self._disk.happens("truncate", self.fileno())
            return super().truncate(size)

    def close(self) -> None:
        if not self.closed:
            self._disk.handles.pop(self.fileno(), None)
        super().close()
