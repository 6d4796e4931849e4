"""Image decoding, all in one place: a file becomes a square of uint8 pixels, or an error that names the file.

Unambiguous formats are converted: grey, palette and CMYK become RGB, 16-bit grey is scaled to 8 bits (65535 becomes
255), and a rotated photograph is turned upright by its EXIF orientation. The first image of an animation or multi-page
file is read. An alpha channel is dropped, as in Pillow: the colours stored under it stay. Images with floating-point or
32-bit pixels, truncated images, and images with more pixels than Pillow considers safe are refused.
"""

from __future__ import annotations

import errno
import math
import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sftn.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

_FORMATS = "JPEG PNG BMP WEBP GIF TIFF PPM JPEG2000 AVIF QOI PSD ICO ICNS DDS PCX SGI SUN DIB MSP XBM XPM TGA"
FORMATS = tuple(_FORMATS.split())
"""Pillow's formats of pictures. Left out are those that run another program (EPS), exist on Windows only (WMF), or hold
measurements or films; TGA, which has no signature, is tried last."""
_NOT_PICTURES = (".pfm",)
"""Suffixes of these formats for pixels that are refused anyway: depth and flow, which lie beside pictures."""
AREA, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10
"""A random crop's share of the image area, its width over its height (section B.2), and the number of draws."""

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge in pixels."""

_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)
_SIXTEEN_BITS = ("PNG", "PPM")
"""Formats in which pixels of mode I are 16 bits deep."""
LARGE = 2**23
"""Images with at least this many pixels are decoded one at a time: the largest take 0.7 GB each."""
_filters, _alone = threading.Lock(), threading.Lock()


class Damaged(InputError):
    """An image that cannot or must not be decoded; `--damaged skip` leaves it out."""


@cache
def formats() -> tuple[str, ...]:
    """Those of `FORMATS` that the installed Pillow reads."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def suffixes() -> frozenset[str]:
    """Suffixes of the files that `decode` reads, such as .jpg, as the installed Pillow registers them."""
    from PIL import Image

    known = {suffix for suffix, name in Image.registered_extensions().items() if name in formats()}
    return frozenset(known.difference(_NOT_PICTURES))


def decode(path: Path, size: int, content: BinaryIO | None = None, *, resize: int | None = None) -> NDArray[np.uint8]:
    """Decode the centre of an image as (3, size, size), after resizing its shorter side (antialiased bilinear).

    Args:
        path: the file; also its name in messages.
        size: height and width.
        content: the file's content, if it does not come from `path`.
        resize: length of the shorter side before the centre crop; None for `size`.

    Raises:
        Damaged: it is not an image, is truncated, or has an unsupported pixel type or an unsafe number of pixels.
        InputError: the file cannot be opened.
    """
    return centre(path, size, content, resize=resize).transpose(2, 0, 1)


def centre(path: Path, size: int, content: BinaryIO | None = None, *, resize: int | None = None) -> NDArray[np.uint8]:
    """Like `decode`, but (size, size, 3), the layout in which decoders return pixels."""

    def middle(width: int, height: int) -> Box:
        side = min(width, height) if resize is None else min(width, height) * size / resize
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    # A JPEG is decoded at a fraction of its size while that stays at least twice what is needed.
    return np.asarray(_cut(path, size, content, middle, spare=2))


def crop(
    path: Path, size: int, uniform: Callable[[], float], content: BinaryIO | None = None, *, draft: bool = True
) -> NDArray[np.uint8]:
    """Crop a random part of the image, within `AREA` and `RATIO`, and resize it to (size, size, 3).

    As in torchvision's RandomResizedCrop, the area is uniform and the ratio log-uniform; a crop that does not fit is
    redrawn up to `TRIES` times, then the largest central crop of an allowed ratio is taken. Section B.2 calls the ratio
    relative to the image's own, as torchvision's documentation does; torchvision's code uses the ratio itself, and so
    does this.

    Args:
        path: the file; also its name in messages.
        size: height and width.
        uniform: returns the next random number in [0, 1).
        content: the file's content, if it does not come from `path`.
        draft: decode a JPEG at a fraction of its size as long as the crop keeps at least `size` pixels a side.

    Raises:
        Damaged, InputError: as `decode`.
    """

    part: list[float] = []

    def chosen(width: int, height: int) -> Box:
        # Drawn once, at the image's full size; called again with the size of its draft.
        if not part:
            part.extend(_part(width, height, uniform))
        return part[0] * width, part[1] * height, part[2] * width, part[3] * height

    return np.asarray(_cut(path, size, content, chosen, spare=1 if draft else math.inf, gap=2.0 if draft else None))


