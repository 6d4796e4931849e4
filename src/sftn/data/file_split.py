"""A split whose images stay where they are until they are wanted: which ones, their labels, and how to read one."""

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
"""Processes that read and decode, unless asked otherwise."""


class Reader(Protocol):
    """Images somewhere, by row. It is sent to worker processes, so it holds no open file when it is pickled."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(N,) bytes of each, encoded."""

    @property
    def stamp(self) -> str:
        """Where they are, and something that changes when they do."""

    def name(self, row: int) -> str:
        """What it is called there; the same wherever the images lie."""

    def open(self, row: int) -> tuple[Path, BinaryIO | None]:
        """Its path, and its content where no file has that path."""


class Names:
    """Many strings in few objects: a million take what they are long, and processes may share them untouched."""

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
    """A split whose images are read and decoded when they are wanted.

    A loader and `evaluation_batches` take it as any other split; asking for all pixels at once raises an error.

    Args:
        reader: of the images.
        rows: (N,) int64: which of the reader's.
        labels: (N,) int64.
        size: height and width.
        resize: what the shorter side becomes before the centre is cut out, in evaluation; None for `size`.
        workers: processes that read and decode; 0 for none but this one. They change nothing but speed.
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
        # A split is frozen.
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
        """There are no pixels to hold.

        Raises:
            InputError: always.
        """
        raise InputError(
            "this needs all pixels in memory and these images are streamed: take fewer, or give --memory, not --stream"
        )

    def to(self, device: torch.device | str) -> Files:
        """Itself: batches are brought to the device one by one."""
        return self

    def pick(self, which: Tensor) -> Files:
        """Some of the images, by mask or index."""
        return Files(self.reader, self.rows[which], self.labels[which], self.size, self.resize, self.workers)

    def name(self, i: int) -> str:
        """What the i-th image is called at its source."""
        return self.reader.name(int(self.rows[i]))

    def sample(self, count: int) -> Split:
        """So many images, evenly from the whole split, decoded as in evaluation.

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
        """What a fingerprint is made of: names, bytes of each file, and labels; not the pixels."""
        yield f"files {self.shape} {self.resize} {len(self)}".encode()
        for row in self.rows.tolist():
            yield f"{self.reader.name(row)}\0{self.reader.sizes[row]}\n".encode("utf-8", "surrogateescape")
        yield self.labels.numpy().data


def decoded(files: Files) -> tuple[Split, list[tuple[int, str]]]:
    """All images of a split in memory, and what is wrong with those that cannot be had, whose pixels are undefined.

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
