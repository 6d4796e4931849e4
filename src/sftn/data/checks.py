"""Checks before anything is trained: images that are there twice, and classes with few training or no test images."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from sftn.data.dataset import Split
from sftn.data.file_split import Files

logger = logging.getLogger(__name__)

FEW = 10
"""A class with fewer training images is named."""
SECONDS = 2.0
"""How long streamed files are read for the comparison of their contents."""
NEAR = 0.15
"""Two images nearly agree if their pixels differ, on average, by less than this share of the first one's contrast: the
mean absolute deviation of its pixels from their channel's mean. Of the pairs found in CIFAR-100, all 40 that were seen
show the same photograph; of its JPEGs of quality 95, 96 of 100 are found. Flat images nearly agree with none."""
_SIDE, _BITS, _TABLES = 8, 40, 6
"""Nearly equal images are sought among those whose thumbnails lie on the same side of `_BITS` random planes; `_TABLES`
times."""
_CHUNK = 1024
_ENOUGH = 32
"""Pixels per side that are looked at for it; of larger images, evenly spaced ones."""
_SHOWN = 5
_Labels = NDArray[np.int64]


def check(name: str, train: Split, test: Split, classes: Sequence[str], names: Callable[[int], str] = str) -> None:
    """Log a warning for what makes a test accuracy wrong, or leaves a class without one; nothing is changed.

    Images in memory are compared by their pixels, after any resizing: all equal ones are found, and most of those that
    are nearly equal, such as the same photograph compressed twice. Streamed images are not decoded for it: files of one
    length are compared by their content, as many as can be read in `SECONDS`.

    Args:
        name: name of the data set.
        train: the training images.
        test: the test images.
        classes: names of the classes.
        names: name of the i-th image, training images first.
    """
    _classes(name, train, test, classes)
    labels = torch.cat([train.labels, test.labels]).numpy()
    if isinstance(train, Files) and isinstance(test, Files):
        same = _equal_files(name, (train, test), labels)
        near = np.empty((0, 2), np.int64)
    else:
        same = _equal_images((train.images, test.images))
        near = nearly_equal((train.images, test.images))
    _across_splits(name, same, near, labels, len(train))
    _across_labels(name, same, near, labels, names)


def _classes(name: str, train: Split, test: Split, classes: Sequence[str]) -> None:
    """Name classes with few training images, and those without test images."""
    counts, tested = (split.labels.bincount(minlength=len(classes)).tolist() for split in (train, test))
    few = [f"{own} {count}" for own, count in zip(classes, counts) if count < FEW]
    if few:
        logger.warning(f"{name}: few training images: {_some(few)}")
    lacking = [own for own, count in zip(classes, tested) if not count]
    if lacking:
        logger.warning(f"{name}: no test images of {_some(lacking)}: the accuracy says nothing about them")


def _across_splits(name: str, same: _Labels, near: _Labels, labels: _Labels, trained: int) -> None:
    """Count test images that are training images too."""
    test, train = same[trained:], same[:trained]
    twice = np.isin(test, train)
    classes = int(labels.max(initial=0)) + 1
    alike = np.isin(test * classes + labels[trained:], train * classes + labels[:trained])
    crossing = near[(near < trained).sum(1) == 1].max(axis=1) - trained
    nearly = int((~twice[np.unique(crossing)]).sum())
    if not twice.any() and not nearly:
        return
    parts = []
    if count := int(twice.sum()):
        other = count - int(alike.sum())
        both = f"{count - other:,} of the same class, {other:,} under another label"
        kinds = both if 0 < other < count else "under another label" if other else "of the same class"
        parts.append(f"{count:,} of {len(test):,} test images are also training images ({kinds})")
    if nearly:
        are = "are" if nearly > 1 else "is"
        more = f"{nearly:,} more {are}" if parts else f"{nearly:,} of {len(test):,} test images {are}"
        parts.append(f"{more} nearly equal to one")
    logger.warning(f"{name}: {', '.join(parts)}: the accuracy will be too high; keep each in one of the two")


def _across_labels(name: str, same: _Labels, near: _Labels, labels: _Labels, names: Callable[[int], str]) -> None:
    """Count images that are there under several labels, and name two."""
    order = np.lexsort((labels, same))
    between = (same[order][1:] == same[order][:-1]) & (labels[order][1:] != labels[order][:-1])
    ends = np.flatnonzero(between)
    near = near[labels[near[:, 0]] != labels[near[:, 1]]]
    for count, pairs, words in (
        (len(np.unique(same[order][ends])), np.stack([order[ends], order[ends + 1]], axis=1), "under two labels"),
        (len(np.unique(near[:, 0])), near, "nearly the same under two labels"),
    ):
        if count:
            first, second = (names(int(i)) for i in sorted(pairs[0]))
            these = f"{count:,} images are" if count > 1 else "1 image is"
            logger.warning(f"{name}: {these} there {words}, such as {first} and {second}: correct the labels")


def _equal_images(splits: Sequence[Tensor]) -> _Labels:
    """(N,) number for each image: equal for images of equal pixels."""
    pixels = (row for images in splits for row in images.contiguous().flatten(1).numpy())
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(hashlib.sha256(row.data).digest(), i) for i, row in enumerate(pixels)], np.int64)


def _equal_files(name: str, splits: Sequence[Files], labels: _Labels) -> _Labels:
    """(N,) number for each image: equal for files of equal content, as far as they were read."""
    count = len(labels)
    sizes = np.concatenate([split.reader.sizes[split.rows.numpy()] for split in splits])
    kinds = labels * 2 + (np.arange(count) >= len(splits[0]))
    order = np.argsort(sizes, kind="stable")
    ends = [*np.flatnonzero(np.diff(sizes[order])) + 1, count]
    same, until, start = np.arange(count), time.monotonic() + SECONDS, 0
    for end in ends:
        group, start = order[start:end], end
        if len(group) < 2 or len(set(kinds[group].tolist())) < 2:
            continue
        if time.monotonic() > until:
            logger.info(f"{name}: {count - end + len(group):,} of {count:,} files were not searched for equal ones")
            break
        first: dict[bytes, int] = {}
        for i in group.tolist():
            split, row = (splits[0], i) if i < len(splits[0]) else (splits[1], i - len(splits[0]))
            if content := _content(split, row):
                same[i] = first.setdefault(content, i)
    return same


def _content(split: Files, i: int) -> bytes:
    """Digest of an image file; nothing if it cannot be read, which is said when it is needed."""
    path, content = split.reader.open(int(split.rows[i]))
    try:
        return hashlib.sha256(content.read() if content else path.read_bytes()).digest()
    except OSError:
        return b""


def nearly_equal(splits: Sequence[Tensor]) -> _Labels:
    """Find pairs of images that are nearly equal, but not quite.

    Args:
        splits: (N, C, H, W) uint8 each, counted on from one to the next.

    Returns:
        (P, 2) indices, the smaller one first.
    """
    planes = torch.from_numpy(np.random.default_rng(0).standard_normal((_SIDE**2, _BITS * _TABLES), np.float32))
    places = 2 ** torch.arange(_BITS)
    step = max(1, min(splits[0].shape[2:]) // _ENOUGH)
    splits = [images[:, :, ::step, ::step] for images in splits]
    parts = [part for images in splits for part in images.split(_CHUNK)]
    codes = []
    for part in parts:
        thumbnails = adaptive_avg_pool2d(part.float().mean(1), _SIDE).flatten(1)
        sides = (thumbnails - thumbnails.mean(1, keepdim=True)) @ planes > 0
        codes.append((sides.view(-1, _TABLES, _BITS) * places).sum(2))
    found: set[tuple[int, int]] = set()
    for table in torch.cat(codes).unbind(1):
        ordered, order = table.sort(stable=True)
        first = (ordered[1:] == ordered[:-1]).nonzero().flatten()
        pairs = torch.stack([order[first], order[first + 1]], 1)
        found.update(map(tuple, pairs.tolist()))
    candidates = torch.tensor(sorted(found), dtype=torch.int64).view(-1, 2)
    kept = [pairs[_agree(splits, pairs)] for pairs in candidates.split(_CHUNK)]
    return torch.cat([*kept, candidates[:0]]).numpy()


def _agree(splits: Sequence[Tensor], pairs: Tensor) -> Tensor:
    """(P,) bool: whether two images differ, by less than `NEAR` of the first one's contrast."""

    def pixels(which: Tensor) -> Tensor:
        early = which < len(splits[0])
        taken = splits[0].new_empty(len(which), *splits[0].shape[1:])
        taken[early], taken[~early] = splits[0][which[early]], splits[1][which[~early] - len(splits[0])]
        return taken.flatten(2).float()

    first, second = pixels(pairs[:, 0]), pixels(pairs[:, 1])
    difference = (first - second).abs().mean((1, 2))
    contrast = (first - first.mean(2, keepdim=True)).abs().mean((1, 2))
    return (difference > 0) & (difference < NEAR * contrast)


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - _SHOWN
    return ", ".join(texts[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
