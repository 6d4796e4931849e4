"""What goes wrong around training and a person can mend: files that cannot be written, memory that is not there."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sftn.errors import InputError

_REMEDIES = {
    errno.EROFS: "make it writable or choose another --out",
    errno.EACCES: "make it writable or choose another --out",
    errno.EPERM: "make it writable or choose another --out",
    errno.EMFILE: "raise the limit on open files, e.g. ulimit -n 4096",
    errno.ENFILE: "close other programs or raise the system's limit on open files",
    errno.EIO: "look after the disk",
}


def cannot(verb: str, path: Path, error: OSError) -> InputError:
    """The error that names a file or folder and what to do about it.

    Args:
        verb: what was tried, such as "write".
        path: of what.
        error: what the system said.
    """
    remedy = _REMEDIES.get(error.errno or 0, "free space there or choose another --out")
    return InputError(f"cannot {verb} {path}: {error.strerror or error}; {remedy}, the same command then goes on")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever cannot be written while this lasts.

    Raises:
        InputError: in place of the system's error.
    """
    try:
        yield
    except OSError as error:
        raise cannot("write", path, error) from error
