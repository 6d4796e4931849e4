"""Four kinds of noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sftn.analysis.corruptions.draws import Draws, Floats


def gaussian_noise(images: NDArray[np.uint8], severity: int, draws: Draws) -> Floats:
    """Add Gaussian noise: x + n, n ~ N(0, c²)."""
    c = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    return np.clip(images / 255 + draws.normal(0, c, *images.shape[1:]), 0, 1) * 255


def shot_noise(images: NDArray[np.uint8], severity: int, draws: Draws) -> Floats:
    """Apply shot noise: Poisson(c·x) / c."""
    c = (500, 250, 100, 75, 50)[severity - 1]
    return np.clip(draws.poisson(images / 255 * c) / c, 0, 1) * 255


def impulse_noise(images: NDArray[np.uint8], severity: int, draws: Draws) -> NDArray[np.uint8]:
    """Set a fraction c of all values to black or white, with equal probability."""
    c = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    chance, colour = np.moveaxis(draws.uniform(0, 1, 2, *images.shape[1:]), 1, 0)
    return np.where(chance <= c, np.where(colour < 0.5, 255, 0), images).astype(np.uint8)


def speckle_noise(images: NDArray[np.uint8], severity: int, draws: Draws) -> Floats:
    """Apply multiplicative noise: x + x·n, n ~ N(0, c²)."""
    c = (0.06, 0.1, 0.12, 0.16, 0.2)[severity - 1]
    x = images / 255
    return np.clip(x + x * draws.normal(0, c, *images.shape[1:]), 0, 1) * 255
