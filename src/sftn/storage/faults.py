"""Turns file-system errors into one-line messages that name the remedy."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sftn.errors import InputError

_REMEDIES = {
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make it writable or choose another {option}"),
    errno.EMFILE: "raise the limit on open files, e.g. ulimit -n 4096",
    errno.ENFILE: "close other programs or raise the system's limit on open files",
    errno.EIO: "check the disk",
}


def file_error(verb: str, path: Path, error: OSError, option: str = "--out") -> InputError:
    """An `InputError` that names the file or folder, the reason and the remedy.

    Args:
        verb: the attempted action, such as "write".
        path: the file or folder.
        error: the system's error.
        option: the command-line option that chooses another place.
    """
    remedy = _REMEDIES.get(error.errno or 0, "free space there or choose another {option}").format(option=option)
    return InputError(f"cannot {verb} {path}: {error.strerror or error}; {remedy}, the same command then resumes")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A context that turns an OSError into an `InputError` about a file that cannot be written.

    Raises:
        InputError: in place of the OSError.
    """
    try:
        yield
    except OSError as error:
        raise file_error("write", path, error) from error
