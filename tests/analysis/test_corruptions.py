"""The 19 corruptions: stored statistics, properties, and slow references written from the definitions."""

from __future__ import annotations

import colorsys
import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from sftn.analysis.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from sftn.analysis.corruptions.blur import disk
from sftn.analysis.corruptions.draws import Draws
from sftn.analysis.corruptions.resample import motion, zoom
from sftn.analysis.corruptions.spatter import edges, equalise
from sftn.analysis.corruptions.weather import plasma
from sftn.errors import InputError
from tests.support.images import images

GOLDEN = Path(__file__).parents[1] / "golden" / "corruptions.csv"
IMAGES = images()


def statistics(name: str, severity: int) -> tuple[float, float, float]:
    """Mean, standard deviation, mean absolute difference from the clean images."""
    made = corrupt(IMAGES, name, severity).astype(float)
    return made.mean(), made.std(), np.abs(made - IMAGES).mean()


def level(value: float) -> int:
    """As `np.uint8` of a value in 0..1, for numbers that arithmetic may have put a hair below a whole one."""
    return int(min(1, max(0, value)) * 255 + 1e-6)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_statistics_are_the_stored_ones(name: str) -> None:
    with open(GOLDEN, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["corruption"] == name]
    assert [int(row["severity"]) for row in rows] == list(SEVERITIES)
    for row in rows:
        found = statistics(name, int(row["severity"]))
        stored = [float(row[column]) for column in ("mean", "std", "difference")]
        np.testing.assert_allclose(found, stored, atol=0.05, err_msg=f"{name} {row['severity']}")


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_shape_type_and_input_are_kept_and_batches_do_not_matter(name: str) -> None:
    clean = IMAGES.copy()
    whole = corrupt(clean, name, 3)
    assert (whole.shape, whole.dtype) == (IMAGES.shape, np.uint8)
    assert np.array_equal(clean, IMAGES)
    parts = [corrupt(clean[i : i + 5], name, 3, first=i) for i in range(0, len(clean), 5)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert not np.array_equal(whole, IMAGES)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_other_sizes_grey_images_and_flat_ones(name: str) -> None:
    tall = corrupt(images(2, 48)[:, :, :40], name, 5)
    assert tall.shape == (2, 48, 40, 3)
    grey = corrupt(IMAGES[:2, :, :, :1], name, 2)
    assert grey.shape == (2, 32, 32, 1)
    for value in (0, 255):
        for severity in SEVERITIES:
            assert corrupt(np.full((1, 32, 32, 3), value, np.uint8), name, severity).shape == (1, 32, 32, 3)
    assert corrupt(IMAGES[:0], name, 1).shape == (0, 32, 32, 3)


def test_distortion_grows_with_severity_on_average() -> None:
    # Severity 3 of saturate is the first that adds colour where 2 takes nearly all of it; the affine map of
    # elastic_transform shrinks while its warp grows. How hard they are for a network grows, not how far pixels move.
    others = [name for name in CORRUPTIONS if name not in ("saturate", "elastic_transform")]
    differences = np.array([[statistics(name, severity)[2] for severity in SEVERITIES] for name in others])
    assert (np.diff(differences.mean(axis=0)) > 0).all()
    assert (differences[:, -1] > differences[:, 0]).all()


def test_random_numbers_belong_to_the_corruption_severity_seed_and_image() -> None:
    same = np.repeat(IMAGES[:1], 2, axis=0)
    first = corrupt(same, "gaussian_noise", 1)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, corrupt(same, "gaussian_noise", 1, seed=1))
    assert np.array_equal(first[1:], corrupt(same[:1], "gaussian_noise", 1, first=1))
    drawn = {Draws(f"{name} {severity} 0", 0, 1).normal(0, 1).item() for name in CORRUPTIONS for severity in SEVERITIES}
    assert len(drawn) == 95


