"""Sources of images by name: `load("digits")`, `load("folder:pets", size=64)`.

A new source is a function that takes a `Request`, and one line in `SOURCES`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Literal, TypeAlias

import torch

from sftn.data.dataset import MEMORY, Dataset, Request
from sftn.data.file_split import WORKERS
from sftn.data.names import WITH_PATH, unknown_data
from sftn.errors import InputError

Source: TypeAlias = Callable[[Request], Dataset]
"""The first line of its docstring describes the data set."""

SOURCES: dict[str, str | Source] = {
    "cifar10": "cifar:cifar10",
    "cifar100": "cifar:cifar100",
    "digits": "digits:load",
    "folder": "folder:load",
    "hf": "hugging_face:load",
    "imagenet": "imagenet:load",
    "stl10": "stl10:load",
    "tiny-imagenet": "tiny_imagenet:load",
}
"""Each source, or its place in `sftn.data.sources`, which is imported on first use."""
_FILES = {"folder", "hf", "imagenet", "tiny-imagenet"}
"""Sources of image files, which can be streamed and may contain damaged images."""


def source(name: str) -> Source:
    """Return the source that a key of `SOURCES` names."""
    found = SOURCES[name]
    if isinstance(found, str):
        module, _, function = found.partition(":")
        imported: Source = getattr(import_module(f"sftn.data.sources.{module}"), function)
        return imported
    return found


def located(name: str, data_dir: Path | None = None) -> tuple[str, str | None]:
    """The short name of a data set, however its path is spelled, and the absolute path of its folder.

    `folder:photos`, `folder:./photos/` and `folder:/data/photos` are all called folder:photos. The path is None for a
    name that is no folder.

    Args:
        name: as `load` takes it.
        data_dir: as `load` takes it.
    """
    key, _, path = name.partition(":")
    if key in WITH_PATH and path:
        inside = Path(path).expanduser()
        for place in [inside] if data_dir is None else [inside, data_dir.expanduser() / inside]:
            if place.is_dir():
                whole = os.path.abspath(place)
                return f"{key}:{os.path.basename(whole)}", whole
    return name, None


def load(
    name: str,
    *,
    data_dir: Path | None = None,
    limit: int | None = None,
    classes: int | None = None,
    size: int | None = None,
    download: bool = False,
    stream: bool | None = None,
    memory: float = MEMORY / 2**30,
    damaged: Literal["refuse", "skip"] = "refuse",
    workers: int = WORKERS,
) -> Dataset:
    """Load a data set by name, or a part of it.

    Args:
        name: a key of `SOURCES`; `folder:PATH` for your own images, `hf:NAME` for a data set of the Hugging Face Hub.
        data_dir: folder that is searched first for files.
        limit: number of training images to keep, as balanced over the classes as their sizes allow: the first images
            of each class, in the order of the source. The test split stays whole.
        classes: number of classes to keep in both splits, the first ones.
        size: height and width of images that come as files, and of STL-10.
        download: whether missing files may be downloaded.
        stream: read images on demand, with random crops in training; False keeps them in memory, however many there
            are; None decides by `memory`.
        memory: limit on decoded pixels in memory, in GiB.
        damaged: whether an image that cannot be decoded is an error or is left out; to leave out damaged images of a
            streamed data set, all of its images are read once.
        workers: processes that read streamed images; 0 to read in this process. Affects speed only.

    Raises:
        InputError: the name is unknown, files are missing or wrong, or the part does not exist.
    """
    key, colon, path = name.partition(":")
    if key not in SOURCES:
        raise unknown_data(name, SOURCES)
    if colon and key not in WITH_PATH:
        raise InputError(f"the data set {key} takes nothing after its name: leave out {colon + path}")
    if key not in _FILES and stream:
        raise InputError(f"{key} fits into memory: leave out --stream")
    if memory < 0 or workers < 0:
        raise InputError(f"memory {memory:g}, workers {workers}: neither may be negative")
    request = Request(path, data_dir, size, download, stream, memory * 2**30, damaged, workers)
    dataset = source(key)(request)
    if key in WITH_PATH:
        dataset = replace(dataset, name=located(name, data_dir)[0], named=True)
    if classes is not None:
        dataset = _first_classes(dataset, classes)
    if limit is not None:
        dataset = _limited(dataset, limit)
    if not len(dataset.test):
        raise InputError(f"{name} has no test images of its first {len(dataset.classes)} classes: use more classes")
    return dataset


def _first_classes(dataset: Dataset, classes: int) -> Dataset:
    if not 2 <= classes <= len(dataset.classes):
        raise InputError(f"classes {classes}: {dataset.name} allows 2 to {len(dataset.classes)}")
    train, test = (split.pick(split.labels < classes) for split in (dataset.train, dataset.test))
    return replace(dataset, train=train, test=test, classes=dataset.classes[:classes])


def _limited(dataset: Dataset, limit: int) -> Dataset:
    labels, classes = dataset.train.labels, len(dataset.classes)
    if not classes <= limit <= len(labels):
        raise InputError(f"limit {limit}: {dataset.name} allows {classes} (one image per class) to {len(labels)}")
    # By rank within the class: the first images of all classes, then the second ones, …; ties keep the source's order.
    grouped = labels.argsort(stable=True)
    counts = labels.bincount(minlength=classes)
    rank = torch.empty_like(labels)
    rank[grouped] = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[grouped]]
    kept = rank.argsort(stable=True)[:limit].sort().values
    return replace(dataset, train=dataset.train.pick(kept))
