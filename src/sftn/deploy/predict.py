"""Classification of image files by a run, a file of weights or an ONNX file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sftn.data.image_files import LeftOut, below
from sftn.deploy.classifier import Classifier
from sftn.deploy.preprocessing import Images
from sftn.errors import InputError

BATCH, PIXELS = 32, 2**22
"""Largest number of images per batch, and of their pixels, unless a single image has more."""


@dataclass(frozen=True)
class Answer:
    """A network's prediction for an image."""

    path: Path
    classes: tuple[tuple[str, float], ...]
    """Names and probabilities, most likely first."""


@dataclass(frozen=True)
class Model:
    """A network in any format, ready to predict."""

    images: Images
    probabilities: Callable[[NDArray[np.uint8]], NDArray[np.floating[Any]]]
    """(B, C, H, W) pixels -> (B, K)"""


def opened(path: Path) -> Model:
    """Load a model from its file.

    Args:
        path: `.onnx`, or `.safetensors` as written by `sftn export`; or a folder that it exported into.

    Raises:
        InputError: the file is missing, damaged, of another kind, or does not record what images it takes.
    """
    if path.suffix == ".onnx":
        from sftn.deploy.onnx_file import Session

        if not path.is_file():
            raise InputError(f"no ONNX file at {path}")
        session = Session(path)
        return Model(session.images, session.probabilities)
    if path.suffix != ".safetensors":
        raise InputError(f"{path} is neither a run's folder nor a .onnx or .safetensors file that sftn export wrote")
    return of_classifier(Classifier.load(path))


def of_classifier(classifier: Classifier) -> Model:
    """Make a model of a PyTorch classifier, on its current device."""

    @torch.no_grad()
    def probabilities(pixels: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        logits = classifier(torch.from_numpy(pixels).to(classifier.mean.device))
        found: NDArray[np.floating[Any]] = logits.float().softmax(dim=1).cpu().numpy()
        return found

    return Model(classifier.images, probabilities)


def predict(
    model: Model, paths: Iterable[Path], *, top: int = 5, bad: Callable[[InputError], None] | None = None
) -> Iterator[Answer]:
    """Predict the classes of image files, in order.

    Args:
        model: from `opened` or `of_classifier`.
        paths: the image files.
        top: number of classes to return per image.
        bad: called with the error of a file that cannot be read, which is then skipped; None to raise it instead.

    Raises:
        InputError: a file cannot be read, or `top` is not positive.
    """
    if top < 1:
        raise InputError(f"--top {top}: give at least 1")
    read: list[tuple[Path, NDArray[np.uint8]]] = []
    most = min(BATCH, max(1, PIXELS // math.prod(model.images.shape[1:])))
    for path in paths:
        try:
            read.append((path, model.images.pixels(path)))
        except InputError as error:
            if bad is None:
                raise
            bad(error)
        if len(read) == most:
            yield from _answers(model, read, top)
            read = []
    if read:
        yield from _answers(model, read, top)


def files(places: Sequence[Path]) -> Iterator[Path]:
    """List image files; a folder stands for all image files in and below it, sorted by name.

    What a folder has beside them is logged.

    Raises:
        InputError: a folder has no images, or cannot be read.
    """
    for place in places:
        if not place.is_dir():
            yield place
            continue
        left = LeftOut()
        found = below(place, "", left)
        if not found:
            raise InputError(f"{place} has no images{left.hint()}")
        left.log(str(place))
        yield from (place / path for path in found)


def _answers(model: Model, read: Sequence[tuple[Path, NDArray[np.uint8]]], top: int) -> Iterator[Answer]:
    probabilities = model.probabilities(np.stack([pixels for _, pixels in read]))
    for (path, _), row in zip(read, probabilities):
        best = np.argsort(-row, kind="stable")[:top]
        yield Answer(path, tuple((model.images.classes[place], float(row[place])) for place in best))
