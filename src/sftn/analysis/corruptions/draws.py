"""Random numbers that depend on the image, not on its batch."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Draws:
    """Streams of random numbers, one for each of `count` consecutive images of a data set.

    Philox is counter-based: the key identifies what is drawn, the counter the image. Every call draws for all images.

    Args:
        what: identifies the streams.
        first: position of the first image.
        count: N, the number of images.
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
        """Draw integers, (N, *shape), excluding `high`."""
        return np.stack([stream.integers(low, high, shape) for stream in self._streams])

    def poisson(self, rates: Floats) -> NDArray[np.int64]:
        """Draw Poisson numbers, one for each of the (N, …) rates."""
        return np.stack([stream.poisson(rate) for stream, rate in zip(self._streams, rates)])
