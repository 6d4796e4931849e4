"""The device-resident loader: uint8 images stay on the device, whole batches are augmented there."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """What every step is given."""

    images: Tensor
    """(B·copies, C, H, W) float32, normalised; the copies of an image stand side by side."""
    labels: Tensor
    """(B,) int64"""
    index: Tensor
    """(B,) int64: which training images these are."""
