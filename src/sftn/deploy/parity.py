"""Whether an exported file answers as PyTorch does: on real images, one at a time and seven at a time."""

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
"""Sizes of the batches that are tried; one of them divides no number of images that people choose."""
TOLERANCE = 1e-3
"""Of a logit's difference, over the largest logit; float32 rounds to about 1e-6 of it in each layer."""

Answer = Callable[[NDArray[np.uint8]], NDArray[np.floating[Any]]]
"""(B, C, H, W) pixels -> (B, K) logits or probabilities."""


@dataclass(frozen=True)
class Agreement:
    """How near a file's answers are to PyTorch's."""

    images: int
    kind: str
    """Which images."""
    same: int
    """Images whose most likely class is the same, in batches of every size."""
    difference: float
    """The largest of a logit's."""
    largest: float
    """The largest logit, as a measure for the difference."""

    @property
    def line(self) -> str:
        """For a person."""
        return (
            f"{self.same} of {self.images} {self.kind} get the class that PyTorch gives, in batches of "
            f"{' and '.join(map(str, BATCHES))}; logits differ by at most {self.difference:.1e}"
        )

    def record(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)


def some(split: Split | Files, count: int) -> NDArray[np.uint8]:
    """So many images of a split, spread evenly over it: classes may stand one after the other."""
    places = torch.linspace(0, len(split) - 1, min(count, len(split))).round().long()
    pixels: NDArray[np.uint8] = split.pick(places).sample(len(places)).images.numpy()
    return pixels


def noise(shape: tuple[int, int, int], count: int) -> NDArray[np.uint8]:
    """Images to check with where there are no others; the same ones each time."""
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def compare(classifier: Classifier, answer: Answer, pixels: NDArray[np.uint8], kind: str, what: str) -> Agreement:
    """How a file's logits compare with those of the network that it was made of.

    Args:
        classifier: the network, on the CPU.
        answer: what the file answers.
        pixels: (N, C, H, W)
        kind: which images these are.
        what: the format, for the message.

    Raises:
        InputError: they differ by more than rounding, or in a class.
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
    # Not `>`: a NaN must not pass.
    if not difference <= TOLERANCE * largest or not same.all():
        raise InputError(
            f"{classifier.name} as {what} is not what PyTorch computes, nothing was kept: {agreement.line}"
        )
    return agreement
