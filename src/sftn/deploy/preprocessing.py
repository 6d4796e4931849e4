"""The record of a trained network's input and classes that is stored with its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftn.errors import InputError

LARGEST = 2048
"""Limits in pixels on a side of a network's input, and on the length to which an image is resized before."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey pixel (ITU-R BT.601), for networks with one channel."""


@dataclass(frozen=True)
class Images:
    """How an image is turned into a network's input."""

    classes: tuple[str, ...]
    """Names of the classes, in the order of the logits."""
    shape: tuple[int, int, int]
    """(C, H, W)"""
    resize: int
    """Length of an image's shorter side before the centre crop."""
    mean: tuple[float, ...]
    """Mean and standard deviation of each channel, pixels in 0..255."""
    std: tuple[float, ...]

    @staticmethod
    def read(record: Any, where: str) -> Images:
        """Read the record of a file.

        Args:
            record: content of the file.
            where: the file, for the message.

        Raises:
            InputError: it is not such a record.
        """
        try:
            if not isinstance(record, Mapping):
                raise ValueError("there is no record of them")
            classes, shape = tuple(map(str, record["classes"])), tuple(map(int, record["shape"]))
            mean, std = (tuple(map(float, record[name])) for name in ("mean", "std"))
            found = Images(classes, shape, int(record["resize"]), mean, std)  # type: ignore[arg-type]
            whole = len(shape) == 3 and len(classes) > 0 and min(*shape, *std, found.resize) > 0
            whole = whole and max(shape[1], shape[2], found.resize) <= LARGEST and shape[0] <= 16
            finite = all(math.isfinite(value) for value in (*mean, *std))
            if not whole or not finite or not len(mean) == len(std) == shape[0]:
                raise ValueError("its parts do not fit each other")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{where} does not record what images it takes ({error}): export the run again") from error
        return found

    def record(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)

    def pixels(self, path: Path) -> NDArray[np.uint8]:
        """Read an image file as the network's input, (C, H, W): turned upright, resized, centre-cropped.

        For a network with one channel, `LUMA` converts red, green and blue to grey.

        Raises:
            InputError: the file is not a readable image, or the network's input is not an image.
        """
        from sftn.data.decoding import decode

        channels, height, width = self.shape
        if height != width or channels not in (1, 3):
            raise InputError(f"the network takes images of {channels}×{height}×{width}, which no image file has")
        colours = decode(path, height, resize=self.resize)
        if channels == 3:
            return colours
        grey = np.tensordot(np.array(LUMA), colours.astype(np.float64), axes=1)
        return np.rint(grey).astype(np.uint8)[None]


def config(network: str, images: Images, run: str) -> dict[str, Any]:
    """Make the `config.json` of an exported network; Hugging Face's tools look for names in `id2label`.

    Args:
        network: its name.
        images: its input.
        run: id of the run that trained it.
    """
    labels = {str(number): name for number, name in enumerate(images.classes)}
    return {"library": "sftn", "network": network, "run": run, "id2label": labels, "images": images.record()}


def softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Compute (N, K) probabilities from (N, K) logits."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
