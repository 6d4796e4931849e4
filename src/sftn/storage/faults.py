"""Errors of the file system as lines that name the remedy."""

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
    errno.EIO: "look after the disk",
}


def file_error(verb: str, path: Path, error: OSError, option: str = "--out") -> InputError:
    """The error that names a file or folder and what to do about it.

    Args:
        verb: what was tried, such as "write".
        path: of what.
        error: what the system said.
        option: of the command line, by which a person chooses another place.
    """
    remedy = _REMEDIES.get(error.errno or 0, "free space there or choose another {option}").format(option=option)
    return InputError(f"cannot {verb} {path}: {error.strerror or error}; {remedy}, the same command then resumes")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """While this lasts, an error of the system becomes a line about a file that cannot be written.

    Raises:
        InputError: in place of the OSError.
    """
    try:
        yield
    except OSError as error:
        raise file_error("write", path, error) from error
