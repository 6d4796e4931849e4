"""Atomic, durable writes: after a power cut a file and its folder are complete or absent."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sftn.storage.faults import file_error, writing


def write_atomically(
    path: Path, content: bytes, *, keep: Path | None = None, guard: Callable[[], None] = lambda: None
) -> None:
    """Write a whole file or none: write a temporary file in the same folder, sync it, rename it, sync the folder.

    Args:
        path: the file.
        content: its whole content.
        keep: where the previous file at `path` is moved to, once the new one is complete and synced; None keeps none.
        guard: called last before any existing file changes; raises if this process has lost the right to write.

    Raises:
        InputError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    try:
        with writing(path):
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            guard()
            if keep is not None:
                with suppress(FileNotFoundError):
                    os.replace(path, keep)
            os.replace(temporary, path)
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make the entries of a folder durable, so that they survive a power cut."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def make_folder(folder: Path, option: str = "--out") -> Path:
    """Create a folder and its missing parents durably, so that they survive a power cut.

    Args:
        folder: the folder; it may exist.
        option: the command-line option that chooses another folder, for the error message.

    Returns:
        The folder.

    Raises:
        InputError: the folder cannot be created.
    """
    try:
        new = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in new:
            sync_folder(path.parent)
    except OSError as error:
        raise file_error("create", folder, error, option) from error
    return folder
