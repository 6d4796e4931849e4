"""Your own images, one folder per class."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sftn.data.dataset import MEMORY, Dataset, Request, held_out
from sftn.data.file_split import Names
from sftn.data.sources.from_files import gather
from sftn.data.sources.layout import Layout, Listing, laid_out
from sftn.data.splits import TRAIN, understood
from sftn.errors import InputError

logger = logging.getLogger(__name__)

SIZE = 32
LARGEST = MEMORY
"""Limit in bytes on the decoded pixels of a source that cannot be streamed."""


def load(request: Request) -> Dataset:
    """The images of a folder, 3×size×size, size 32 by default.

    The folder holds one folder per class, or a folder for each split that does, by any of the names that
    `sftn.data.splits` knows; `sftn.data.sources.layout` tells them apart. Without a test split, the validation split is
    tested on. Without either, a fifth of each class, at least one image, is held out for testing: those whose path
    within the folder has the smallest hash, so that the split is the same everywhere. Classes are sorted by name, and
    so are the images of a class, at any depth. What was understood and what is left out is logged.

    Images whose pixels exceed the memory limit are streamed, see `sftn.data.sources.from_files.gather`.

    Raises:
        InputError: the folder or its images are missing, its layout can be meant in several ways, there is only one
            class, a class has no image (or only one where it must be split) or no training images, or an image is
            unreadable or too large.
    """
    given = _root(request)
    layout = laid_out(given)
    train, root = layout.parts[TRAIN], layout.root
    if len(train) < 2:
        raise InputError(f"{given} has images of {len(train)} class: give at least 2 folders, one per class")
    tested = layout.tested
    parts = (train, layout.parts[tested]) if tested else parted(train, str(root))
    name = f"folder:{request.path}"
    say(name if root == given else f"{name} (all in {root.relative_to(given)})", layout, parts)
    return of_paths(name, root, parts, request, SIZE if request.size is None else request.size)


def say(name: str, layout: Layout, parts: tuple[Listing, Listing]) -> None:
    """Log what was understood of a folder, and what is left out.

    Args:
        name: name of the data set.
        layout: what was found.
        parts: the images that are trained on, and those that are tested on.
    """
    found = {part: count(own) for part, own in layout.parts.items()}
    logger.info(understood(name, found, (count(parts[0]), count(parts[1])), layout.tested, tuple(parts[0])))
    layout.left.log(name)
    for line in layout.warnings:
        logger.warning(line)


def count(listing: Listing) -> int:
    """Number of images in a listing."""
    return sum(map(len, listing.values()))


def of_paths(
    name: str,
    root: Path,
    parts: tuple[Listing, Listing],
    request: Request,
    size: int,
    *,
    streamed: bool | None = None,
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
) -> Dataset:
    """Make a data set of listed training and test files below a folder. See `gather`."""
    classes = tuple(parts[0])
    paths = [path for part in parts for own in part.values() for path in own]
    rows = iter(range(len(paths)))
    labels = {own: label for label, own in enumerate(classes)}
    train, test = ([(next(rows), labels[own]) for own, inside in part.items() for _ in inside] for part in parts)
    return gather(
        name,
        Paths.of(root, paths),
        (train, test),
        classes,
        request,
        size,
        streamed=streamed,
        statistics=statistics,
    )


@dataclass(frozen=True)
class Paths:
    """Reads image files below a folder."""

    root: Path
    names: Names
    sizes: NDArray[np.int64]
    stamp: str

    @staticmethod
    def of(root: Path, names: list[str]) -> Paths:
        """Stat each file."""
        sizes, newest = np.empty(len(names), np.int64), 0
        for i, name in enumerate(names):
            try:
                seen = os.stat(root / name)
            except OSError as error:
                raise InputError(f"{root / name} cannot be read ({error.strerror}): repair or remove it") from error
            sizes[i], newest = seen.st_size, max(newest, seen.st_mtime_ns)
        return Paths(root, Names(names), sizes, f"{root.resolve()} {newest}")

    def name(self, row: int) -> str:
        """Path of an image within the folder."""
        return self.names[row]

    def open(self, row: int) -> tuple[Path, None]:
        """Its path."""
        return self.root / self.names[row], None


def check_memory(place: Path, count: int, size: int) -> None:
    """Check that `count` images of 3×size×size fit into memory, for sources that cannot be streamed.

    Raises:
        InputError: the size is below 1, or the images exceed `LARGEST`.
    """
    if size < 1:
        raise InputError(f"size {size}: give at least 1")
    if count * 3 * size * size > LARGEST:
        raise InputError(
            f"{place}: {count} images of {size}×{size} take more than {LARGEST >> 30} GiB of memory: "
            "choose a smaller size or fewer images"
        )


def _root(request: Request) -> Path:
    if not request.path:
        raise InputError("the data set folder needs a path: folder:PATH, which contains one folder per class")
    path = Path(request.path).expanduser()
    # A relative path may be relative to data_dir; an absolute one stays as it is.
    places = dict.fromkeys([path] if request.data_dir is None else [path, request.data_dir.expanduser() / path])
    for place in places:
        if place.is_dir():
            return place
    found = next((place for place in places if place.exists()), None)
    if found is not None:
        raise InputError(f"{found} is a file, not a folder: give a folder with a folder of images for each class")
    raise InputError(f"{' or '.join(map(str, places))} is not a folder: give one with a folder for each class")


def parted(files: Listing, where: str) -> tuple[Listing, Listing]:
    """Split each class: four fifths for training, the rest for testing.

    Raises:
        InputError: a class has only one image.
    """
    train, test = {}, {}
    for name, own in files.items():
        if len(own) < 2:
            raise InputError(f"{where}/{name} has one image: add another, so that one can be kept for testing")
        chosen = held_out(own, max(1, round(len(own) / 5)))
        train[name] = [path for i, path in enumerate(own) if i not in chosen]
        test[name] = [path for i, path in enumerate(own) if i in chosen]
    return train, test
