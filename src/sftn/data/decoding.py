"""The one place that opens images: a file becomes a square of uint8 pixels, or an error that names it.

What is unambiguous is converted: grey, palette and CMYK become RGB, 16-bit grey is scaled to 8 bits (65535 becomes
255), a turned photograph is set upright by its EXIF orientation. Of an animation or a file of several pages the first
image is read. An alpha channel is dropped as Pillow does: the colours that are stored under it stay. Refused are images
of floating-point or 32-bit pixels, truncated ones, and those of more pixels than Pillow holds for safe.
"""

from __future__ import annotations

import errno
import math
import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sftn.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
AREA, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10
"""Of a random crop: its share of the image and its width over its height (section B.2)."""

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge in pixels."""

_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)
_SIXTEEN_BITS = ("PNG", "PPM")
"""Formats whose pixels of mode I are 16 bits deep."""
LARGE = 2**23
"""Pixels of an image that is decoded while no other such image is: the largest take 0.7 GB each."""
_filters, _alone = threading.Lock(), threading.Lock()


class Damaged(InputError):
    """An image that cannot be decoded, or must not be; `--damaged skip` leaves it out."""


def decode(path: Path, size: int, content: BinaryIO | None = None, *, resize: int | None = None) -> NDArray[np.uint8]:
    """(3, size, size) of one image: its shorter side resized bilinearly, every pixel counted, and its centre cut out.

    Args:
        path: of the file; its name in messages.
        size: height and width.
        content: what is in the file, where it lies elsewhere.
        resize: what the shorter side becomes before the cut; None for `size`.

    Raises:
        Damaged: it is no image, is truncated, has pixels of another kind, or more of them than is safe.
        InputError: the file cannot be opened.
    """
    return centre(path, size, content, resize=resize).transpose(2, 0, 1)


def centre(path: Path, size: int, content: BinaryIO | None = None, *, resize: int | None = None) -> NDArray[np.uint8]:
    """As `decode`, but (size, size, 3), as decoders lay pixels out."""

    def middle(width: int, height: int) -> Box:
        side = min(width, height) if resize is None else min(width, height) * size / resize
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    # A JPEG is decoded at a fraction of its size while that stays at least twice what is needed.
    return np.asarray(_cut(path, size, content, middle, spare=2))


def crop(
    path: Path, size: int, uniform: Callable[[], float], content: BinaryIO | None = None, *, draft: bool = True
) -> NDArray[np.uint8]:
    """(size, size, 3): a random part of the image, resized; `AREA` and `RATIO` say how large and of which shape.

    As torchvision's RandomResizedCrop: the area is uniform, the ratio log-uniform, a part that does not fit is drawn
    again up to `TRIES` times, then the largest central part of an allowed ratio is taken. Section B.2 says that the
    ratio is relative to the image's own, in the words of torchvision's documentation, whose code takes the ratio
    itself; this does as the code.

    Args:
        path: of the file; its name in messages.
        size: height and width.
        uniform: gives the next random number of [0, 1).
        content: what is in the file, where it lies elsewhere.
        draft: decode a JPEG at a fraction of its size while the part keeps at least `size` pixels a side.

    Raises:
        Damaged, InputError: as `decode`.
    """

    part: list[float] = []

    def chosen(width: int, height: int) -> Box:
        # Drawn at the image's own size, asked for again at that of its draft.
        if not part:
            part.extend(_part(width, height, uniform))
        return part[0] * width, part[1] * height, part[2] * width, part[3] * height

    return np.asarray(_cut(path, size, content, chosen, spare=1 if draft else math.inf, gap=2.0 if draft else None))


def _part(width: int, height: int, uniform: Callable[[], float]) -> Box:
    """A random part of an image, in fractions of its width and height."""
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
    """The part of an upright image that `where` names for a width and height, resized to a square.

    `spare`: a draft keeps so many times the pixels that the square needs. `gap`: Pillow's `reducing_gap`.
    """
    # Imported here: most data sets need no decoder.
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
                # The part alone: a resized strip of 1×10⁷ pixels would fill the memory.
                left, top, right, bottom = where(*whole.size)
                box = (left, top, min(right, whole.size[0]), min(bottom, whole.size[1]))
                cut = whole.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=gap)
                image.close()
                del whole  # both are gone before the next large one begins
            return cut
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Damaged(f"{path} is huge ({error}): make it smaller") from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit into the memory that is free: make it smaller") from error
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.EMFILE, errno.ENFILE):
            raise InputError(
                f"{path} cannot be opened, too many files are: raise the limit (ulimit -n) or give fewer --workers"
            ) from error
        if number is not None:
            raise InputError(
                f"{path} cannot be read ({getattr(error, 'strerror', error)}): make it readable"
            ) from error
        # Decoders fail in many ways on broken files; each of them means the same.
        raise Damaged(f"{path} is no readable image ({type(error).__name__}): repair or remove it") from error


def _open(path: Path, content: BinaryIO | None) -> Image.Image:
    """An image whose pixels are not read yet. Pillow only warns of one between one and two times its limit."""
    from PIL import Image

    # The filters of warnings belong to the whole process.
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path if content is None else content, formats=FORMATS)


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    from PIL import Image

    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS):
        deep = np.asarray(image)
        grey = np.empty(deep.shape, np.uint8)
        for row in range(0, len(deep), 256):  # all at once would take 13 bytes a pixel
            grey[row : row + 256] = (deep[row : row + 256].astype(np.uint32) * 255 + 32767) // 65535
        image = Image.fromarray(grey)
    if image.mode.startswith(("I", "F")):
        raise Damaged(f"{path} has pixels of more than 16 bits, whose range is unknown: convert it to 8 bits")
    image.load()
    image.info.pop("transparency", None)  # Pillow would warn that it drops it
    return image.convert("RGB")
