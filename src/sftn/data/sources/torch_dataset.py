"""Images of a PyTorch data set, kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from sftn.data.checks import check
from sftn.data.dataset import Dataset, Split
from sftn.errors import InputError


def from_torch(
    train: TorchDataset[Any], test: TorchDataset[Any], *, classes: Sequence[str] = (), flip: bool = True
) -> Dataset:
    """Make a `Dataset` from two map-style data sets of (image, label), such as torchvision's.

    Pixels are kept as uint8; training augments and normalises them, so the data sets must not. What
    `sftn.data.checks.check` finds is logged.

    Args:
        train: the training images. An image is a PIL image, a (H, W, C) or (H, W) uint8 array, or a (C, H, W) tensor:
            uint8, or float from 0 to 1 as `ToTensor` makes it. A label is an int.
        test: the test images.
        classes: names of the classes; `train.classes` or numbers by default.
        flip: whether a mirrored image still belongs to its class.

    Raises:
        InputError: there are no images, their sizes differ, they are normalised, a label is not a class, or the two
            data sets give their labels different names.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> images = torch.randint(256, (20, 3, 8, 8), dtype=torch.uint8)
        >>> data = from_torch(*[TensorDataset(images, torch.arange(20) % 2)] * 2)
        >>> data.image, len(data.train), data.classes
        ((3, 8, 8), 20, ('0', '1'))
    """
    own, other = (tuple(map(str, getattr(source, "classes", ()))) for source in (train, test))
    if own and other and own != other:
        strange = next((f"{first} and {second}" for first, second in zip(own, other) if first != second), "one more")
        raise InputError(
            f"the training and test data sets have different classes ({len(own)} and {len(other)}; {strange}), so that "
            "one label means two classes: give both the same classes in the same order"
        )
    training, testing = _split(train, "training"), _split(test, "test")
    if training.shape != testing.shape:
        raise InputError(f"training images are {training.shape} and test images {testing.shape}: resize them alike")
    splits = (training, testing)
    count = max(int(split.labels.max()) for split in splits) + 1
    names = tuple(map(str, classes or getattr(train, "classes", ()) or range(count)))
    least = min(int(split.labels.min()) for split in splits)
    if least < 0 or count > len(names):
        raise InputError(f"labels go from {least} to {count - 1}, but there are {len(names)} classes")
    name = type(train).__name__.lower()
    check(name, training, testing, names)
    return Dataset(name, training, testing, names, flip=flip, named=True)


def _split(source: Any, which: str) -> Split:
    if isinstance(source, DataLoader):
        raise InputError(f"the {which} data set is a DataLoader: give its data set, and batch= for the size of batches")
    if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
        raise InputError(f"the {which} data set has no length or index: give a map-style data set")
    items = [source[index] for index in range(len(source))]
    if not items:
        raise InputError(f"the {which} data set is empty")
    images = [_pixels(item[0], which) for item in items]
    if len({image.shape for image in images}) > 1:
        raise InputError(f"the {which} images have different sizes: resize them in the data set's transform")
    return Split(torch.stack(images), torch.tensor([int(item[1]) for item in items]))


def _pixels(image: Any, which: str) -> Tensor:
    """(C, H, W) uint8."""
    if not isinstance(image, Tensor):
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim not in (2, 3):
            raise InputError(
                f"a {which} image is {array.dtype} of shape {array.shape}: give uint8, (H, W) or (H, W, C)"
            )
        return torch.from_numpy(array.copy()).reshape(*array.shape[:2], -1).permute(2, 0, 1)
    if image.dtype == torch.uint8:
        return image
    levels = image * 255
    if not (image.min() >= 0 and image.max() <= 1):
        raise InputError(
            f"a {which} image does not have pixels from 0 to 1: leave normalisation and augmentation out of the "
            "data set's transform, because training does both"
        )
    if not torch.allclose(levels, levels.round(), atol=1e-3):
        raise InputError(
            f"a {which} image has pixels between the 256 levels of uint8: give uint8, or round them, "
            "(255 * image).round() / 255; training augments by itself"
        )
    return levels.round().to(torch.uint8)
