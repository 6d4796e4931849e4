"""Snow, frost and fog."""

from __future__ import annotations

import functools

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sftn.analysis.corruptions.draws import Draws, Floats
from sftn.analysis.corruptions.resample import motion, smooth, zoom

PANES = 5
"""Number of ice textures, the same as that of the authors' photographs."""


def snow(images: NDArray[np.uint8], severity: int, draws: Draws) -> Floats:
    """Add flakes blown in one direction and, rotated by 180°, in the other, over a slightly bleached image."""
    mean, deviation, size, threshold, radius, sigma, kept = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[severity - 1]
    x = images / 255
    flakes = zoom(draws.normal(mean, deviation, *images.shape[1:3]), size)
    flakes[flakes < threshold] = 0
    levels = (np.clip(flakes, 0, 1) * 255).astype(np.uint8)[..., None]
    layer = motion(levels, radius, sigma, draws.uniform(-135, -45)) / 255
    grey = (x @ np.array([0.299, 0.587, 0.114]))[..., None]
    x = kept * x + (1 - kept) * np.maximum(x, grey * 1.5 + 0.5)
    return np.clip(x + layer + layer[:, ::-1, ::-1], 0, 1) * 255


def frost(images: NDArray[np.uint8], severity: int, draws: Draws) -> Floats:
    """Darken the image slightly and add ice: c₀·x + c₁·ice, from a random place in a random texture.

    The constants are the authors', but not the ice: they use photographs that they may not redistribute; here `ice`
    generates it from fixed seeds. Accuracies under this corruption are therefore not the official ones.
    """
    kept, added = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[severity - 1]
    height, width = images.shape[1:3]
    side = max(256, _power_of_two(2 * max(height, width)))
    panes = np.stack([ice(pane, side) for pane in range(PANES)])
    crops = sliding_window_view(panes, (height, width), axis=(1, 2))
    pane = draws.integers(0, PANES)
    top, left = draws.integers(0, side - height), draws.integers(0, side - width)
    return np.clip(kept * images + added * crops[pane, top, left].transpose(0, 2, 3, 1), 0, 255)


def fog(images: NDArray[np.uint8], severity: int, draws: Draws) -> Floats:
    """Add a plasma fractal, then rescale the image to its former brightest level."""
    thickness, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[severity - 1]
    height, width = images.shape[1:3]
    side = _power_of_two(max(height, width))
    x = images / 255
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    clouds = plasma(draws.uniform(-1, 1, side, side), decay)[:, :height, :width, None]
    return np.clip((x + thickness * clouds) * brightest / (brightest + thickness), 0, 1) * 255


def plasma(numbers: Floats, decay: float) -> Floats:
    """Generate height maps by the diamond-square algorithm on a torus, 0 to 1.

    Args:
        numbers: (N, S, S) uniform in -1..1, S a power of two: each point's displacement from its neighbours' mean.
        decay: factor by which displacements shrink from one level to the next.
    """
    side = numbers.shape[1]
    heights = np.zeros_like(numbers)
    step, reach = side, 100.0
    while step >= 2:
        half = step // 2
        corner = (slice(None), slice(0, None, step), slice(0, None, step))
        centre = (slice(None), slice(half, None, step), slice(half, None, step))
        beside = (slice(None), slice(0, None, step), slice(half, None, step))
        below = (slice(None), slice(half, None, step), slice(0, None, step))
        moves = reach**2 * numbers  # squared, as in the authors' code
        rows = heights[corner] + np.roll(heights[corner], -1, axis=1)
        heights[centre] = (rows + np.roll(rows, -1, axis=2)) / 4 + moves[centre]
        across = heights[corner] + np.roll(heights[corner], -1, axis=2)
        down = heights[corner] + np.roll(heights[corner], -1, axis=1)
        middle = heights[centre]
        heights[beside] = (middle + np.roll(middle, 1, axis=1) + across) / 4 + moves[beside]
        heights[below] = (middle + np.roll(middle, 1, axis=2) + down) / 4 + moves[below]
        step, reach = half, reach / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return heights / heights.max(axis=(1, 2), keepdims=True)


@functools.cache
def ice(pane: int, side: int) -> Floats:
    """Generate ice on a window, (side, side, 3) levels 0..255: bluish needles with branches at 60°, dense in places."""
    random = np.random.Generator(np.random.Philox(pane + 1))
    haze, density = plasma(random.uniform(-1, 1, (2, side, side)), 2)
    canvas = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(canvas)
    needles = side * side // 90
    starts, turns = random.uniform(0, side, (needles, 2)), random.normal(0, 0.35, needles)
    lengths, lights = random.uniform(6, 40, needles), np.sort(random.uniform(50, 255, needles))
    for start, turn, length, light in zip(starts, turns, lengths, lights):
        # Neighbours point the same way because their direction follows the haze.
        angle = 4 * np.pi * haze[int(start[1]), int(start[0])] + turn
        for along, bend, share in ((0, 0, 1), (0.3, 1, 0.4), (0.3, -1, 0.4), (0.55, 1, 0.3), (0.55, -1, 0.3)):
            begin = start + along * length * _direction(angle)
            end = begin + share * length * _direction(angle + bend * np.pi / 3)
            pen.line([*begin, *end], fill=int(light * (1 if bend == 0 else 0.7)))
    crystals = smooth(np.asarray(canvas) / 255, 0.5)
    bright = np.clip(0.2 + 0.3 * haze + 0.75 * crystals * (0.3 + density), 0, 1)[..., None]
    tint = np.array([0.78, 0.9, 1.0])
    return 255 * bright * (tint + (1 - tint) * bright**2)


def _direction(angle: float) -> Floats:
    return np.array([np.cos(angle), np.sin(angle)])


def _power_of_two(least: int) -> int:
    return 1 << max(1, (least - 1).bit_length())
