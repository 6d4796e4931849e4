"""Resampling: smoothing, moving, zooming and warping of (N, H, W, C) or (N, H, W) batches."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

from sftn.analysis.corruptions.draws import Floats


def smooth(images: Floats, sigma: float, *, mode: str = "nearest", truncate: float = 4.0) -> Floats:
    """Smooth by a Gaussian over height and width, as scikit-image's `gaussian` (the border repeats the last pixel)."""
    sigmas = (0, sigma, sigma, 0)[: images.ndim]
    smoothed: Floats = ndimage.gaussian_filter(images, sigmas, mode=mode, truncate=truncate)
    return smoothed


def motion(images: NDArray[np.uint8], radius: float, sigma: float, angles: Floats) -> NDArray[np.uint8]:
    """Apply ImageMagick's motion blur: half a Gaussian along a line of 2·⌈radius⌉ + 1 pixels, repeating the border.

    Args:
        images: (N, H, W, C)
        radius: pixels.
        sigma: pixels.
        angles: (N,) degrees; 0 reads from the right, 90 from below.
    """
    count, height, width = images.shape[:3]
    length = 2 * math.ceil(radius) + 1
    weights = np.exp(-(np.arange(length) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    steps = np.arange(length)[:, None]
    right = np.ceil(steps * np.cos(np.deg2rad(angles)) - 0.5).astype(int)
    below = np.ceil(steps * np.sin(np.deg2rad(angles)) - 0.5).astype(int)
    margin = ((0, 0), (length, length), (length, length), (0, 0))
    crops = sliding_window_view(np.pad(images, margin, mode="edge"), (height, width), axis=(1, 2))
    blurred = np.zeros((count, images.shape[3], height, width))
    for weight, dx, dy in zip(weights, right, below):
        blurred += weight * crops[np.arange(count), length + dy, length + dx]
    return np.clip(np.rint(blurred), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def zoom(images: Floats, factor: float) -> Floats:
    """Enlarge the centre bilinearly to the whole size (CIFAR-C's `clipped_zoom`)."""
    down, across = _zoom_matrix(images.shape[1], factor), _zoom_matrix(images.shape[2], factor)
    planes = images if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    zoomed: Floats = down @ (planes @ across.T)
    return zoomed if images.ndim == 3 else zoomed.transpose(0, 2, 3, 1)


def _zoom_matrix(side: int, factor: float) -> Floats:
    """Make (side, side) weights of each result pixel over a row of the image, as in scipy's `zoom` of order 1."""
    kept = math.ceil(side / factor)
    begin, enlarged = (side - kept) // 2, round(kept * factor)
    trim = (enlarged - side) // 2
    at = np.arange(trim, trim + side) * ((kept - 1) / max(1, enlarged - 1))
    left = np.minimum(at.astype(int), kept - 1)
    share = at - left
    matrix = np.zeros((side, side))
    rows = np.arange(side)
    np.add.at(matrix, (rows, begin + left), 1 - share)
    np.add.at(matrix, (rows, begin + np.minimum(left + 1, kept - 1)), share)
    return matrix


def sample(images: Floats, y: Floats, x: Floats, *, repeat_edge: bool) -> Floats:
    """Sample (N, H, W, C) images bilinearly at (N, H, W) positions; beyond the border they are mirrored.

    Args:
        images: the images to sample.
        y: rows.
        x: columns.
        repeat_edge: whether the mirror image repeats the pixel at the border (scipy's "reflect") or not (OpenCV's
            BORDER_REFLECT_101).
    """
    height, width = images.shape[1:3]
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    down, right = (y - top)[..., None], (x - left)[..., None]
    which = np.arange(len(images))[:, None, None]
    rows = [_mirror(top + k, height, repeat_edge) for k in (0, 1)]
    columns = [_mirror(left + k, width, repeat_edge) for k in (0, 1)]
    upper, lower = (
        images[which, row, columns[0]] * (1 - right) + images[which, row, columns[1]] * right for row in rows
    )
    read: Floats = upper * (1 - down) + lower * down
    return read


def _mirror(index: NDArray[np.int64], side: int, repeat_edge: bool) -> NDArray[np.int64]:
    if side == 1:
        return np.zeros_like(index)
    period = 2 * side if repeat_edge else 2 * side - 2
    index = index % period
    return np.where(index < side, index, period - repeat_edge - index)