def _part(width: int, height: int, uniform: Callable[[], float]) -> Box:
    """Draw a random part of an image, in fractions of its width and height."""
    for _ in range(TRIES):
        area = width * height * (AREA[0] + uniform() * (AREA[1] - AREA[0]))
        ratio = math.exp(math.log(RATIO[0]) + uniform() * math.log(RATIO[1] / RATIO[0]))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(uniform() * (width - w + 1)), int(uniform() * (height - h + 1))
            return left / width, top / height, (left + w) / width, (top + h) / height
    across, down = min(1.0, height * RATIO[1] / width), min(1.0, width / RATIO[0] / height)
    return (1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2


def _cut(
    path: Path,
    size: int,
    content: BinaryIO | None,
    where: Callable[[int, int], Box],
    *,
    spare: float,
    gap: float | None = None,
) -> Image.Image:
    """Cut the part that `where(width, height)` returns out of the upright image and resize it to a square.

    A draft keeps at least `spare` times the pixels per side that the square needs; `gap` is Pillow's `reducing_gap`.
    """
    # Imported here because most data sets need no decoder.
    from PIL import Image, ImageOps

    try:
        with _open(path, content) as image:
            turned = image.getexif().get(_ORIENTATION) in _SIDEWAYS
            left, top, right, bottom = where(*(image.size[::-1] if turned else image.size))
            enough = min(right - left, bottom - top) / (spare * size)
            fraction = next(f for f in (8, 4, 2, 1) if f == 1 or f <= enough)
            side = max(1, min(image.size) // fraction)
            image.draft("RGB", (side, side))
            with _alone if image.width * image.height > LARGE else nullcontext():
                ImageOps.exif_transpose(image, in_place=True)
                whole = _rgb(image, path)
                # Crop before resizing: a resized strip of 1×10⁷ pixels would fill the memory.
                left, top, right, bottom = where(*whole.size)
                box = (left, top, min(right, whole.size[0]), min(bottom, whole.size[1]))
                cut = whole.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=gap)
                image.close()
                del whole  # free both before the next large image
            return cut
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Damaged(f"{path} is huge ({error}): make it smaller") from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit into free memory: make it smaller") from error
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.EMFILE, errno.ENFILE):
            raise InputError(
                f"{path} cannot be opened, too many files are open: raise the limit (ulimit -n) or give fewer --workers"
            ) from error
        if number is not None:
            raise InputError(
                f"{path} cannot be read ({getattr(error, 'strerror', error)}): make it readable"
            ) from error
        # Decoders raise many kinds of errors on broken files; all of them mean the same.
        raise Damaged(f"{path} is not a readable image ({type(error).__name__}): repair or remove it") from error


def _open(path: Path, content: BinaryIO | None) -> Image.Image:
    """Open an image without reading its pixels; between one and two times its size limit, Pillow would only warn."""
    from PIL import Image

    # Warning filters are global to the process.
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path if content is None else content, formats=formats())


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    from PIL import Image

    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS):
        deep = np.asarray(image)
        grey = np.empty(deep.shape, np.uint8)
        for row in range(0, len(deep), 256):  # all at once would take 13 bytes per pixel
            grey[row : row + 256] = (deep[row : row + 256].astype(np.uint32) * 255 + 32767) // 65535
        image = Image.fromarray(grey)
    if image.mode.startswith(("I", "F")):
        raise Damaged(f"{path} has more than 16 bits per channel, so its range is unknown: convert it to 8 bits")
    image.load()
    image.info.pop("transparency", None)  # Pillow would warn that it is dropped
    return image.convert("RGB")
