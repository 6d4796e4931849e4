"""scikit-learn's digits: 1797 real handwritten digits of 8×8 pixels, part of that package, enlarged to 32×32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sftn.data.dataset import Dataset, Request, Split, held_out
from sftn.errors import InputError

SIZE, TEST = 32, 1000
SEED = 0
"""Identifies the split: image `i` is ranked by the hash of "digits SEED i"."""


def load(request: Request) -> Dataset:
    """797 training and 1000 test images, 1×32×32.

    The 17 levels are spread over 0..255 and the 8×8 pixels enlarged bilinearly. The split is fixed and stratified: each
    class contributes its share of the 1000 test images, rounded so that the shares add up. There are no flips, because
    a mirrored digit is not a digit.

    Raises:
        InputError: the requested size is not 32.
    """
    if request.size not in (None, SIZE):
        raise InputError(f"digits are enlarged to {SIZE}×{SIZE}: leave out the size {request.size}")
    # Imported here because it takes a second and only these images need it.
    from sklearn.datasets import load_digits

    raw = load_digits()
    levels = torch.from_numpy(raw.images).float()[:, None] * (255 / 16)
    enlarged = interpolate(levels, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    images, labels = enlarged.round_().to(torch.uint8), torch.from_numpy(raw.target).long()
    test = _test(labels)
    return Dataset(
        name="digits",
        train=Split(images[~test], labels[~test]),
        test=Split(images[test], labels[test]),
        classes=tuple(str(name) for name in raw.target_names),
        flip=False,
        padding=4,
    )


def _test(labels: Tensor) -> Tensor:
    """(N,) bool: which images are for testing."""
    members = [torch.nonzero(labels == label).flatten().tolist() for label in range(10)]
    exact = [len(own) * TEST / len(labels) for own in members]
    # Largest remainders: the classes that lose most by rounding down get one more image.
    short = TEST - sum(map(int, exact))
    more = sorted(range(10), key=lambda label: int(exact[label]) - exact[label])[:short]
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label, own in enumerate(members):
        chosen = held_out([f"digits {SEED} {i}" for i in own], int(exact[label]) + (label in more))
        mask[[own[i] for i in chosen]] = True
    return mask
