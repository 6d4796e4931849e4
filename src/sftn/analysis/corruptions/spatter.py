"""Spatter: drops of water or mud."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sftn.analysis.corruptions.draws import Draws, Floats
from sftn.analysis.corruptions.resample import smooth

WATER, MUD = (175, 238, 238), (63, 42, 20)
_LENGTHS = {(0, 1): 1.0, (1, 1): 1.4, (1, 2): 2.1969}
_STEPS = {
    (down, right): _LENGTHS[min(abs(down), abs(right)), max(abs(down), abs(right))]
    for down in range(-2, 3)
    for right in range(-2, 3)
    if (min(abs(down), abs(right)), max(abs(down), abs(right))) in _LENGTHS
}
_RELIEF = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])


def spatter(images: NDArray[np.uint8], severity: int, draws: Draws) -> Floats:
    """Add water with shining edges (severities 1 to 3) or opaque mud (4 and 5) where smooth noise is high.

    An image without any drop is left unchanged; the authors' code divides by zero there.
    """
    mean, deviation, sigma, threshold, strength, mud = (
        (0.62, 0.1, 0.7, 0.7, 0.5, False),
        (0.65, 0.1, 0.8, 0.7, 0.5, False),
        (0.65, 0.3, 1, 0.69, 0.5, False),
        (0.65, 0.1, 0.7, 0.69, 0.6, True),
        (0.65, 0.1, 0.5, 0.68, 0.6, True),
    )[severity - 1]
    x = images / 255
    liquid = smooth(draws.normal(mean, deviation, *images.shape[1:3]), sigma)
    liquid[liquid < threshold] = 0
    if mud:
        cover = smooth((liquid > threshold).astype(float), strength)
        cover = np.where(cover < 0.8, 0, cover)[..., None]
        return np.clip(x * (1 - cover) + cover * np.array(MUD) / 255, 0, 1) * 255
    levels = (liquid * 255).astype(np.uint8)
    shine = levels * _relief(levels).astype(float)
    brightest = shine.max(axis=(1, 2), keepdims=True)
    shine = (strength * np.divide(shine, brightest, out=np.zeros_like(shine), where=brightest > 0))[..., None]
    return np.clip(x + shine * np.array(WATER) / 255, 0, 1) * 255


def _relief(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Light from one side on the slopes around the drops' edges, (N, H, W)."""
    away = _box(np.minimum(chamfer(edges(levels, 50, 150)), 20))
    # In single precision, as in OpenCV: a mean of integers that is an integer must not be rounded below it.
    whole = away.astype(np.float32).astype(np.uint8)
    lit = ndimage.correlate(equalise(whole).astype(np.int32), _RELIEF[None], mode="mirror")
    return np.rint(_box(np.clip(lit, 0, 255).astype(float))).astype(np.uint8)


def chamfer(marked: NDArray[np.bool_]) -> Floats:
    """Distances to the nearest marked pixel, (N, H, W), by OpenCV's 5×5 mask: steps of 1, 1.4 and 2.1969.

    Distances beyond 32 may be too large.
    """
    height, width = marked.shape[1:]
    away = np.where(marked, 0.0, 1e4)
    for _ in range(32):
        padded = np.pad(away, ((0, 0), (2, 2), (2, 2)), constant_values=1e4)
        nearer = away
        for (down, right), length in _STEPS.items():
            beside = padded[:, 2 + down : 2 + down + height, 2 + right : 2 + right + width]
            nearer = np.minimum(nearer, beside + length)
        if np.array_equal(nearer, away):
            break
        away = nearer
    return away


def _box(images: Floats) -> Floats:
    averaged: Floats = ndimage.correlate(images, np.ones((1, 3, 3)), mode="mirror") / 9
    return averaged


def edges(images: NDArray[np.uint8], low: float, high: float) -> NDArray[np.bool_]:
    """Detect Canny's edges in (N, H, W) images: Sobel gradients, |dx| + |dy|, its ridges, those that reach `high`."""
    signed = images.astype(np.int32)
    smear, slope = np.array([1, 2, 1]), np.array([-1, 0, 1])
    dx = ndimage.correlate(signed, np.outer(smear, slope)[None], mode="nearest")
    dy = ndimage.correlate(signed, np.outer(slope, smear)[None], mode="nearest")
    strength = np.abs(dx) + np.abs(dy)
    padded = np.pad(strength, ((0, 0), (1, 1), (1, 1)))
    height, width = images.shape[1:]

    def neighbour(down: int, right: int) -> NDArray[np.int32]:
        return padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    flat = np.abs(dy) < np.tan(np.pi / 8) * np.abs(dx)
    steep = np.abs(dy) > np.tan(3 * np.pi / 8) * np.abs(dx)
    falling = (dx < 0) == (dy < 0)
    across = (strength > neighbour(0, -1)) & (strength >= neighbour(0, 1))
    upright = (strength > neighbour(-1, 0)) & (strength >= neighbour(1, 0))
    diagonal = np.where(
        falling,
        (strength > neighbour(-1, -1)) & (strength > neighbour(1, 1)),
        (strength > neighbour(-1, 1)) & (strength > neighbour(1, -1)),
    )
    weak = (strength > low) & np.where(flat, across, np.where(steep, upright, diagonal))
    beside = np.zeros((3, 3, 3), int)
    beside[1] = 1
    parts, count = ndimage.label(weak, structure=beside)
    strong = np.zeros(count + 1, bool)
    strong[parts[weak & (strength > high)]] = True
    found: NDArray[np.bool_] = strong[parts]
    return found


def equalise(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Equalise the histograms of (N, H, W) images, with the lowest level at 0, as in OpenCV."""
    count, pixels = len(images), images[0].size
    which = np.arange(count)[:, None, None]
    histogram = np.bincount((which * 256 + images).ravel(), minlength=count * 256).reshape(count, 256)
    lowest = (histogram > 0).argmax(axis=1)
    least = histogram[np.arange(count), lowest][:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.rint((histogram.cumsum(axis=1) - least) * (255 / (pixels - least)))
    constant = least == pixels
    table = np.where(constant, lowest[:, None], np.clip(spread, 0, 255)).astype(np.uint8)
    return table[which, images]
