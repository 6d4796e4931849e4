"""Building data sets from listed files: in memory or streamed, with damaged images refused or left out."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from contextlib import suppress
from pathlib import Path

import torch

from sftn.data.checks import check
from sftn.data.dataset import Dataset, Request, Split
from sftn.data.file_split import Files, Reader, decoded
from sftn.data.streaming import unreadable
from sftn.errors import InputError, printable
from sftn.storage.records import read_text

logger = logging.getLogger(__name__)

NAMED = 5
"""Number of damaged images that are reported one by one."""
_PAUSE = 30.0
"""Seconds between progress messages while all images are checked."""


def gather(
    name: str,
    reader: Reader,
    parts: tuple[list[tuple[int, int]], list[tuple[int, int]]],
    classes: tuple[str, ...],
    request: Request,
    size: int,
    *,
    streamed: bool | None = None,
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
) -> Dataset:
    """Make a data set from the images of a reader; `sftn.data.checks.check` warns of what is wrong with it.

    Images in memory are resized to `size` and, in training, randomly cropped after padding by an eighth of it. Streamed
    images are preprocessed as in section B.2: random crops in training; in evaluation the shorter side is resized to
    256/224 of `size` and the centre is cropped.

    Args:
        name: name of the data set.
        reader: reads the images.
        parts: (row, label) of each training image, and of each test image.
        classes: names of the classes.
        request: whether to stream, the memory limit, and what to do with damaged images.
        size: height and width.
        streamed: whether to stream if the request does not say; None to decide by the memory limit.
        statistics: mean and standard deviation of streamed images, if known.

    Raises:
        InputError: the size is below 1, an image is damaged and must not be, or a class has no good training image.
    """
    if size < 1:
        raise InputError(f"size {size}: give at least 1")
    count = len(parts[0]) + len(parts[1])
    stream = streamed if request.stream is None else request.stream
    if stream is None:
        stream = count * 3 * size * size > request.memory
        if stream:
            logger.warning(
                f"{count:,} images of {size}×{size} take {count * 3 * size * size / 2**30:.1f} GiB, more than "
                f"the {request.memory / 2**30:.1f} GiB of --memory: they are streamed, and cropped differently"
            )
    resize = round(size * 256 / 224) if stream else None
    files = [_files(reader, part, size, resize, request.workers) for part in parts]
    splits: list[Split] = []
    rows: list[torch.Tensor] = []
    messages: list[str] = []
    for own in files:
        split, bad = (own, _checked(own, request)) if stream else decoded(own)
        kept = torch.ones(len(own), dtype=torch.bool)
        kept[[i for i, _ in bad]] = False
        splits.append(split.pick(kept) if bad else split)
        rows.append(own.rows[kept])
        messages += [message for _, message in bad]
    _judge(messages, request)
    for split in splits:
        if not len(split):
            raise InputError(f"{name}: every image of a split is damaged: check that the files are images")
    if messages and int(splits[0].labels.bincount(minlength=len(classes)).min()) == 0:
        empty = classes[int(splits[0].labels.bincount(minlength=len(classes)).argmin())]
        raise InputError(f"{name}: all training images of {empty} are damaged: repair some or remove the class")
    images = torch.cat(rows)
    check(name, splits[0], splits[1], classes, lambda i: reader.name(int(images[i])))
    return Dataset(
        name,
        splits[0],
        splits[1],
        classes,
        padding=0 if stream else size // 8,
        resize=resize,
        statistics=statistics if stream else None,
        skipped=len(messages),
    )


def _files(reader: Reader, part: list[tuple[int, int]], size: int, resize: int | None, workers: int) -> Files:
    both = torch.tensor(part, dtype=torch.int64).view(-1, 2)
    return Files(reader, both[:, 0].contiguous(), both[:, 1].contiguous(), size, resize, workers)


def _judge(messages: list[str], request: Request) -> None:
    """Refuse damaged images, or report those that are left out."""
    if not messages:
        return
    if request.damaged == "refuse":
        more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
        raise InputError(f"{messages[0]}{more}, or, in training, leave it out with --damaged skip")
    for message in messages[:NAMED]:
        logger.warning(f"left out: {message}")
    logger.warning(f"{len(messages)} damaged image{'s' * (len(messages) > 1)} left out")


def _checked(files: Files, request: Request) -> list[tuple[int, str]]:
    """Find damaged images to leave out of a streamed data set, by decoding every image once.

    The result is kept in the user's cache and reused for the same files at the same place.
    """
    if request.damaged == "refuse":
        return []
    memory = _remembered(files)
    known = recalled(memory, len(files))
    if known is not None:
        return known
    bad: list[tuple[int, str]] = []
    last = time.monotonic()
    for done, more in unreadable(files):
        bad += more
        if time.monotonic() - last > _PAUSE:
            last = time.monotonic()
            logger.info(f"checking for damaged images: {done:,} of {len(files):,}")
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        partial = memory.with_name(f".{memory.name}.{os.getpid()}")
        partial.write_text(json.dumps(bad), encoding="utf-8")
        os.replace(partial, memory)
    return bad


def recalled(path: Path, count: int) -> list[tuple[int, str]] | None:
    """Read the cached (index, message) of damaged ones among `count` images; None if the file is missing or invalid."""
    with suppress(TypeError, ValueError, AttributeError, RecursionError):
        found = [(i, printable(message)) for i, message in json.loads(read_text(path))]
        return found if all(type(i) is int and 0 <= i < count for i, _ in found) else None
    return None


def _remembered(files: Files) -> Path:
    digest = hashlib.sha256(files.reader.stamp.encode("utf-8", "surrogateescape"))
    for part in files.hashed():
        digest.update(part)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "sftn" / f"damaged-{digest.hexdigest()[:24]}.json"
