"""Files that outlive a power cut: whole or not there; and the folders that they lie in."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sftn.storage.faults import file_error, writing


def write_atomically(
    path: Path, content: bytes, *, keep: Path | None = None, guard: Callable[[], None] = lambda: None
) -> None:
    """Write a whole file or none: a temporary file in the same folder, synced, renamed, the folder synced.

    Args:
        path: of the file.
        content: all of it.
        keep: what was at `path` is found here afterwards. It moves only when the new file is whole and synced.
        guard: asked last before anything that was there changes; raises if this process may no longer write.

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
    """Make the names in a folder outlive a power cut."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def make_folder(folder: Path, option: str = "--out") -> Path:
    """Make a folder and those above it, as far as they are missing; their names outlive a power cut.

    Args:
        folder: may exist.
        option: of the command line, by which a person chooses another one.

    Returns:
        The folder.

    Raises:
        InputError: it cannot be made.
    """
    try:
        new = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in new:
            sync_folder(path.parent)
    except OSError as error:
        raise file_error("make", folder, error, option) from error
    return folder
