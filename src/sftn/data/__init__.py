"""Sources of images by name, and the loader that feeds them: `load("digits")`, `load("folder:pets", size=64)`.

A new source is a file with a function of a `Request`, and a line in `SOURCES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from sftn.data import cifar, digits, folder, stl10, tiny_imagenet
from sftn.data.dataset import Dataset, Request, Split, fingerprint
from sftn.data.loader import Batch, Loader, plain
from sftn.errors import InputError, unknown

__all__ = ["SOURCES", "Batch", "Dataset", "Loader", "Request", "Split", "fingerprint", "load", "plain"]

SOURCES: dict[str, Callable[[Request], Dataset]] = {
    "cifar10": cifar.cifar10,
    "cifar100": cifar.cifar100,
    "digits": digits.load,
    "folder": folder.load,
    "stl10": stl10.load,
    "tiny-imagenet": tiny_imagenet.load,
}
"""The first line of each function's docstring says what it gives."""
_WITH_PATH = {"folder"}


def load(
    name: str,
    *,
    data_dir: Path | None = None,
    limit: int | None = None,
    classes: int | None = None,
    size: int | None = None,
    download: bool = False,
) -> Dataset:
    """A data set by name, whole or a part of it.

    Args:
        name: a key of `SOURCES`; `folder:PATH` for one's own images.
        data_dir: where files are looked for first.
        limit: keep that many training images, as evenly from the classes as their numbers allow, the first ones of each
            in the order of the source, which stays. The test split stays whole.
        classes: keep only the first so many classes of both splits.
        size: height and width of the images of a folder, of STL-10 or of Tiny-ImageNet.
        download: whether missing files may be fetched.

    Raises:
        InputError: unknown name, missing or wrong files, or a part that cannot be had.
    """
    key, colon, path = name.partition(":")
    if key not in SOURCES:
        raise unknown("data set", key, [f"{known}:PATH" if known in _WITH_PATH else known for known in SOURCES])
    if colon and key not in _WITH_PATH:
        raise InputError(f"the data set {key} takes nothing after its name: leave {colon + path} out")
    dataset = SOURCES[key](Request(path, data_dir, size, download))
    if classes is not None:
        dataset = _first_classes(dataset, classes)
    if limit is not None:
        dataset = _limited(dataset, limit)
    if not len(dataset.test):
        raise InputError(f"{name} has no test images of its first {len(dataset.classes)} classes: take more classes")
    return dataset


def _first_classes(dataset: Dataset, classes: int) -> Dataset:
    if not 2 <= classes <= len(dataset.classes):
        raise InputError(f"classes {classes}: {dataset.name} allows 2 to {len(dataset.classes)}")
    kept = [
        Split(split.images[split.labels < classes], split.labels[split.labels < classes])
        for split in (dataset.train, dataset.test)
    ]
    return replace(dataset, train=kept[0], test=kept[1], classes=dataset.classes[:classes])


def _limited(dataset: Dataset, limit: int) -> Dataset:
    labels, classes = dataset.train.labels, len(dataset.classes)
    if not classes <= limit <= len(labels):
        raise InputError(f"limit {limit}: {dataset.name} allows {classes} (one image a class) to {len(labels)}")
    # By rank within the class: the first images of all classes, then the second ones, …; ties in the source's order.
    grouped = labels.argsort(stable=True)
    counts = labels.bincount(minlength=classes)
    rank = torch.empty_like(labels)
    rank[grouped] = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[grouped]]
    kept = rank.argsort(stable=True)[:limit].sort().values
    return replace(dataset, train=Split(dataset.train.images[kept], labels[kept]))