@pytest.mark.parametrize(("name", "word"), [("gausian_noise", "gaussian_noise"), ("fogg", "fog")])
def test_an_unknown_corruption_is_suggested(name: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        corrupt(IMAGES, name, 1)


def test_wrong_severity_and_images_are_refused() -> None:
    with pytest.raises(InputError, match="severity 6"):
        corrupt(IMAGES, "fog", 6)
    for wrong in (IMAGES.astype(float), IMAGES[0], IMAGES[..., :2]):
        with pytest.raises(InputError, match="uint8"):
            corrupt(wrong, "fog", 1)


# What follows computes a few pixels from the definition, one at a time.


@pytest.mark.parametrize("severity", SEVERITIES)
def test_hsv_corruptions_equal_colorsys(severity: int) -> None:
    shift = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    factor, more = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))[severity - 1]
    brighter, saturated = (corrupt(IMAGES, name, severity) for name in ("brightness", "saturate"))
    for at in itertools.product((0, 3, 7), range(0, 32, 5), range(0, 32, 5)):
        h, s, v = colorsys.rgb_to_hsv(*(IMAGES[at] / 255))
        expected = colorsys.hsv_to_rgb(h, s, min(1, v + shift))
        np.testing.assert_allclose(brighter[at], [level(c) for c in expected], atol=1)
        expected = colorsys.hsv_to_rgb(h, min(1, s * factor + more), v)
        np.testing.assert_allclose(saturated[at], [level(c) for c in expected], atol=1)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_and_gaussian_blur_equal_slow_ones(severity: int) -> None:
    c, sigma = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1], (0.4, 0.6, 0.7, 0.8, 1)[severity - 1]
    flat, soft = (corrupt(IMAGES, name, severity) for name in ("contrast", "gaussian_blur"))
    reach = int(4 * sigma + 0.5)
    bell = [math.exp(-(k * k) / (2 * sigma * sigma)) for k in range(-reach, reach + 1)]
    for i, y, x, channel in itertools.product((0, 5), (0, 9, 31), (0, 14, 30), range(3)):
        plane = IMAGES[i, :, :, channel] / 255
        mean = sum(map(float, plane.ravel())) / plane.size
        assert abs(int(flat[i, y, x, channel]) - level((plane[y, x] - mean) * c + mean)) <= 1
        total = 0.0
        for (dy, a), (dx, b) in itertools.product(enumerate(bell, -reach), repeat=2):
            total += a * b * plane[min(31, max(0, y + dy)), min(31, max(0, x + dx))]
        assert abs(int(soft[i, y, x, channel]) - level(total / sum(bell) ** 2)) <= 1


@pytest.mark.parametrize("severity", SEVERITIES)
def test_pixelate_averages_boxes(severity: int) -> None:
    c = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    small = int(32 * c)

    def shrink(side: int, onto: int) -> np.ndarray:
        """What each new pixel covers of the old ones, in Pillow's box: whole pixels whose centre it covers."""
        matrix = np.zeros((onto, side))
        ratio = side / onto
        for k in range(onto):
            # A box narrower than a pixel is made as wide as one.
            width = max(1.0, ratio) / 2
            centre = (k + 0.5) * ratio
            for j in range(side):
                matrix[k, j] = -width < (j + 0.5 - centre) <= width
        return matrix / matrix.sum(1, keepdims=True)

    both = shrink(small, 32) @ shrink(32, small)
    expected = np.einsum("ya,xb,nabc->nyxc", both, both, IMAGES.astype(float))
    assert np.abs(corrupt(IMAGES, "pixelate", severity) - expected).max() <= 2


