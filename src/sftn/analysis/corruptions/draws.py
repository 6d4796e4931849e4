"""Random numbers that belong to an image, wherever its batch begins or ends."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Draws:
    """A stream of random numbers for each of `count` images that follow each other in a data set.

    Philox counts: the key says what is drawn, the counter which image it is for. Every call draws for all images.

    Args:
        what: names the streams.
        first: position of the first image.
        count: N, how many images.
    """

    def __init__(self, what: str, first: int, count: int) -> None:
        key = int.from_bytes(hashlib.sha256(what.encode()).digest()[:16], "big")
        self._streams = [
            np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, position], np.uint64)))
            for position in range(first, first + count)
        ]

    def normal(self, mean: float, deviation: float, *shape: int) -> Floats:
        """(N, *shape)"""
        return np.stack([stream.normal(mean, deviation, shape) for stream in self._streams])

    def uniform(self, low: float, high: float, *shape: int) -> Floats:
        """(N, *shape)"""
        return np.stack([stream.uniform(low, high, shape) for stream in self._streams])

    def integers(self, low: int, high: int, *shape: int) -> NDArray[np.int64]:
        """(N, *shape), `high` excluded."""
        return np.stack([stream.integers(low, high, shape) for stream in self._streams])

    def poisson(self, rates: Floats) -> NDArray[np.int64]:
        """(N, …), one for each of the (N, …) rates."""
        return np.stack([stream.poisson(rate) for stream, rate in zip(self._streams, rates)])
