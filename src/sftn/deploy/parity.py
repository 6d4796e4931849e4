"""Parity of an exported file with PyTorch: on real images, in batches of one and of seven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sftn.data.dataset import Split
from sftn.data.file_split import Files
from sftn.deploy.classifier import Classifier
from sftn.errors import InputError

BATCHES = (1, 7)
"""Tested batch sizes; 7 does not divide the numbers of images that people choose."""
TOLERANCE = 1e-3
"""Largest allowed difference of a logit, relative to the largest logit; float32 rounds to about 1e-6 per layer."""

Answer = Callable[[NDArray[np.uint8]], NDArray[np.floating[Any]]]
"""(B, C, H, W) pixels -> (B, K) logits or probabilities."""


@dataclass(frozen=True)
class Agreement:
    """How closely a file's results agree with PyTorch's."""

    images: int
    kind: str
    """Which images."""
    same: int
    """Number of images with the same most likely class, in batches of every size."""
    difference: float
    """Largest difference of a logit."""
    largest: float
    """Largest logit, as a scale for the difference."""

    @property
    def line(self) -> str:
        """The agreement as a sentence."""
        return (
            f"{self.same} of {self.images} {self.kind} get the same class as in PyTorch, in batches of "
            f"{' and '.join(map(str, BATCHES))}; logits differ by at most {self.difference:.1e}"
        )

    def record(self) -> dict[str, Any]:
        """The agreement as JSON values."""
        return asdict(self)


def some(split: Split | Files, count: int) -> NDArray[np.uint8]:
    """Take `count` images, evenly spaced over a split, because it may be sorted by class."""
    places = torch.linspace(0, len(split) - 1, min(count, len(split))).round().long()
    pixels: NDArray[np.uint8] = split.pick(places).sample(len(places)).images.numpy()
    return pixels


def noise(shape: tuple[int, int, int], count: int) -> NDArray[np.uint8]:
    """Make reproducible images of noise, for checks without real images."""
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def compare(classifier: Classifier, answer: Answer, pixels: NDArray[np.uint8], kind: str, what: str) -> Agreement:
    """Compare a file's logits with those of the network that it was exported from.

    Args:
        classifier: the network, on the CPU.
        answer: computes the file's logits.
        pixels: (N, C, H, W)
        kind: description of the images.
        what: the format, for the message.

    Raises:
        InputError: logits differ by more than rounding, or classes differ.
    """
    with torch.no_grad():
        expected = torch.cat([classifier(part) for part in Tensor.split(torch.from_numpy(pixels), 64)]).numpy()
    same, difference = np.ones(len(pixels), bool), 0.0
    for size in BATCHES:
        found = np.concatenate([answer(pixels[i : i + size]) for i in range(0, len(pixels), size)])
        difference = max(difference, float(np.abs(found - expected).max()))
        same &= found.argmax(axis=1) == expected.argmax(axis=1)
    largest = float(np.abs(expected).max())
    agreement = Agreement(len(pixels), kind, int(same.sum()), difference, largest)
    # Not `>`, which a NaN would pass.
    if not difference <= TOLERANCE * largest or not same.all():
        raise InputError(f"{classifier.name} as {what} differs from PyTorch, nothing was kept: {agreement.line}")
    return agreement
