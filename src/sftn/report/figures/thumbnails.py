"""Thumbnails: images of a data set as small PNGs, and sheets of several."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sftn.storage.atomic import write_atomically

LARGEST = 128
"""Pixels of a thumbnail's longer side; smaller images are kept as they are."""
SMALL = 64
"""Images up to this size in pixels are enlarged with visible pixels."""
_TILE, _GAP, _ACROSS = 96, 6, 6


def thumbnail(pixels: Tensor) -> Image.Image:
    """Convert (C, H, W) uint8 pixels, grey or colour, to an image of at most `LARGEST` pixels per side."""
    shown = pixels if len(pixels) == 3 else pixels[:1].expand(3, -1, -1)
    image = Image.fromarray(shown.to("cpu", torch.uint8).permute(1, 2, 0).contiguous().numpy())
    image.thumbnail((LARGEST, LARGEST))
    return image


def png(image: Image.Image) -> bytes:
    """An image as the bytes of a PNG file."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def sheet(images: Sequence[Image.Image], path: Path) -> Path:
    """Write images in rows of six to a PNG file.

    Raises:
        InputError: the folder cannot be written.
    """
    step = _TILE + _GAP
    rows = -(-len(images) // _ACROSS)
    canvas = Image.new("RGB", (min(len(images), _ACROSS) * step - _GAP, rows * step - _GAP), "white")
    for number, image in enumerate(images):
        row, column = divmod(number, _ACROSS)
        scale = _TILE / max(image.size)
        how = Image.Resampling.NEAREST if max(image.size) <= SMALL else Image.Resampling.BICUBIC
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        canvas.paste(image.resize(size, how), (column * step, row * step))
    write_atomically(path, png(canvas))
    return path
