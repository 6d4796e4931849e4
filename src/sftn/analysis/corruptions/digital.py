"""Digital corruptions: brightness, contrast, saturation, elastic warps, pixelation, JPEG."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sftn.analysis.corruptions.draws import Draws, Floats
from sftn.analysis.corruptions.resample import sample, smooth


def contrast(images: NDArray[np.uint8], severity: int, draws: Draws) -> Floats:
    """Move each channel towards its mean over the image."""
    c = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    x = images / 255
    means = x.mean(axis=(1, 2), keepdims=True)
    return np.clip((x - means) * c + means, 0, 1) * 255


def brightness(images: NDArray[np.uint8], severity: int, draws: Draws) -> Floats:
    """Add c to the HSV value: all channels grow in proportion, black becomes grey."""
    c = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    x = images / 255
    value = x.max(axis=3, keepdims=True)
    raised = np.clip(value + c, 0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(np.where(value > 0, x * (raised / value), raised), 0, 1) * 255


def saturate(images: NDArray[np.uint8], severity: int, draws: Draws) -> Floats:
    """Change the HSV saturation s, how far the channels are below the largest one, to c₀·s + c₁.

    Grey has no hue; scikit-image, and so CIFAR-C, treats it as red: with c₁ above 0 grey pixels turn reddish.
    """
    scale, shift = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))[severity - 1]
    x = images / 255
    value = x.max(axis=3, keepdims=True)
    behind = value - x
    spread = behind.max(axis=3, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        saturation = np.where(spread > 0, spread / value, 0)
        share = np.where(spread > 0, behind / spread, np.array([0.0, 1.0, 1.0]))
    return np.clip(value - value * np.clip(saturation * scale + shift, 0, 1) * share, 0, 1) * 255


def elastic_transform(images: NDArray[np.uint8], severity: int, draws: Draws) -> Floats:
    """Apply a random affine map, then a small smooth random displacement of every pixel.

    The affine map moves three points by up to c₂; it is inverted and sampled bilinearly, without OpenCV's rounding of
    positions to 1/32 pixel.
    """
    height, width = images.shape[1:3]
    side = min(height, width)
    reach, sigma, corner = ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))[
        severity - 1
    ]
    middle, arm = np.array([width // 2, height // 2]), side // 3
    before = middle + arm * np.array([[1, 1], [1, -1], [-1, -1]])
    after = before + draws.uniform(-corner * side, corner * side, 3, 2)
    # A point p = (x, y, 1) of the result is read from p @ back.
    back = np.linalg.inv(np.concatenate([after, np.ones((len(images), 3, 1))], axis=2)) @ before
    rows, columns = np.mgrid[:height, :width].astype(float)
    places = np.stack([columns, rows, np.ones_like(rows)], axis=2) @ back[:, None]
    x = sample(images / 255, places[..., 1], places[..., 0], repeat_edge=False)
    moves = draws.uniform(-1, 1, 2, height, width)
    dx, dy = (
        smooth(moves[:, k], sigma * side, mode="reflect", truncate=3) * (reach * side) if reach else 0 for k in (0, 1)
    )
    shape = (len(images), height, width)
    x = sample(x, np.broadcast_to(rows + dy, shape), np.broadcast_to(columns + dx, shape), repeat_edge=True)
    return np.clip(x, 0, 1) * 255


def pixelate(images: NDArray[np.uint8], severity: int, draws: Draws) -> NDArray[np.uint8]:
    """Shrink and enlarge again, each by averaging boxes."""
    c = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    height, width = images.shape[1:3]
    small = (max(1, int(width * c)), max(1, int(height * c)))

    def coarse(image: NDArray[np.uint8]) -> Image.Image:
        return Image.fromarray(image).resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)

    return np.stack([np.asarray(coarse(image)) for image in images])


def jpeg_compression(images: NDArray[np.uint8], severity: int, draws: Draws) -> NDArray[np.uint8]:
    """Compress as JPEG with the given quality."""
    quality = (80, 65, 58, 50, 40)[severity - 1]

    def squeezed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file, formats=("JPEG",)))

    return np.stack([squeezed(image) for image in images])
