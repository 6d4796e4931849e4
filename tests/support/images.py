"""Images that cost nothing and belong to nobody: photograph-like, made of numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def images(count: int = 12, side: int = 32) -> NDArray[np.uint8]:
    """(count, side, side, 3): gradients, discs and stripes in many colours, black and white among them."""
    random = np.random.Generator(np.random.Philox(2021))
    y, x = np.mgrid[:side, :side] / side
    made = np.empty((count, side, side, 3))
    for i in range(count):
        low, high, disc = random.uniform(0, 255, (3, 3))
        angle, cy, cx, radius = random.uniform(0, 1, 4)
        slope = np.cos(2 * np.pi * angle) * x + np.sin(2 * np.pi * angle) * y
        made[i] = low + (high - low) * ((slope - slope.min()) / np.ptp(slope))[..., None]
        made[i][(y - cy) ** 2 + (x - cx) ** 2 < (0.1 + 0.3 * radius) ** 2] = disc
        if i % 3 == 0:
            made[i] += 30 * np.sign(np.sin(2 * np.pi * (3 + i) * slope))[..., None]
    made[:, :2, :2], made[:, -2:, -2:] = 0, 255
    return np.clip(made, 0, 255).astype(np.uint8)
