"""Splits whose images are read on demand: which images, their labels, and how to read one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sftn.data.dataset import Split
from sftn.data.decoding import Damaged, decode
from sftn.errors import InputError

WORKERS = 2
"""Default number of processes that read and decode."""


class Reader(Protocol):
    """Reads encoded images by row. It is sent to worker processes, so its pickle holds no open file."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(N,) size of each encoded image, in bytes."""

    @property
    def stamp(self) -> str:
        """Where the images are, with something that changes when they do."""

    def name(self, row: int) -> str:
        """Name of an image within its source, wherever that is stored."""

    def open(self, row: int) -> tuple[Path, BinaryIO | None]:
        """Path of an image, and its content if there is no file at that path."""


class Names:
    """Many strings in few objects: a million take only their own length, and processes can share the memory."""

    def __init__(self, names: Iterable[str]) -> None:
        parts = [name.encode("utf-8", "surrogateescape") for name in names]
        self._whole = b"".join(parts)
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> str:
        begin = int(self._ends[row - 1]) if row else 0
        return self._whole[begin : int(self._ends[row])].decode("utf-8", "surrogateescape")


class Files(Split):
    """A split whose images are read and decoded on demand.

    Loaders and `evaluation_batches` take it like any other split; accessing all pixels at once raises an error.

    Args:
        reader: reads the encoded images.
        rows: (N,) int64: rows of the reader that belong to the split.
        labels: (N,) int64.
        size: height and width.
        resize: length of the shorter side before the centre crop, in evaluation; None for `size`.
        workers: processes that read and decode; 0 to do so in this process. Affects speed only.
    """

    def __init__(
        self,
        reader: Reader,
        rows: Tensor,
        labels: Tensor,
        size: int,
        resize: int | None = None,
        workers: int = WORKERS,
    ) -> None:
        self.reader: Reader
        self.rows: Tensor
        self.size: int
        self.resize: int | None
        self.workers: int
        # The dataclass is frozen.
        vars(self).update(reader=reader, rows=rows, labels=labels, size=size, resize=resize, workers=workers)

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"Files({len(self)} images of {self.shape})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return 3, self.size, self.size

    @property
    def images(self) -> Tensor:
        """Unavailable, because streamed images are not held in memory.

        Raises:
            InputError: always.
        """
        raise InputError(
            "this needs all pixels in memory, but the images are streamed: use fewer, or --memory instead of --stream"
        )

    def to(self, device: torch.device | str) -> Files:
        """Return the split itself: batches are moved to the device one by one."""
        return self

    def pick(self, which: Tensor) -> Files:
        """Select images by mask or index."""
        return Files(self.reader, self.rows[which], self.labels[which], self.size, self.resize, self.workers)

    def name(self, i: int) -> str:
        """Name of the i-th image within its source."""
        return self.reader.name(int(self.rows[i]))

    def sample(self, count: int) -> Split:
        """Decode `count` images, evenly spaced over the split, as in evaluation.

        Raises:
            InputError: one of them cannot be decoded.
        """
        count = min(count, len(self))
        chosen = self.pick(torch.arange(count) * len(self) // max(1, count))
        split, bad = decoded(chosen)
        if bad:
            raise Damaged(bad[0][1])
        return split

    def hashed(self) -> Iterator[bytes | memoryview]:
        """Yield what the fingerprint covers: names, byte counts of the files, and labels; not the pixels."""
        yield f"files {self.shape} {self.resize} {len(self)}".encode()
        for row in self.rows.tolist():
            yield f"{self.reader.name(row)}\0{self.reader.sizes[row]}\n".encode("utf-8", "surrogateescape")
        yield self.labels.numpy().data


def decoded(files: Files) -> tuple[Split, list[tuple[int, str]]]:
    """Load a split into memory; also return the errors of unreadable images, whose pixels are undefined.

    Raises:
        InputError: a file cannot be opened.
    """
    images = torch.empty(len(files), *files.shape, dtype=torch.uint8)
    pixels = images.numpy()

    def fill(i: int) -> str | None:
        path, content = files.reader.open(int(files.rows[i]))
        try:
            pixels[i] = decode(path, files.size, content, resize=files.resize)
        except Damaged as error:
            return str(error)
        return None

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        said = list(pool.map(fill, range(len(files))))
    return Split(images, files.labels), [(i, text) for i, text in enumerate(said) if text is not None]
