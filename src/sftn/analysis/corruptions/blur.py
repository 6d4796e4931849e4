"""Five kinds of blur."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sftn.analysis.corruptions.draws import Draws, Floats
from sftn.analysis.corruptions.resample import motion, smooth, zoom


def gaussian_blur(images: NDArray[np.uint8], severity: int, draws: Draws) -> Floats:
    """Blur by a Gaussian whose sigma is in pixels."""
    sigma = (0.4, 0.6, 0.7, 0.8, 1)[severity - 1]
    return np.clip(smooth(images / 255, sigma), 0, 1) * 255


def glass_blur(images: NDArray[np.uint8], severity: int, draws: Draws) -> Floats:
    """Smooth, replace pixels by neighbours above and to the left, and smooth again.

    The authors' code intends to swap neighbours, but swaps views of one array: the neighbour's colour is copied over
    the pixel, and the neighbour stays. It goes from the last pixel to the first and copies only from earlier ones, so
    each pass reads unchanged pixels, which a single indexing operation does here. The official files were made by that
    code.
    """
    sigma, passes = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))[severity - 1]
    height, width = images.shape[1:3]
    x = (smooth(images / 255, sigma) * 255).astype(np.uint8)
    rows, columns = np.arange(2, height), np.arange(2, width)
    which = np.arange(len(x))[:, None, None]
    for _ in range(passes):
        dy, dx = np.moveaxis(draws.integers(-1, 1, 2, len(rows), len(columns)), 1, 0)
        x[:, 2:, 2:] = x[which, rows[:, None] + dy, columns + dx]
    return np.clip(smooth(x / 255, sigma), 0, 1) * 255


def defocus_blur(images: NDArray[np.uint8], severity: int, draws: Draws) -> Floats:
    """Average over a disk whose edge is smoothed by a 3×3 Gaussian."""
    radius, alias = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[severity - 1]
    return np.clip(ndimage.correlate(images / 255, disk(radius, alias)[None, :, :, None], mode="mirror"), 0, 1) * 255


def disk(radius: float, alias: float) -> Floats:
    """Make the (5, 5) weights of a disk of at most 1.5 pixels."""
    y, x = np.mgrid[-2:3, -2:3]
    sharp = (x**2 + y**2 <= radius**2).astype(float)
    edge = np.exp(-(np.arange(-1, 2) ** 2) / (2 * alias**2))
    edge /= edge.sum()
    weights: Floats = ndimage.correlate(sharp / sharp.sum(), np.outer(edge, edge), mode="constant")
    return weights


def motion_blur(images: NDArray[np.uint8], severity: int, draws: Draws) -> NDArray[np.uint8]:
    """Apply ImageMagick's motion blur in a direction up to 45° from the horizontal."""
    radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[severity - 1]
    return motion(images, radius, sigma, draws.uniform(-45, 45))


def zoom_blur(images: NDArray[np.uint8], severity: int, draws: Draws) -> Floats:
    """Average the image with increasingly enlarged copies of its centre."""
    factors = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1], 0.01)
    x = images / 255
    total = sum((zoom(x, factor) for factor in factors), start=x)
    return np.clip(total / (len(factors) + 1), 0, 1) * 255
