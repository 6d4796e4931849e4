"""Stores of rows on disk: sealed rows of bytes that several processes of a machine fill and read at once.

A store is one file: a page with its record, then a seal of eight bytes for each place, then the rows. A row is written
before its seal, and the seal is a hash of the row, its place and the store. So whatever is torn, stale or damaged
counts as missing, without locks or syncs, and a process may be killed, or the power fail, at any time.

Rows go through the system's file cache by reads and writes rather than a memory map: the processes share its pages all
the same, none of them counts as a process's own memory, and a file that a full disk or another program cut short is an
error where a map would end the process by SIGBUS.
"""

from __future__ import annotations

import errno
import hashlib
import os
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftn.errors import InputError
from sftn.storage import records
from sftn.storage.store_folder import (
    HEAD,
    SEAL,
    SUFFIX,
    alone,
    create_store,
    filled,
    lock,
    make_room,
    opened,
    record_of,
)


class Missing(InputError):
    """There is no such store."""


class RowStore:
    """An open store; it is closed, and may be removed by others, when the object is gone.

    Args:
        folder: of the stores; it is created if it is missing.
        identity: all that determines the rows' bytes, as a JSON object: stores with the same one are the same.
        about: what people should know of the store, as a JSON object of a few short texts and numbers.
        places: number of rows.
        width: bytes of a row.
        room: bytes that all stores of the folder may take together.
        create: whether to make the store if it is missing.

    Raises:
        Missing: it is not there, and is not to be created.
        InputError: it cannot be used; the message says why.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        about: Mapping[str, Any],
        places: int,
        width: int,
        *,
        room: int,
        create: bool = True,
    ) -> None:
        self.places, self.width = places, width
        shape = {"places": places, "width": width}
        key = records.digest({"identity": identity, **shape})[:32]
        record = {"key": key, **shape, **about}
        self.path = folder / (key + SUFFIX)
        self._person = bytes.fromhex(key)
        if not create and not self.path.exists():
            raise Missing(f"there is no {self.path}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with alone(folder):
                new = not self.path.exists()
                make_room(folder, self.path, self.size if new else 0, room)
                if new:
                    create_store(self.path, record, self.size)
                self._file = opened(self.path)
                weakref.finalize(self, os.close, self._file)
                lock(self._file, "SH")
            found = record_of(self._file)
            if found is None or any(found.get(name) != record[name] for name in ("key", *shape)):
                raise InputError(f"{self.path} is damaged; sftn runs cache --clear removes it")
            os.utime(self._file)
        except OSError as error:
            raise InputError(f"cannot use {self.path} ({error.strerror or error})") from error

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return HEAD + self.places * (SEAL + self.width)

    @property
    def filled(self) -> float:
        """Share of the places that hold a row, by any process so far."""
        return filled(self._file, self.places)

    def find(self, places: Sequence[int]) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        """Read rows, and check their seals.

        Returns:
            (n,) which of them are there, and (n, width) their bytes, zeros where they are not.
        """
        known = np.zeros(len(places), np.bool_)
        rows = np.zeros((len(places), self.width), np.uint8)
        for n, place in enumerate(places):
            try:
                seal = os.pread(self._file, SEAL, HEAD + SEAL * place)
                row = os.pread(self._file, self.width, self._at(place)) if any(seal) else b""
            except OSError:  # a bad block: as good as missing
                continue
            if len(row) == self.width and seal == self._seal(place, row):
                known[n] = True
                rows[n] = np.frombuffer(row, np.uint8)
        return known, rows

    def put(self, places: Sequence[int], rows: NDArray[np.uint8]) -> None:
        """Write rows, (n, width), each before its seal.

        Raises:
            OSError: the system cannot.
        """
        for place, row in zip(places, rows):
            content = row.tobytes()
            for part, at in ((content, self._at(place)), (self._seal(place, content), HEAD + SEAL * place)):
                if os.pwrite(self._file, part, at) < len(part):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _at(self, place: int) -> int:
        return HEAD + SEAL * self.places + self.width * place

    def _seal(self, place: int, row: bytes) -> bytes:
        salt = place.to_bytes(hashlib.blake2b.SALT_SIZE, "little")
        return hashlib.blake2b(row, digest_size=SEAL, salt=salt, person=self._person).digest()
