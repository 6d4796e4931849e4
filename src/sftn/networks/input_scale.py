"""A network that is fed images normalised by other statistics than those of its own training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sftn.networks.staged import StagedNet, Tap

Normalisation = tuple[Tensor, Tensor]
"""Mean and standard deviation of each channel, (C,), pixels in 0..255."""


class Rescaled(nn.Module):
    """A stem that is given images in one normalisation and gets them in another: (B, C, H, W) -> Tap.

    Args:
        stem: the stem.
        given: the normalisation of the images.
        own: the one that the stem was trained with.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, stem: nn.Module, given: Normalisation, own: Normalisation) -> None:
        super().__init__()
        self.stem = stem
        (mean, std), (own_mean, own_std) = ([part.double() for part in parts] for parts in (given, own))
        for name, values in (("scale", std / own_std), ("shift", (mean - own_mean) / own_std)):
            self.register_buffer(name, values.float().view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tap:
        """The tap of the rescaled images."""
        tap: Tap = self.stem(images * self.scale + self.shift)
        return tap


def rescale(network: StagedNet, given: Normalisation, own: Normalisation) -> None:
    """Let a network read images that are normalised by `given` as it would read them normalised by `own`, in place.

    Equal normalisations change nothing, so no bit either.
    """
    if not all(torch.equal(one, other) for one, other in zip(given, own)):
        network.stem = Rescaled(network.stem, given, own)