def test_motion_blur_equals_a_slow_one() -> None:
    angles = np.array([0.0, 30.0, -45.0, -90.0, -120.0])
    found = motion(IMAGES[:5], 6, 1.5, angles)
    weights = [math.exp(-(i * i) / 4.5) for i in range(13)]
    for n, y, x in itertools.product(range(5), (0, 7, 31), (0, 12, 31)):
        total = np.zeros(3)
        for i, weight in enumerate(weights):
            down = math.ceil(i * math.sin(math.radians(angles[n])) - 0.5)
            right = math.ceil(i * math.cos(math.radians(angles[n])) - 0.5)
            total += weight * IMAGES[n, min(31, max(0, y + down)), min(31, max(0, x + right))]
        np.testing.assert_allclose(found[n, y, x], total / sum(weights), atol=0.51)


@pytest.mark.parametrize("factor", [1, 1.01, 1.05, 1.11, 1.25, 1.75, 2.25])
def test_zoom_is_scipys(factor: float) -> None:
    kept = math.ceil(32 / factor)
    top = (32 - kept) // 2
    for image in IMAGES[:2] / 255:
        large = ndimage.zoom(image[top : top + kept, top : top + kept], (factor, factor, 1), order=1)
        trim = (large.shape[0] - 32) // 2
        np.testing.assert_allclose(zoom(image[None], factor)[0], large[trim : trim + 32, trim : trim + 32], atol=1e-9)


def test_glass_blur_passes_equal_going_pixel_by_pixel() -> None:
    """Sigma 0.05 smooths nothing, so severity 1 is the passes alone."""
    draws = Draws("glass_blur 1 0", 0, len(IMAGES)).integers(-1, 1, 2, 30, 30)
    x = IMAGES.copy()
    for n in range(len(x)):
        for h in range(31, 1, -1):
            for w in range(31, 1, -1):
                dy, dx = draws[n, :, h - 2, w - 2]
                x[n, h, w], x[n, h + dy, w + dx] = x[n, h + dy, w + dx], x[n, h, w]
    assert np.abs(corrupt(IMAGES, "glass_blur", 1).astype(int) - x).max() <= 2


def test_noises_have_their_strength() -> None:
    grey = np.full((20, 32, 32, 3), 128, np.uint8)
    for severity, (deviation, rate, share) in enumerate(
        zip((0.04, 0.06, 0.08, 0.09, 0.10), (500, 250, 100, 75, 50), (0.01, 0.02, 0.03, 0.05, 0.07)), 1
    ):
        noisy = corrupt(grey, "gaussian_noise", severity) / 255
        assert noisy.std() == pytest.approx(deviation, rel=0.03)
        assert (corrupt(grey, "shot_noise", severity) / 255).std() == pytest.approx((128 / 255 / rate) ** 0.5, rel=0.03)
        salted = corrupt(grey, "impulse_noise", severity)
        assert set(np.unique(salted)) == {0, 128, 255}
        assert (salted != 128).mean() == pytest.approx(share, rel=0.1)
        assert (salted == 0).mean() == pytest.approx(share / 2, rel=0.15)


def test_the_disk_the_plasma_and_the_edges() -> None:
    assert disk(0.3, 0.4)[2, 2] == pytest.approx(1 / (1 + 2 * math.exp(-1 / 0.32)) ** 2)
    assert disk(1.5, 0.1)[1:4, 1:4] == pytest.approx(np.full((3, 3), 1 / 9))
    assert disk(1, 0.2).sum() == pytest.approx(1)
    clouds = plasma(Draws("clouds", 0, 3).uniform(-1, 1, 32, 32), 2)
    assert clouds.min(axis=(1, 2)).tolist() == [0] * 3
    assert clouds.max(axis=(1, 2)).tolist() == [1] * 3
    square = np.zeros((2, 16, 16), np.uint8)
    square[0, 4:12, 4:12] = 200
    found = edges(square, 50, 150)
    assert not found[1].any()
    assert found[0, 3:5, 6:10].any(axis=0).all()
    assert not found[0, 6:10, 6:10].any()
    flat = equalise(np.array([[[10, 10], [20, 30]], [[7, 7], [7, 7]]], np.uint8))
    assert flat.tolist() == [[[0, 0], [128, 255]], [[7, 7], [7, 7]]]
